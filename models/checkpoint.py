"""Any supported checkpoint file to (architecture, weights), without ever executing what is in it.

Reads the official container or a bare state dict (paper.md section 6.1), from torch's
format or safetensors. What the tensors tell is taken from the tensors; what they cannot
tell comes from a named architecture or from overrides.
"""

import argparse
import hashlib
import json
import math
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import DeepViT
from models.preprocess import Preprocessing

# Plain data that training scripts leave in a container; none of it runs code when loaded.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
]
_LISTED = 8  # names in an error before "and n more"


class CheckpointError(Exception):
    """The file cannot be read as a checkpoint; the message says what to do."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained network, read and checked."""

    config: DeepViTConfig
    weights: dict[str, Tensor]
    preprocessing: Preprocessing
    sha256: str
    arch: str | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()  # what was taken from where, one sentence each

    def network(self) -> DeepViT:
        """The network in evaluation mode, float32, with these weights."""
        network = DeepViT(self.config)
        network.load_state_dict(self.weights)
        return network.eval().requires_grad_(False)


@dataclass
class _File:
    """What one file holds, before it is interpreted."""

    tensors: dict[str, Tensor]
    arch: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)  # training arguments or header
    labels: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)


def load(path: Path, arch: str | None = None, **overrides: Any) -> Checkpoint:
    """Read a checkpoint file.

    `arch` names one of `ARCHITECTURES`; `overrides` are fields of `DeepViTConfig` that win
    over everything but the shapes of the tensors. Raises `CheckpointError`.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file")
    file = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if arch is not None and arch not in ARCHITECTURES:
        raise CheckpointError(f"no architecture {arch!r}; known: {', '.join(ARCHITECTURES)}")
    config = _infer_config(file, arch, overrides)
    arch = arch or _named(file)
    return Checkpoint(
        config=config,
        weights=_match(file.tensors, config),
        preprocessing=_preprocessing(file, arch, config),
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        arch=arch,
        labels=file.labels,
        notes=tuple(file.notes),
    )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one safetensors file whose header says what the tensors cannot."""
    header = {
        "arch": checkpoint.arch or "",
        "config": checkpoint.config.model_dump_json(),
        "preprocessing": checkpoint.preprocessing.model_dump_json(),
        "labels": json.dumps(checkpoint.labels or []),
    }
    weights = {key: value.contiguous() for key, value in checkpoint.weights.items()}
    safetensors.torch.save_file(weights, path, metadata=header)


def _read_safetensors(path: Path) -> _File:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as exc:
        raise CheckpointError(f"{path.name} is not a readable safetensors file: {exc}") from exc
    if "config" not in header:
        return _File(tensors)
    facts = json.loads(header["config"]) | json.loads(header["preprocessing"])
    labels = tuple(json.loads(header["labels"])) or None
    return _File(tensors, header["arch"] or None, facts, labels, ["facts read from the header"])


