"""What timm's names of architectures say that no tensor does (timm_names.json).

Heads, the eps of norms, the activation, pooling, input size and preprocessing; or the part of an
architecture that this project's network does not have. Written by
tests/models/formats/timm_names.py.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from models.formats.source import CheckpointError

FILE = Path(__file__).with_suffix(".json")


@cache
def _table() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return table


def facts(name: str) -> dict[str, Any] | None:
    """Facts by field of `DeepViTConfig` and `Preprocessing`; None for a name that is not timm's.

    Raises `CheckpointError` for an architecture that cannot be computed.
    """
    found = _table().get(name)
    if found and "unsupported" in found:
        raise CheckpointError(f"{name} has {found['unsupported']}, which is not supported")
    return found
