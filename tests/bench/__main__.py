"""`python -m tests.bench [graph|profile|serving|scaling|decode|tables|gpu] [--model NAME]`.

Runs all parts but `gpu` by default.

A model is the bundled `deepvit16-cifar10` or any architecture of models.config; the latter is
exported with random weights first, which takes minutes.
"""

import argparse

from tests.bench import models, tables

PARTS = ("graph", "profile", "serving", "scaling", "decode", "tables")
ON_GPU = "gpu"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*PARTS, ON_GPU, []], metavar="part")
    parser.add_argument("--model", action="append", help="model to measure; may be repeated")
    options = parser.parse_args()
    names = options.model or [models.BUNDLED]
    for part in options.part or PARTS:
        if part == "graph":
            from tests.bench import graph  # needs all of PyTorch

            for name in names:
                graph.run(name)
        elif part == ON_GPU:
            from tests.bench import gpu

            for name in names:
                gpu.run(name)
        elif part == "profile":
            from tests.bench import profile

            for name in names:
                profile.run(name)
        elif part == "serving":
            from tests.bench import serving

            for name in names:
                serving.run(name)
        elif part == "decode":
            from tests.bench import decode

            decode.run(models.BUNDLED)
        elif part == "scaling":
            from tests.bench import scaling

            scaling.run()
        else:
            tables.show()


if __name__ == "__main__":
    main()
