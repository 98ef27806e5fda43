"""timm's ViT and DeiT, distilled or not, also as Meta published DeiT.

The names of tensors are the project's own. What the network does not have is folded into other
tensors without changing the result: LayerScale into the layers that it scales; biases and positions
that are absent become zeros.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.formats.geometry import as_size
from models.formats.layer_scale import fold_layer_scale
from models.formats.source import (
    UNSCALED,
    CheckpointError,
    File,
    Source,
    join,
    join_heads,
    refuse,
)
from models.preprocess import IMAGENET
from models.size import Size

NAME = "timm ViT"

_POOLS = {"token": "cls", "avg": "mean_patches", "map": "attention"}
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width, in timm's own architectures
_STATED = ("mean", "std", "crop_pct", "interpolation")
_OLD_SMALL = "vit_small_patch16_224"
_UNNAMED = (
    "the file does not name its architecture: computed as a plain ViT with GELU",
    "mean and std of ImageNet, as in DeiT, unless stated otherwise; most vit_ models use 0.5",
)
_UNSUPPORTED = {
    "attn.q_norm": "a norm over queries and keys",
    "attn.norm.": "a norm between attention and its projection",
    "mlp.norm.": "a norm inside the MLP",
    "mlp.w1": "a gated MLP",
    "mlp.w12": "a gated MLP",
    "mlp.fc1_g": "a gated MLP",
    "mlp.fc1_x": "a gated MLP",
    "relative_position": "a relative position bias",
    "rel_pos": "a relative position bias",
    "rope.": "rotary position embeddings",
    "patch_embed.backbone": "a convolutional network in front of a ViT",
    "patch_embed.norm.": "a norm behind the patch convolution",
    "pre_logits": "a hidden layer before the head",
    "blocks_token_only": "CaiT's class attention",
    "gating_param": "ConViT's gated positional attention",
    "attn.proj_l": "talking heads",
    "depth_sep_conv": "Refiner's convolutions over attention maps",
    "conv_pro.": "Refiner's convolutions over attention maps",
    "cls_attn_blocks": "XCiT's class attention",
    "blocks.0.0.": "a model of several stages",
    ".attns.": "blocks with parallel branches",
    "blocks.0.norm3": "a third norm in a block",
    "blocks.0.norm.": "attention and MLP side by side",
}


def recognises(keys: set[str]) -> bool:
    """Blocks under timm's names, and no part of DeepViT."""
    deepvit = ("reatten_matrix", "patch_embed.conv1", "patch_embed.norm1.", "attn.var_norm.")
    return any(key.startswith("blocks.") for key in keys) and not any(
        mark in key for key in keys for mark in deepvit
    )


def convert(file: File) -> Source:
    """To the project's names, with timm's conventions. Raises `CheckpointError`."""
    refuse(file.tensors, _UNSUPPORTED)
    tensors, notes = dict(file.tensors), list(file.notes)
    if "pos_embed" not in tensors:
        raise CheckpointError(
            "not supported: a network without learned positions (pos_embed), as those with rotary "
            "ones, DINOv3 and EVA-02"
        )
    size = _stated_size(file)
    has_class_token = "cls_token" in tensors
    inferred = _move_fc_norm(tensors, notes)
    _join_prefix(tensors, size, notes)
    _join_head_dist(tensors, notes)
    fold_layer_scale(tensors, notes)
    _join_attention_bias(tensors)
    if "patch_embed.proj.weight" in tensors and "patch_embed.proj.bias" not in tensors:
        tensors["patch_embed.proj.bias"] = torch.zeros(len(tensors["patch_embed.proj.weight"]))
    arch = file.name
    conventions: dict[str, Any] = dict(UNSCALED)
    if not has_class_token:
        conventions["pool"] = "mean_patches"
    if arch == _OLD_SMALL and _is_old_small(tensors):
        arch, old = None, arch
        conventions |= {"num_heads": 8, "layer_norm_eps": 1e-5} | IMAGENET
        notes.append(f"{old} as timm had it before 0.4.6: 768 wide, 8 heads")
    elif not _is_paper_baseline(tensors):
        conventions |= IMAGENET
        if arch is None:
            notes += _UNNAMED
    deit = _is_deit(file)
    facts = ({"crop_pct": 224 / 256} if deit else {}) | dict(file.facts)
    return Source(
        "DeiT" if deit else NAME,
        tensors,
        arch=arch,
        stated_size=size,
        class_token=has_class_token,
        inferred=inferred,
        conventions=conventions,
        facts=facts | _evaluation_crop(file) | _stated(file.config),
        labels=file.labels or _labels(file.config),
        imagenet=True,
        notes=notes,
        advice=_advice(tensors),
    )


def _is_old_small(tensors: Mapping[str, Tensor]) -> bool:
    """Whether this is what timm called vit_small_patch16_224 until version 0.4.5."""
    width = tensors["pos_embed"].shape[-1]
    return width == 768 and _is_paper_baseline(tensors)


def _is_deit(file: File) -> bool:
    """Whether DeiT's training script wrote the file, or Meta, which published such files bare."""
    nested = file.keys[:1] in (["model"], ["model_ema"])
    return nested and (not file.facts or "input_size" in file.facts)


