"""Loads any supported checkpoint as an architecture and weights, without executing what is in it.

What the tensors determine is inferred from them. The rest comes from overrides, a named
architecture, the file itself, or the conventions of the code base that wrote it, in this order.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from models import formats
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import DeepViT
from models.formats import CheckpointError as CheckpointError
from models.formats import Source, files, heads, known
from models.formats.architecture import fitted, infer, patch_of, resize_positions
from models.formats.facts import Facts
from models.formats.geometry import StatedSize
from models.formats.source import File
from models.preprocess import Preprocessing
from models.size import Size

_IMAGENET_1K = Path(__file__).parent / "labels" / "imagenet-1k.txt"


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


def load(
    path: Path, arch: str | None = None, head: Path | None = None, **overrides: Any
) -> Checkpoint:
    """Read a checkpoint: a file, or a Hugging Face style folder.

    `arch` names one of `ARCHITECTURES`, or one of timm's; `head` is a file with a classifier for a
    network that has none (models/formats/heads.py). `overrides` are fields of `DeepViTConfig` and
    `Preprocessing` that take precedence over everything but the shapes of the tensors. Only
    another `img_size` changes a shape: positions are interpolated. Raises `CheckpointError`.
    """
    paths = files.weights_files(path)
    told = known.facts(arch) if arch is not None else {}
    if told is None:
        raise CheckpointError(
            f"no architecture {arch!r}; known: {', '.join(ARCHITECTURES)}, and timm's names"
        )
    overrides = {
        key: Size.of(value) if key in ("img_size", "patch_size") else value
        for key, value in overrides.items()
        if value is not None
    }
    file = files.read(paths)
    file.img_size, file.patch_size = overrides.get("img_size"), overrides.get("patch_size")
    file.gets_head = head is not None
    source = _convert(file)
    if head is not None:
        heads.attach(source, files.read([head]))
    facts = Facts(source, told, overrides)
    config = facts.config(_sized(source, facts, overrides.get("img_size")))
    return Checkpoint(
        config=config,
        weights=fitted(source, config),
        preprocessing=facts.preprocessing(config),
        sha256=_sha256([*paths, *([head] if head else [])]),
        format=source.format,
        arch=arch or (source.arch if facts.named else None),
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


def _convert(file: File) -> Source:
    """Raises `CheckpointError`, also where JSON beside the weights has values of other types."""
    try:
        return formats.convert(file)
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        if not (file.config or file.processor):
            raise
        raise CheckpointError(
            f"config.json or preprocessor_config.json beside the weights is not as its program "
            f"writes it: {str(exc).partition(chr(10))[0]}"
        ) from exc


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sized(source: Source, facts: Facts, wanted: Size | None) -> dict[str, Any]:
    """What the tensors determine, once their positions are those of the input to be served.

    `wanted` is another input size than the one trained on; or the one trained on, where the file
    does not say it.
    """
    stated, notes = facts.sizes(), list(source.notes)
    told = [StatedSize(wanted, "--img-size")] if wanted is not None else []
    try:
        inferred = infer(source, stated)
    except CheckpointError:
        if wanted is None:
            raise
        return infer(source, told)
    patch, trained = patch_of(source), inferred["img_size"]
    if told and not stated and (told[0].size // patch).area == (trained // patch).area:
        source.notes[:] = notes  # nothing had to be assumed
        return infer(source, told)
    serve = wanted or source.serve_size or trained
    if serve == trained:
        return inferred
    resize_positions(source, trained, serve)
    return infer(source, [StatedSize(serve, "--img-size")])


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
