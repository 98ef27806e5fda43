"""Plain records: what a file holds, and a network in the project's names."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from models.size import Size

UNSCALED = {"reatten_scale": 1.0, "scale_adjustment": 1.0}  # in all code but the official one

_LISTED = 8  # names in an error before "and n more"


class CheckpointError(Exception):
    """The file cannot be read as a checkpoint; the message says why or what to do."""


@dataclass
class File:
    """The content of a file and of the folder around it, before it is interpreted."""

    tensors: dict[str, Tensor]
    arch: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # training arguments, or the header
    labels: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)  # that lead to the state dict
    ours: bool = False  # written by this project, whose facts are complete
    gets_head: bool = False  # the caller has a classifier in another file
    img_size: Size | None = None  # as the caller says, not the file
    patch_size: Size | None = None  # likewise
    config: Mapping[str, Any] = field(default_factory=dict)  # config.json
    processor: Mapping[str, Any] = field(default_factory=dict)  # preprocessor_config.json

    @property
    def name(self) -> str | None:
        """What the file or the folder calls its architecture, without a tag.

        `.augreg_in21k` is one, in vit_base_patch16_224.augreg_in21k.
        """
        said = (self.config.get("architecture"), self.arch, self.config.get("model_type"))
        found = next((name for name in said if isinstance(name, str) and name), None)
        return found and found.partition(".")[0]


@dataclass
class Source:
    """A network in the project's names, and what format and file say besides the tensors."""

    format: str
    tensors: dict[str, Tensor]
    original: Callable[[str], str] = str  # the project's name of a tensor to the file's, for errors
    arch: str | None = None  # the name in the file, without a tag
    stated_size: Size | None = None  # of the input in pixels, as the file says
    inferred: Mapping[str, Any] = field(default_factory=dict)  # from the names of its tensors
    conventions: Mapping[str, Any] = field(default_factory=dict)  # of the code base
    facts: Mapping[str, Any] = field(default_factory=dict)  # stated by this file
    serve_size: Size | None = None  # if it differs: positions are interpolated, as always there
    class_token: bool = True
    antialias: bool = True  # PyTorch's flag, for the interpolation of positions
    labels: tuple[str, ...] | None = None
    imagenet: bool = False  # 1000 classes without names are those of ImageNet-1k
    notes: list[str] = field(default_factory=list)
    advice: str | None = None  # on facts that the tensors do not determine


def names(keys: Iterable[str]) -> str:
    """A shortened list for an error message."""
    keys = list(keys)
    shown = ", ".join(keys[:_LISTED])
    return shown + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")


def original_name(ours: str, named: Mapping[str, str], layer: str) -> str:
    """A file's name of a tensor, by its names and the project's; those of missing tensors included.

    A missing one is named as in another block; `layer` is what stands before a block's number.
    """
    found = next((theirs for theirs, mine in named.items() if mine == ours), None)
    block = re.fullmatch(r"blocks\.(\d+)(\..+)", ours)
    if found is None and block:
        alike = (theirs for theirs, mine in named.items() if mine.endswith(block[2]))
        found = re.sub(rf"{re.escape(layer)}\d+", f"{layer}{block[1]}", next(alike, ours))
    return found or ours


def refuse(keys: Iterable[str], parts: Mapping[str, str]) -> None:
    """Raise `CheckpointError` if a tensor belongs to a part that is known but not supported.

    `parts` maps a piece of such a tensor's name to the name of the part.
    """
    for key in keys:
        for piece, part in parts.items():
            if piece in key:
                raise CheckpointError(f"not supported: {part} ({key})")


def join(parts: Mapping[str, Tensor | None], dim: int) -> Tensor:
    """Concatenate tensors. Raises `CheckpointError` if one is missing or does not fit."""
    found = [value for value in parts.values() if value is not None]
    if len(found) == len(parts):
        try:
            return torch.cat(found, dim=dim)
        except (RuntimeError, IndexError):  # shapes differ
            pass
    shapes = (f"{key} {'missing' if v is None else list(v.shape)}" for key, v in parts.items())
    raise CheckpointError(f"tensors that belong together do not fit: {names(shapes)}")


def join_heads(
    tensors: dict[str, Tensor],
    cls: tuple[str, str],
    dist: tuple[str, str],
    original: Callable[[str], str] = str,
) -> dict[str, Tensor]:
    """The mean of two linear heads on two tokens, as one head on both tokens side by side.

    `cls` and `dist` name the weight and bias of each, which are removed from `tensors`; `original`
    gives their names for an error.
    """
    (weight, bias), (other_weight, other_bias) = (
        [(original(key), tensors.pop(key, None)) for key in pair] for pair in (cls, dist)
    )
    biases = {key: None if v is None else v.unsqueeze(0) for key, v in (bias, other_bias)}
    return {
        "head.weight": join(dict([weight, other_weight]), dim=1) / 2,
        "head.bias": join(biases, dim=0).sum(dim=0) / 2,
    }
