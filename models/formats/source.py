"""What passes between reading a file, its format and the network: plain records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

_LISTED = 8  # names in an error before "and n more"


class CheckpointError(Exception):
    """The file cannot be read as a checkpoint; the message says what to do."""


@dataclass
class File:
    """What a file, and the folder around it, hold before they are interpreted."""

    tensors: dict[str, Tensor]
    arch: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # training arguments or header
    labels: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    wrapper: str | None = None  # the key that the state dict was found under
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json
    processor: Mapping[str, Any] = field(default_factory=dict)  # preprocessor_config.json


@dataclass
class Source:
    """A network in our names, and what its format and file say beside the tensors."""

    format: str
    tensors: dict[str, Tensor]
    arch: str | None = None
    told: Mapping[str, Any] = field(default_factory=dict)  # by the names of its tensors
    conventions: Mapping[str, Any] = field(default_factory=dict)  # of the code base
    facts: Mapping[str, Any] = field(default_factory=dict)  # stated by this file
    labels: tuple[str, ...] | None = None
    imagenet: bool = False  # 1000 classes without names are those of ImageNet-1k
    notes: list[str] = field(default_factory=list)
    advice: str | None = None  # on what the tensors do not tell


def names(keys: Iterable[str]) -> str:
    """A list for an error message, shortened."""
    keys = list(keys)
    shown = ", ".join(keys[:_LISTED])
    return shown + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")


def refuse(keys: Iterable[str], endings: Mapping[str, str]) -> None:
    """Raise `CheckpointError` if a tensor belongs to a part that is known but not supported.

    `endings` maps a piece of such a tensor's name to what it is part of.
    """
    for key in keys:
        for piece, what in endings.items():
            if piece in key:
                raise CheckpointError(f"{what} is not supported ({key})")
