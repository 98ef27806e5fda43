"""`python -m models.training.table RUN...`: finished runs side by side, as a Markdown table.

A column says for how many blocks the maps are similar to those of the block before, by column
(Eq. 2), by row and by centred column.
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
from models.config import DeepViTConfig

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
    history = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = history[-1]
    # The last block is compared with itself.
    features = np.mean(last["features_to_last"][:-1]) if config.depth > 1 else np.nan
    return (
        folder.name,
        str(config.depth),
        str(config.embed_dim),
        attention(config),
        str(len(history)),
        f"{last['test_accuracy']:.1%}",
        _similar(last["softmax"]),
        _similar(last["reattention"]) if "reattention" in last else "",
        f"{features:.2f}",
    )


def attention(config: DeepViTConfig) -> str:
    """What a network does with its maps, in words."""
    kinds = []
    if config.reatten_blocks:
        kinds.append(f"Re-attention in {len(config.reatten_blocks)}")
    if set(config.softmax_temperatures) - {1.0}:
        values = sorted({*config.softmax_temperatures})
        kinds.append("temperature " + ", ".join(f"{value:g}" for value in values))
    if config.attention_donor is not None:
        kinds.append(f"shared from block {config.attention_donor}")
    return ", ".join(kinds) or "plain"


def _similar(stage: dict[str, Any]) -> str:
    """Similar blocks by column, row and centred column."""
    counts = (len(similar_blocks(np.array(stage[variant]), THRESHOLD)) for variant in VARIANTS)
    return " / ".join(map(str, counts))


if __name__ == "__main__":
    sys.exit(main())
