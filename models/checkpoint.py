"""Loads any supported checkpoint as an architecture and weights, without executing what is in it.

What the tensors determine is inferred from them. The rest comes from overrides, a named
architecture, the file itself, or the conventions of the code base that wrote it, in this order.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from models import formats
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import DeepViT
from models.formats import CheckpointError as CheckpointError
from models.formats import Source, files, names
from models.formats.architecture import fitted, infer, resize_positions
from models.preprocess import Preprocessing

_IMAGENET_1K = Path(__file__).parent / "labels" / "imagenet-1k.txt"
_NEEDED = ("num_heads", "reatten_scale", "scale_adjustment")


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, read and checked."""

    config: DeepViTConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    sha256: str
    format: str = ""
    arch: str | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()  # where facts come from and what was assumed, one line each

    def network(self) -> DeepViT:
        """The network in evaluation mode, float32, with these weights."""
        network = DeepViT(self.config)
        network.load_state_dict(self.weights)
        return network.eval().requires_grad_(False)


def load(path: Path, arch: str | None = None, **overrides: Any) -> Checkpoint:
    """Read a checkpoint: a file, or a Hugging Face style folder.

    `arch` names one of `ARCHITECTURES`; `overrides` are fields of `DeepViTConfig` and
    `Preprocessing` that take precedence over everything but the shapes of the tensors. Only
    another `img_size` changes a shape: positions are interpolated. Raises `CheckpointError`.
    """
    path = files.weights_file(path)
    if arch is not None and arch not in ARCHITECTURES:
        raise CheckpointError(f"no architecture {arch!r}; known: {', '.join(ARCHITECTURES)}")
    source = formats.convert(files.read(path))
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if (img_size := overrides.pop("img_size", None)) is not None:
        resize_positions(source, img_size)
    config = _infer_config(source, arch, overrides)
    return Checkpoint(
        config=config,
        weights=fitted(source, config),
        preprocessing=_preprocessing(source, arch, overrides, config),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        format=source.format,
        arch=arch or _named(source),
        labels=_labels(source, config),
        notes=tuple(source.notes),
    )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write one safetensors file, whose header has what the tensors do not determine."""
    header = {
        "arch": checkpoint.arch or "",
        "config": checkpoint.config.model_dump_json(),
        "preprocessing": checkpoint.preprocessing.model_dump_json(),
        "labels": json.dumps(checkpoint.labels or []),
    }
    weights = {key: value.contiguous() for key, value in checkpoint.weights.items()}
    safetensors.torch.save_file(weights, path, metadata=header)


def imagenet_1k() -> tuple[str, ...]:
    """The names of the 1000 classes (see models/labels/README.md)."""
    return tuple(_IMAGENET_1K.read_text(encoding="utf-8").splitlines())


def _named(source: Source) -> str | None:
    return source.arch if source.arch in ARCHITECTURES else None


def _infer_config(source: Source, arch: str | None, overrides: Mapping[str, Any]) -> DeepViTConfig:
    inferred = infer(source) | dict(source.inferred)
    stated = _fields(source.conventions, DeepViTConfig)
    if name := _named(source):
        source.notes.append(f"architecture {name} named by the file")
        stated |= ARCHITECTURES[name].config.model_dump()
    stated |= _fields(source.facts, DeepViTConfig)
    if arch is not None:
        stated |= ARCHITECTURES[arch].config.model_dump()
    stated |= _fields(overrides, DeepViTConfig)
    for key in inferred.keys() & stated.keys():
        if not _equal(stated[key], inferred[key]):
            source.notes.append(f"{key} is {inferred[key]} by the tensors, not {stated[key]}")
    facts = stated | inferred
    if len(temperatures := facts.get("softmax_temperatures", ())) == 1:
        facts["softmax_temperatures"] = temperatures * facts["depth"]
    if not facts["reatten_blocks"]:
        facts = {"reatten_scale": 1.0, "scale_adjustment": 1.0} | facts
    missing = [key for key in _NEEDED if key not in facts]
    if missing:
        flags = " ".join(f"--{key.replace('_', '-')} VALUE" for key in missing)
        advice = f" ({source.advice})" if source.advice and "num_heads" in missing else ""
        raise CheckpointError(
            f"the tensors do not determine {names(missing)}: pass --arch NAME, or {flags}{advice}"
        )
    try:
        return DeepViTConfig(**facts)
    except ValidationError as exc:
        problems = "; ".join(error["msg"] for error in exc.errors())
        raise CheckpointError(f"the architecture does not fit together: {problems}") from exc


def _fields(facts: Mapping[str, Any], kind: type[BaseModel]) -> dict[str, Any]:
    """The facts that are fields of one class."""
    return {k: v for k, v in facts.items() if k in kind.model_fields and v not in (None, "")}


def _preprocessing(
    source: Source, arch: str | None, overrides: Mapping[str, Any], config: DeepViTConfig
) -> Preprocessing:
    """The source's conventions, overridden by the architecture, the file and the flags."""
    rule = _fields(source.conventions, Preprocessing)
    if name := arch or _named(source):
        rule |= ARCHITECTURES[name].preprocessing.model_dump()
    rule |= _fields(source.facts, Preprocessing) | _fields(overrides, Preprocessing)
    try:
        return Preprocessing(**rule | {"size": config.img_size})
    except ValidationError as exc:
        problems = "; ".join(f"{error['loc'][0]}: {error['msg']}" for error in exc.errors())
        raise CheckpointError(f"the preprocessing does not fit together: {problems}") from exc


def _labels(source: Source, config: DeepViTConfig) -> tuple[str, ...] | None:
    """The file's own names, or those of ImageNet-1k where the code base implies them."""
    if source.labels is not None:
        if len(source.labels) == config.num_classes:
            return source.labels
        source.notes.append(
            f"{len(source.labels)} labels for {config.num_classes} classes: not used"
        )
        return None
    if source.imagenet and config.num_classes == 1000:
        source.notes.append("1000 classes without names: the names of ImageNet-1k assumed")
        return imagenet_1k()
    return None


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)
    return bool((tuple(one) if isinstance(one, list) else one) == other)