def _read_torch(path: Path) -> _File:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointError(_refusal(path)) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        raise CheckpointError(
            f"{path.name} is not a readable torch checkpoint, or it is truncated: {exc}"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, not a state dict")
    state = content.get("state_dict_ema") or content.get("state_dict", content)
    notes = ["averaged weights (state_dict_ema) taken"] if content.get("state_dict_ema") else []
    tensors = {
        str(key).removeprefix("module."): value.detach()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors under state_dict or at its top")
    arch, args = content.get("arch"), content.get("args")
    facts = vars(args) if isinstance(args, argparse.Namespace) else {}
    return _File(tensors, arch if isinstance(arch, str) else None, facts, notes=notes)


def _refusal(path: Path) -> str:
    """Name what a pickle wanted beyond plain data; finding out does not execute it."""
    advice = "Save the state dict alone, with torch.save or as safetensors."
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  # the archive itself may be broken; the advice stands
        return f"{path.name} was refused: it holds more than plain tensors. {advice}"
    return (
        f"{path.name} was refused: loading it would call {_names(sorted(wanted))}. "
        f"Nothing was executed. {advice}"
    )


def _named(file: _File) -> str | None:
    return file.arch if file.arch in ARCHITECTURES else None


def _infer_config(file: _File, arch: str | None, overrides: Mapping[str, Any]) -> DeepViTConfig:
    told = _told_by_tensors(file.tensors)
    untold = _facts(file, DeepViTConfig)
    if name := _named(file):
        file.notes.append(f"architecture {name} named by the file")
        untold = ARCHITECTURES[name].config.model_dump() | untold
    if arch is not None:
        untold |= ARCHITECTURES[arch].config.model_dump()
    untold |= {key: value for key, value in overrides.items() if value is not None}
    for key in told.keys() & untold.keys():
        if not _equal(untold[key], told[key]):
            file.notes.append(f"{key} is {told[key]} by the tensors, not {untold[key]}")
    facts = untold | told
    if not facts["reatten_blocks"]:
        facts = {"reatten_scale": 1.0, "scale_adjustment": 1.0} | facts
    missing = [
        key for key in ("num_heads", "reatten_scale", "scale_adjustment") if key not in facts
    ]
    if missing:
        flags = " ".join(f"--{key.replace('_', '-')} VALUE" for key in missing)
        raise CheckpointError(
            f"the tensors do not tell {_names(missing)}: pass --arch NAME, or {flags}"
        )
    try:
        return DeepViTConfig(**facts)
    except ValidationError as exc:
        problems = "; ".join(error["msg"] for error in exc.errors())
        raise CheckpointError(f"the architecture does not fit together: {problems}") from exc


def _facts(file: _File, kind: type[BaseModel]) -> dict[str, Any]:
    """What the file's header or arguments say about the fields of one class."""
    return {k: v for k, v in file.facts.items() if k in kind.model_fields and v not in (None, "")}


def _told_by_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Every architectural fact that shapes and names give away."""
    needed = ("cls_token", "pos_embed", "patch_embed.proj.weight", "head.weight")
    absent = [key for key in needed if key not in tensors]
    blocks = {int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))}
    if absent or not blocks:
        raise CheckpointError(
            f"not an official DeepViT state dict: no {_names(absent or ['blocks.0.*'])}. "
            f"It begins with {_names(list(tensors))}"
        )
    width = tensors["cls_token"].shape[-1]
    projection = tensors["patch_embed.proj.weight"]
    conv_stem = "patch_embed.conv1.weight" in tensors
    patch = projection.shape[-1] * (2 if conv_stem else 1)
    patches = tensors["pos_embed"].shape[-2] - 1
    grid = math.isqrt(patches)
    if grid**2 != patches:
        raise CheckpointError(f"pos_embed holds {patches} patches, which is not a square grid")
    mixing = tuple(i for i in sorted(blocks) if f"blocks.{i}.attn.reatten_matrix.weight" in tensors)
    normed = [f"blocks.{i}.attn.var_norm.running_mean" in tensors for i in mixing]
    told: dict[str, Any] = {
        "img_size": grid * patch,
        "patch_size": patch,
        "in_chans": tensors["patch_embed.conv1.weight"].shape[1]
        if conv_stem
        else projection.shape[1],
        "num_classes": tensors["head.weight"].shape[0],
        "embed_dim": width,
        "depth": max(blocks) + 1,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "stem": "conv" if conv_stem else "patch",
        "reatten_blocks": mixing,
    }
    if "blocks.0.mlp.fc1.weight" in tensors:
        told["mlp_ratio"] = tensors["blocks.0.mlp.fc1.weight"].shape[0] / width
    if mixing:
        told["num_heads"] = tensors[f"blocks.{mixing[0]}.attn.reatten_matrix.weight"].shape[0]
        told["reatten_norm"] = any(normed)
    return told


def _match(tensors: Mapping[str, Tensor], config: DeepViTConfig) -> dict[str, Tensor]:
    """The weights in float32, exactly those that the network has, or an error naming the rest."""
    with torch.device("meta"):
        expected = DeepViT(config).state_dict()
    weights = {key: value for key, value in tensors.items() if key in expected}
    for key in expected.keys() - weights.keys():
        if key.endswith("num_batches_tracked"):  # a counter that inference never reads
            weights[key] = torch.zeros((), dtype=torch.int64)
    problems = {
        "missing": sorted(expected.keys() - weights.keys()),
        "not part of this network": sorted(tensors.keys() - expected.keys()),
        "of a wrong shape": [
            f"{key} {list(value.shape)} instead of {list(expected[key].shape)}"
            for key, value in weights.items()
            if value.shape != expected[key].shape
        ],
        "not finite": [key for key, value in weights.items() if not value.isfinite().all()],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {_names(keys)}" for what, keys in problems.items() if keys)
        raise CheckpointError(f"the tensors do not fit the architecture they describe. {found}")
    return {key: weights[key].to(expected[key].dtype) for key in expected}


def _preprocessing(file: _File, arch: str | None, config: DeepViTConfig) -> Preprocessing:
    """The published rule of the architecture, corrected by what the file says."""
    rule = ARCHITECTURES[arch].preprocessing.model_dump() if arch else {}
    return Preprocessing(**rule | _facts(file, Preprocessing) | {"size": config.img_size})


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other)
    return bool((tuple(one) if isinstance(one, list) else one) == other)


def _names(keys: list[str]) -> str:
    shown = ", ".join(keys[:_LISTED])
    return shown + (f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else "")
