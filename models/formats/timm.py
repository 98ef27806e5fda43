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

from models.config import ARCHITECTURES
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

NAME = "timm ViT"

_POOLS = {"token": "cls", "avg": "mean_patches"}
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # by width, in timm's own architectures
_STATED = ("mean", "std", "crop_pct", "interpolation")
_UNSUPPORTED = {
    "attn.q_norm": "a norm over queries and keys",
    "attn.norm.": "a norm between attention and its projection",
    "mlp.norm.": "a norm inside the MLP",
    "mlp.w12": "a gated MLP",
    "mlp.fc1_g": "a gated MLP",
    "mlp.fc1_x": "a gated MLP",
    "attn.q_bias": "BEiT's attention",
    "relative_position": "a relative position bias",
    "patch_embed.backbone": "a convolutional network in front of a ViT",
    "patch_embed.norm.": "a norm behind the patch convolution",
    "pre_logits": "a hidden layer before the head",
    "attn_pool": "attention pooling",
    "blocks.0.0.": "a model of several stages",
    ".attns.": "blocks with parallel branches",
    "blocks.0.norm3": "a third norm in a block",
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
    conventions: dict[str, Any] = dict(UNSCALED)
    inferred: dict[str, Any] = {}
    if "cls_token" not in tensors:
        raise CheckpointError("a ViT without a class token (cls_token) is not supported")
    if "fc_norm.weight" in tensors:
        if "norm.weight" in tensors:
            raise CheckpointError(
                "norms before and after pooling (norm, fc_norm) are not supported"
            )
        for leaf in ("weight", "bias"):
            tensors[f"norm.{leaf}"] = tensors.pop(f"fc_norm.{leaf}")
        inferred = {"pool": "mean_patches", "norm_after_pool": True}
        notes.append("the head sees the mean of the patches (fc_norm)")
    _join_prefix(tensors, notes)
    if "head_dist.weight" in tensors:
        dist = ("head_dist.weight", "head_dist.bias")
        tensors |= join_heads(tensors, ("head.weight", "head.bias"), dist)
        notes.append("logits are the mean of head and head_dist")
    _fold_layer_scale(tensors, notes)
    if "patch_embed.proj.weight" in tensors and "patch_embed.proj.bias" not in tensors:
        tensors["patch_embed.proj.bias"] = torch.zeros(len(tensors["patch_embed.proj.weight"]))
    arch = _arch(file)
    facts = dict(file.facts) | _stated(file.config)
    if not _is_paper_baseline(tensors):
        conventions |= IMAGENET
        if arch not in ARCHITECTURES and not facts.keys() & IMAGENET.keys():
            notes.append("mean and std of ImageNet assumed, as in DeiT; timm's vit_ models use 0.5")
    return Source(
        "DeiT" if file.wrapper == "model" else NAME,
        tensors,
        arch=arch,
        inferred=inferred,
        conventions=conventions,
        facts=facts,
        labels=file.labels or _labels(file.config),
        imagenet=True,
        notes=notes,
        advice=_advice(tensors),
    )


def _join_prefix(tensors: dict[str, Tensor], notes: list[str]) -> None:
    """Append distillation token and registers to the class token, with positions for all."""
    prefix: dict[str, Tensor | None] = {"cls_token": tensors["cls_token"]}
    for key, what in {"dist_token": "distillation token", "reg_token": "registers"}.items():
        if key in tensors:
            prefix[key] = tensors.pop(key)
            notes.append(f"{what} ({key}) after the class token")
    tensors["cls_token"] = join(prefix, dim=1)
    positions = tensors.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return
    if math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]:
        none = torch.zeros_like(tensors["cls_token"])
        tensors["pos_embed"] = join({"cls_token": none, "pos_embed": positions}, dim=1)
        notes.append("positions are of patches only; zeros added for the tokens before them")


def _fold_layer_scale(tensors: dict[str, Tensor], notes: list[str]) -> None:
    """In x += gamma * f(x), scale the rows of f's last layer. Names as in timm or DeiT III."""
    layers = {"ls1.gamma": "attn.proj", "gamma_1": "attn.proj"}
    layers |= {"ls2.gamma": "mlp.fc2", "gamma_2": "mlp.fc2"}
    found = False
    for key in list(tensors):
        ending = next((end for end in layers if key.endswith(f".{end}")), None)
        if ending is None:
            continue
        layer = key.removesuffix(ending) + layers[ending]
        gamma = tensors.pop(key).double()
        for leaf in ("weight", "bias"):
            if (tensor := tensors.get(f"{layer}.{leaf}")) is not None:
                if gamma.shape != tensor.shape[:1]:
                    raise CheckpointError(f"{key} {list(gamma.shape)} does not fit {layer}.{leaf}")
                scale = gamma[:, None] if leaf == "weight" else gamma
                tensors[f"{layer}.{leaf}"] = (tensor.double() * scale).float()
        found = True
    if found:
        notes.append("LayerScale folded into attn.proj and mlp.fc2")


def _arch(file: File) -> str | None:
    """The name without its tag, `.augreg_in21k` in vit_base_patch16_224.augreg_in21k."""
    name = file.config.get("architecture") or file.arch
    return name.partition(".")[0] if isinstance(name, str) else None


def _stated(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a timm config.json says about preprocessing and pooling."""
    pretrained = config.get("pretrained_cfg") or config
    facts = {key: pretrained[key] for key in _STATED if pretrained.get(key)}
    if pretrained.get("crop_mode") == "squash":
        facts["resize_mode"] = "both_sides"
    if config.get("global_pool") in _POOLS:
        facts["pool"] = _POOLS[config["global_pool"]]
    return facts


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    found = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    return tuple(map(str, found)) if isinstance(found, list) else None


def _is_paper_baseline(tensors: Mapping[str, Tensor]) -> bool:
    """Whether this is the DeepViT paper's plain ViT, whose MLP ratio is 3; all others have 4."""
    fc1, width = tensors.get("blocks.0.mlp.fc1.weight"), tensors["cls_token"].shape[-1]
    return fc1 is not None and len(fc1) == 3 * width


def _advice(tensors: Mapping[str, Tensor]) -> str | None:
    width = tensors["cls_token"].shape[-1]
    if _is_paper_baseline(tensors) or width not in _HEADS:
        return None
    return f"timm's own networks of width {width} have {_HEADS[width]} heads"
