"""Infers an architecture from tensors in the project's names, and checks that they fit it."""

import math
import re
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.formats.source import CheckpointError, Source, names

_NEEDED = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "head.weight": 2}


def infer(source: Source) -> dict[str, Any]:
    """Every field of `DeepViTConfig` that names and shapes of tensors determine.

    Raises `CheckpointError` if they are not those of a ViT.
    """
    depth = _depth(source)
    _check_needed(source)
    return _infer_outside(source) | {"depth": depth} | _infer_blocks(source, depth)


def _depth(source: Source) -> int:
    found = (re.match(r"blocks\.(\d+)\.", key) for key in source.tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _check_needed(source: Source) -> None:
    tensors, original = source.tensors, source.original
    absent = [key for key in _NEEDED if key not in tensors]
    if not _depth(source):
        absent = absent or ["blocks.0.norm1.weight"]
    if absent:
        raise CheckpointError(
            f"the state dict is incomplete: no {names(map(original, absent))}. "
            f"It begins with {names(map(original, tensors))}"
        )
    wrong = [
        f"{original(key)} {list(tensors[key].shape)}"
        for key, dimensions in _NEEDED.items()
        if tensors[key].ndim != dimensions
    ]
    if wrong:
        raise CheckpointError(f"tensors of a wrong shape: {names(wrong)}")


def _infer_outside(source: Source) -> dict[str, Any]:
    """What the tensors outside the blocks determine."""
    tensors = source.tensors
    prefix, width = tensors["cls_token"].shape[1:]
    patch, conv_stem = _patch(source)
    facts: dict[str, Any] = {
        "img_size": _grid(source, prefix) * patch,
        "patch_size": patch,
        "in_chans": 3,
        "num_classes": tensors["head.weight"].shape[0],
        "embed_dim": width,
        "stem": "conv" if conv_stem else "patch",
        "prefix_tokens": prefix,
        "patch_norm": "patch_embed.norm1.weight" in tensors,
        "norm_pre": "norm_pre.weight" in tensors,
    }
    if tensors["head.weight"].shape[1] == 2 * width and prefix > 1:
        facts["pool"] = "cls_dist"
    return facts


def _patch(source: Source) -> tuple[int, bool]:
    """The patch size, and whether the stem is a convolutional one."""
    projection = source.tensors["patch_embed.proj.weight"]
    first = source.tensors.get("patch_embed.conv1.weight", projection)
    if first.shape[1] != 3:
        raise CheckpointError(
            f"the network takes {first.shape[1]} channels, and only RGB is supported"
        )
    if projection.shape[2] != projection.shape[3]:
        raise CheckpointError(f"patches of {list(projection.shape[2:])} are not square")
    conv_stem = first is not projection
    return projection.shape[-1] * (2 if conv_stem else 1), conv_stem


def _grid(source: Source, prefix: int) -> int:
    """Patches along one side."""
    patches = source.tensors["pos_embed"].shape[1] - prefix
    grid = math.isqrt(max(patches, 0))
    if grid**2 != patches:
        raise CheckpointError(
            f"{source.original('pos_embed')} holds {patches} patches, which is not a square grid"
        )
    return grid


def _infer_blocks(source: Source, depth: int) -> dict[str, Any]:
    """What the tensors of the blocks determine."""
    tensors, width = source.tensors, source.tensors["cls_token"].shape[-1]
    facts: dict[str, Any] = {"qkv_bias": "blocks.0.attn.qkv.bias" in tensors}
    if "blocks.0.mlp.fc1.weight" in tensors:
        facts["mlp_ratio"] = tensors["blocks.0.mlp.fc1.weight"].shape[0] / width
    if "blocks.0.attn.qkv.weight" in tensors:
        heads_dim = tensors["blocks.0.attn.qkv.weight"].shape[0] // 3
        facts["attn_dim"] = heads_dim if heads_dim != width else None
    mixing = tuple(i for i in range(depth) if f"blocks.{i}.attn.reatten_matrix.weight" in tensors)
    facts["reatten_blocks"] = mixing
    if mixing:
        facts["num_heads"] = tensors[f"blocks.{mixing[0]}.attn.reatten_matrix.weight"].shape[0]
        norms = [f"blocks.{i}.attn.var_norm" for i in mixing]
        batch = any(f"{norm}.running_mean" in tensors for norm in norms)
        layer = not batch and any(f"{norm}.weight" in tensors for norm in norms)
        facts |= {"reatten_norm": batch or layer, "reatten_layer_norm": layer}
    return facts


def resize_positions(source: Source, img_size: int) -> None:
    """Interpolate the positions of patches for another input size, as their code base does.

    All code bases are bicubic. PyTorch's `antialias` changes the kernel, even when enlarging.
    """
    facts, tensors, notes = infer(source), source.tensors, source.notes
    patch, prefix, trained = facts["patch_size"], facts["prefix_tokens"], facts["img_size"]
    if img_size == trained:
        return
    if img_size % patch:
        raise CheckpointError(f"patch {patch} does not divide {img_size} pixels")
    before, after = trained // patch, img_size // patch
    positions = tensors["pos_embed"].float()
    grid = positions[:, prefix:].reshape(1, before, before, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=(after, after), mode="bicubic", antialias=source.antialias)
    flat = resized.permute(0, 2, 3, 1).flatten(1, 2)
    tensors["pos_embed"] = torch.cat((positions[:, :prefix], flat), dim=1)
    notes.append(f"trained at {trained} pixels: positions interpolated to {img_size}")
    if facts.get("reatten_norm") and not facts["reatten_layer_norm"]:
        notes.append(
            f"warning: BatchNorm over heads was trained on maps of {before**2 + prefix} tokens, so "
            f"its offsets are wrong for {after**2 + prefix}; expect lower accuracy than at "
            f"{trained} pixels"
        )


def fitted(source: Source, config: DeepViTConfig) -> dict[str, Tensor]:
    """The weights of the network, in its own types.

    Raises `CheckpointError`, which names tensors that are missing, left over or do not fit.
    """
    tensors, original = source.tensors, source.original
    with torch.device("meta"):
        expected = DeepViT(config).state_dict()
    weights = {key: value for key, value in tensors.items() if key in expected}
    for key in expected.keys() - weights.keys():
        if key.endswith("num_batches_tracked"):  # a counter that inference never reads
            weights[key] = torch.zeros((), dtype=torch.int64)
    problems = {
        "missing": [original(key) for key in sorted(expected.keys() - weights.keys())],
        "not part of this network": [
            original(key) for key in sorted(tensors.keys() - expected.keys())
        ],
        "of a wrong shape": [
            f"{original(key)} {list(value.shape)} instead of {list(expected[key].shape)}"
            for key, value in weights.items()
            if value.shape != expected[key].shape
        ],
        "not finite": [
            original(key) for key, value in weights.items() if not value.isfinite().all()
        ],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {names(keys)}" for what, keys in problems.items() if keys)
        raise CheckpointError(f"the tensors do not fit the architecture they describe. {found}")
    return {key: weights[key].to(expected[key].dtype) for key in expected}
