"""What tensors in the project's names tell of their network, and whether they fit it."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.formats.source import CheckpointError, Source, names


def told_by_tensors(source: Source) -> dict[str, Any]:
    """Every architectural fact that shapes and names give away."""
    tensors, original = source.tensors, source.original
    needed = {"cls_token": 3, "pos_embed": 3, "patch_embed.proj.weight": 4, "head.weight": 2}
    absent = [key for key in needed if key not in tensors]
    blocks = {int(found[1]) for key in tensors if (found := re.match(r"blocks\.(\d+)\.", key))}
    if absent or not blocks:
        raise CheckpointError(
            "the state dict is incomplete: no "
            f"{names(map(original, absent or ['blocks.0.norm1.weight']))}. "
            f"It begins with {names(map(original, tensors))}"
        )
    wrong = [
        f"{original(key)} {list(tensors[key].shape)}"
        for key, n in needed.items()
        if tensors[key].ndim != n
    ]
    if wrong:
        raise CheckpointError(f"tensors of a wrong shape: {names(wrong)}")
    prefix, width = tensors["cls_token"].shape[1:]
    projection = tensors["patch_embed.proj.weight"]
    first = tensors.get("patch_embed.conv1.weight", projection)
    conv_stem = first is not projection
    if first.shape[1] != 3:
        raise CheckpointError(
            f"the network sees {first.shape[1]} channels, and only RGB is supported"
        )
    if projection.shape[2] != projection.shape[3]:
        raise CheckpointError(f"patches of {list(projection.shape[2:])} are not square")
    patch = projection.shape[-1] * (2 if conv_stem else 1)
    patches = tensors["pos_embed"].shape[1] - prefix
    grid = math.isqrt(max(patches, 0))
    if grid**2 != patches:
        raise CheckpointError(
            f"{original('pos_embed')} holds {patches} patches, which is not a square grid"
        )
    told: dict[str, Any] = {
        "img_size": grid * patch,
        "patch_size": patch,
        "in_chans": 3,
        "num_classes": tensors["head.weight"].shape[0],
        "embed_dim": width,
        "depth": max(blocks) + 1,
        "qkv_bias": "blocks.0.attn.qkv.bias" in tensors,
        "stem": "conv" if conv_stem else "patch",
        "prefix_tokens": prefix,
        "patch_norm": "patch_embed.norm1.weight" in tensors,
        "norm_pre": "norm_pre.weight" in tensors,
    }
    if tensors["head.weight"].shape[1] == 2 * width and prefix > 1:
        told["pool"] = "cls_dist"
    return told | _told_by_blocks(tensors, max(blocks) + 1, width)


def _told_by_blocks(tensors: Mapping[str, Tensor], depth: int, width: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if "blocks.0.mlp.fc1.weight" in tensors:
        told["mlp_ratio"] = tensors["blocks.0.mlp.fc1.weight"].shape[0] / width
    if "blocks.0.attn.qkv.weight" in tensors:
        together = tensors["blocks.0.attn.qkv.weight"].shape[0] // 3
        told["attn_dim"] = together if together != width else None
    mixing = tuple(i for i in range(depth) if f"blocks.{i}.attn.reatten_matrix.weight" in tensors)
    told["reatten_blocks"] = mixing
    if mixing:
        told["num_heads"] = tensors[f"blocks.{mixing[0]}.attn.reatten_matrix.weight"].shape[0]
        norms = [f"blocks.{i}.attn.var_norm" for i in mixing]
        batch = any(f"{norm}.running_mean" in tensors for norm in norms)
        layer = not batch and any(f"{norm}.weight" in tensors for norm in norms)
        told |= {"reatten_norm": batch or layer, "reatten_layer_norm": layer}
    return told


def resize_positions(source: Source, img_size: int) -> None:
    """Interpolate the positions of patches for another input size, as their code base does.

    Bicubic everywhere; with PyTorch's `antialias` the kernel is another one, upwards too.
    """
    told, tensors, notes = told_by_tensors(source), source.tensors, source.notes
    patch, prefix, trained = told["patch_size"], told["prefix_tokens"], told["img_size"]
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
    if told.get("reatten_norm") and not told["reatten_layer_norm"]:
        notes.append(
            f"warning: BatchNorm over heads was fitted to maps of {before**2 + prefix} tokens, so "
            f"its offsets are wrong for {after**2 + prefix}; expect worse answers than at {trained}"
        )


def match(source: Source, config: DeepViTConfig) -> dict[str, Tensor]:
    """The weights in float32, exactly those that the network has, or an error naming the rest."""
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
