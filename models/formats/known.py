"""The facts that belong to an architecture's name: this project's own, and timm's."""

from typing import Any

from models.config import ARCHITECTURES
from models.formats import timm_names


def facts(name: str) -> dict[str, Any] | None:
    """By field of `DeepViTConfig` and `Preprocessing`; None for a name that is not known.

    Raises `CheckpointError` for an architecture that is known, but cannot be computed.
    """
    if name in ARCHITECTURES:
        one = ARCHITECTURES[name]
        return one.preprocessing.model_dump(exclude={"size"}) | one.config.model_dump()
    return timm_names.facts(name)