def _move_fc_norm(tensors: dict[str, Tensor], notes: list[str]) -> dict[str, Any]:
    """Give the norm after pooling its place. What that determines."""
    if "fc_norm.weight" not in tensors:
        return {}
    if "norm.weight" in tensors:
        raise CheckpointError("not supported: norms before and after pooling (norm, fc_norm)")
    for leaf in ("weight", "bias"):
        if f"fc_norm.{leaf}" in tensors:
            tensors[f"norm.{leaf}"] = tensors.pop(f"fc_norm.{leaf}")
    notes.append("the head sees the mean of the patches (fc_norm)")
    return {"pool": "mean_patches", "norm_after_pool": True}


def _join_head_dist(tensors: dict[str, Tensor], notes: list[str]) -> None:
    if "head_dist.weight" in tensors:
        dist = ("head_dist.weight", "head_dist.bias")
        tensors |= join_heads(tensors, ("head.weight", "head.bias"), dist)
        notes.append("logits are the mean of head and head_dist")


def _stated_size(file: File) -> Size | None:
    """The input size in pixels that config.json or the training arguments state."""
    config, arguments = file.config, file.facts
    pretrained = config.get("pretrained_cfg") or config
    said = (
        (config.get("model_args") or {}).get("img_size"),
        pretrained.get("input_size"),
        arguments.get("img_size"),
        arguments.get("input_size"),
    )
    return next((size for size in map(as_size, said) if size is not None), None)


def _evaluation_crop(file: File) -> dict[str, Any]:
    """DeiT's training script states the share of the evaluation crop under a name of its own."""
    ratio = file.facts.get("eval_crop_ratio")
    return {"crop_pct": ratio} if ratio else {}


def _join_prefix(tensors: dict[str, Tensor], size: Size | None, notes: list[str]) -> None:
    """Join class token, distillation token and registers, with positions for all of them."""
    prefix: dict[str, Tensor | None] = {}
    for key, what in {
        "cls_token": "",
        "dist_token": "distillation token",
        "reg_token": "registers",
    }.items():
        if key in tensors:
            prefix[key] = tensors.pop(key)
            if what:
                notes.append(f"{what} ({key}) before the patches")
    if not prefix:
        return
    tokens = tensors["cls_token"] = join(prefix, dim=1)
    positions = tensors["pos_embed"]
    if positions.ndim == 3 and _patches_only(tensors, positions.shape[1], size):
        none = torch.zeros_like(tokens)
        tensors["pos_embed"] = join({"cls_token": none, "pos_embed": positions}, dim=1)
        notes.append("positions are of patches only; zeros added for the tokens before them")


def _patches_only(tensors: Mapping[str, Tensor], positions: int, size: Size | None) -> bool:
    """Whether positions are those of patches, and of no token before them."""
    projection = tensors.get("patch_embed.proj.weight")
    if size is not None and projection is not None and projection.ndim == 4:
        grid = size // Size(*projection.shape[2:])
        if positions in (grid.area, grid.area + tensors["cls_token"].shape[1]):
            return positions == grid.area
    return math.isqrt(positions) ** 2 == positions


def _join_attention_bias(tensors: dict[str, Tensor]) -> None:
    """EVA's attention has biases for queries and values; a bias of keys would change nothing."""
    for key in [key for key in tensors if key.endswith(".attn.q_bias")]:
        attention = key.removesuffix("q_bias")
        q, v = tensors.pop(key), tensors.pop(f"{attention}v_bias", None)
        k = torch.zeros_like(q)
        parts = {key: q, f"{attention}k_bias": k, f"{attention}v_bias": v}
        tensors[f"{attention}qkv.bias"] = join(parts, dim=0)


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a timm config.json says about preprocessing, pooling and the arguments of the model."""
    pretrained = config.get("pretrained_cfg") or config
    facts = {key: pretrained[key] for key in _STATED if pretrained.get(key)}
    if pretrained.get("crop_mode") == "squash":
        facts["resize_mode"] = "both_sides"
    if config.get("global_pool") in _POOLS:
        facts["pool"] = _POOLS[config["global_pool"]]
    arguments = config.get("model_args") or {}
    if "num_heads" in arguments:
        facts["num_heads"] = arguments["num_heads"]
    return facts


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    if not isinstance(found, list) or found[:1] == ["LABEL_0"]:
        return None
    return tuple(map(str, found))


def _is_paper_baseline(tensors: Mapping[str, Tensor]) -> bool:
    """Whether this is the DeepViT paper's plain ViT, whose MLP ratio is 3; all others have 4."""
    fc1, width = tensors.get("blocks.0.mlp.fc1.weight"), tensors["pos_embed"].shape[-1]
    return fc1 is not None and len(fc1) == 3 * width


def _advice(tensors: Mapping[str, Tensor]) -> str | None:
    width = tensors["pos_embed"].shape[-1]
    if _is_paper_baseline(tensors) or width not in _HEADS:
        return None
    return f"timm's own networks of width {width} have {_HEADS[width]} heads"
