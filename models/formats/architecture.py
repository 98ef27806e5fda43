"""Infers an architecture from tensors in the project's names, and checks that they fit it."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.formats.geometry import StatedSize, grid_of
from models.formats.source import CheckpointError, Source, names
from models.size import Size

_FIRST = ("patch_embed.conv1.weight", "patch_embed.proj.weight")  # the layer that sees pixels
_NEEDED = {"pos_embed": 3, "patch_embed.proj.weight": 4, "head.weight": 2}


def infer(source: Source, stated: Sequence[StatedSize] = ()) -> dict[str, Any]:
    """Every field of `DeepViTConfig` that names and shapes of tensors determine.

    `stated` are sizes of the input, of which one has to have as many patches as there are
    positions. Raises `CheckpointError` if the tensors are not those of a ViT.
    """
    depth = _depth(source)
    _check_needed(source)
    return _infer_outside(source, stated) | {"depth": depth} | _infer_blocks(source, depth)


def patch_of(source: Source) -> Size:
    """Height and width of a patch. Raises `CheckpointError` for channels other than RGB."""
    projection = source.tensors["patch_embed.proj.weight"]
    key = next(key for key in _FIRST if key in source.tensors)
    if (channels := source.tensors[key].shape[1]) != 3:
        raise CheckpointError(
            f"{source.original(key)} takes {channels} channels, and only RGB is supported"
        )
    times = 2 if key == _FIRST[0] else 1
    return Size(times * projection.shape[2], times * projection.shape[3])


def _depth(source: Source) -> int:
    found = (re.match(r"blocks\.(\d+)\.", key) for key in source.tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def _check_needed(source: Source) -> None:
    tensors, original = source.tensors, source.original
    needed = ("cls_token", *_NEEDED) if source.class_token else tuple(_NEEDED)
    absent = [key for key in needed if key not in tensors]
    if absent == ["head.weight"]:
        raise CheckpointError(
            "the network has no classifier (head.weight): pass --head FILE, or save it with one"
        )
    if not _depth(source):
        absent = absent or ["blocks.0.norm1.weight"]
    if absent:
        raise CheckpointError(
            f"the state dict is incomplete: no {names(map(original, absent))}. "
            f"It begins with {names(map(original, tensors))}"
        )
    wrong = [
        f"{original(key)} {list(tensors[key].shape)}"
        for key, dimensions in {"cls_token": 3, **_NEEDED}.items()
        if key in tensors and tensors[key].ndim != dimensions
    ]
    if wrong:
        raise CheckpointError(f"tensors of a wrong shape: {names(wrong)}")


def _infer_outside(source: Source, stated: Sequence[StatedSize]) -> dict[str, Any]:
    """What the tensors outside the blocks determine."""
    tensors = source.tensors
    prefix = tensors["cls_token"].shape[1] if "cls_token" in tensors else 0
    patch, width = patch_of(source), tensors["pos_embed"].shape[-1]
    patches = tensors["pos_embed"].shape[1] - prefix
    grid, note = grid_of(patches, patch, stated, source.original("pos_embed"))
    if note and note not in source.notes:
        source.notes.append(note)
    facts: dict[str, Any] = {
        "img_size": Size(grid.height * patch.height, grid.width * patch.width),
        "patch_size": patch,
        "in_chans": 3,
        "num_classes": tensors["head.weight"].shape[0],
        "embed_dim": width,
        "stem": "conv" if "patch_embed.conv1.weight" in tensors else "patch",
        "prefix_tokens": prefix,
        "class_token": source.class_token,
        "patch_norm": "patch_embed.norm1.weight" in tensors,
        "norm_pre": "norm_pre.weight" in tensors,
    }
    if "features.weight" in tensors:
        facts["features"] = len(tensors["features.weight"])
    if "attn_pool.latent" in tensors:
        facts["pool"] = "attention"
    elif "features" not in facts and tensors["head.weight"].shape[1] == 2 * width:
        mean = source.facts.get("pool") == "cls_mean" or prefix < 2
        facts["pool"] = "cls_mean" if mean else "cls_dist"
    return facts


def _infer_blocks(source: Source, depth: int) -> dict[str, Any]:
    """What the tensors of the blocks determine."""
    tensors, width = source.tensors, source.tensors["pos_embed"].shape[-1]
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


def resize_positions(source: Source, trained: Size, wanted: Size) -> None:
    """Interpolate the positions of patches for another input size, as their code base does.

    All code bases are bicubic. PyTorch's `antialias` changes the kernel, even when enlarging.
    """
    tensors, notes, patch = source.tensors, source.notes, patch_of(source)
    if any(wanted % patch):
        raise CheckpointError(f"patches of {patch} do not divide {wanted} pixels")
    before, after = trained // patch, wanted // patch
    positions = tensors["pos_embed"].float()
    prefix = positions.shape[1] - before.area
    grid = positions[:, prefix:].reshape(1, *before, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=after, mode="bicubic", antialias=source.antialias)
    flat = resized.permute(0, 2, 3, 1).flatten(1, 2)
    tensors["pos_embed"] = torch.cat((positions[:, :prefix], flat), dim=1)
    notes.append(f"trained at {trained} pixels: positions interpolated to {wanted}")
    if any(".attn.var_norm.running_mean" in key for key in tensors):
        notes.append(
            "warning: BatchNorm over heads was trained on maps of "
            f"{before.area + prefix} tokens, so its offsets are wrong for {after.area + prefix}; "
            f"expect lower accuracy than at {trained} pixels"
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
