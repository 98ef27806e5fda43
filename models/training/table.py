"""`python -m models.training.table RUN...`: finished runs side by side, as a Markdown table.

A column says for how many blocks the maps are similar to those of the block before, by column
(Eq. 2), by row and by centred column; the last one how like the last block's tokens those of the
others are, as the mean cosine.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from models import checkpoint
from models.collapse import THRESHOLD, VARIANTS, similar_blocks
from models.training.card import kind

_HEADER = (
    "run", "blocks", "width", "attention", "epochs", "right", "softmax maps", "mixed maps",
    "features to last",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; 1 where a folder has no finished run."""
    parser = argparse.ArgumentParser(prog="python -m models.training.table", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    try:
        rows = [_row(folder) for folder in parser.parse_args(arguments).runs]
    except (OSError, checkpoint.CheckpointError) as exc:
        print(f"models.training.table: {exc}", file=sys.stderr)
        return 1
    for cells in (_HEADER, ["---"] * len(_HEADER), *rows):
        print(f"| {' | '.join(cells)} |")
    return 0


def _row(folder: Path) -> Iterable[str]:
    config = checkpoint.load(folder / f"{folder.name}.safetensors").config
    history = [
        json.loads(line)
        for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    last = history[-1]
    # The last block is compared with itself.
    features = np.mean(last["features_to_last"][:-1]) if config.depth > 1 else np.nan
    return (
        folder.name,
        str(config.depth),
        str(config.embed_dim),
        kind(config),
        str(len(history)),
        f"{last['test_accuracy']:.1%}",
        _similar(last["softmax"]),
        _similar(last["reattention"]) if "reattention" in last else "",
        f"{features:.2f}",
    )


def _similar(stage: dict[str, Any]) -> str:
    """Similar blocks by column, row and centred column."""
    counts = (len(similar_blocks(np.array(stage[variant]), THRESHOLD)) for variant in VARIANTS)
    return " / ".join(map(str, counts))


if __name__ == "__main__":
    sys.exit(main())
