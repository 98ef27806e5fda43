"""`python -m tests.bench [PART...] [--model NAME]`, where a part is a module of this folder.

By default all parts run but `peak`, `bulk`, `training`, `gpu`, `monitor`, `pictures`, `drift`,
which needs `--images FOLDER`, and those of a cluster: `cluster`, `fronts`, `capacity`.

With `--images FOLDER`, `graph` says what rounding costs in answers; `--quick` shortens `serving`.

A model is the small `deepvit16-cifar10` or any architecture of models.config; the latter is
exported with random weights first, which takes minutes.
"""

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.bench import models, tables

PARTS = ("graph", "profile", "serving", "scaling", "decode", "tables")
ON_REQUEST = (
    *("peak", "bulk", "training", "gpu", "drift", "monitor", "pictures"),
    *("cluster", "fronts", "capacity"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, *ON_REQUEST, []], metavar="part")
    parser.add_argument("--model", action="append", help="model to measure; may be repeated")
    parser.add_argument("--quick", action="store_true", help="of serving: short turns, one of each")
    parser.add_argument("--images", type=Path, help="a folder of pictures, for drift and graph")
    options = parser.parse_args()
    for part in options.part or PARTS:
        names = options.model or [models.BUNDLED if part == "bulk" else models.SMALL]
        _run(part, names, options.images, options.quick)


def _run(part: str, names: Sequence[str], images: Path, quick: bool) -> None:
    if part == "tables":
        tables.show()
        tables.renew()
        return
    module = import_module(f"tests.bench.{part}")  # not before: some need all of PyTorch
    if part == "decode":
        module.run(models.SMALL)
    elif part in ("drift", "graph"):
        for name in names:
            module.run(name, images)
    elif part == "serving":
        for name in names:
            module.run(name, quick)
    elif part in ("scaling", "training", "capacity"):
        module.run()
    else:
        for name in names:
            module.run(name)


if __name__ == "__main__":
    main()
