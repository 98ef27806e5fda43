"""torchvision's VisionTransformer, whose reference training script is among its examples."""

import re
from functools import partial

from models.formats.geometry import as_size
from models.formats.source import UNSCALED, CheckpointError, File, Source, original_name
from models.preprocess import IMAGENET

NAME = "torchvision ViT"

_LAYER = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
_OUTER = {
    "class_token": "cls_token",
    "encoder.pos_embedding": "pos_embed",
    "conv_proj.weight": "patch_embed.proj.weight",
    "conv_proj.bias": "patch_embed.proj.bias",
    "encoder.ln.weight": "norm.weight",
    "encoder.ln.bias": "norm.bias",
    "heads.head.weight": "head.weight",
    "heads.head.bias": "head.bias",
}
_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "self_attention.out_proj": "attn.proj",
    "mlp.linear_1": "mlp.fc1",  # until version 0.12
    "mlp.linear_2": "mlp.fc2",
    "mlp.0": "mlp.fc1",
    "mlp.3": "mlp.fc2",
}
_HEADS = {768: 12, 1024: 16, 1280: 16}  # by width, in all of torchvision's own networks
_NAMES = re.compile(r"vit_[blh]_\d+")


def recognises(keys: set[str]) -> bool:
    return any(_LAYER.fullmatch(key) for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with torchvision's conventions. Raises `CheckpointError`."""
    if "heads.pre_logits.weight" in file.tensors:
        raise CheckpointError("a hidden layer before the head is not supported (heads.pre_logits)")
    if "conv_proj.weight" not in file.tensors:
        raise CheckpointError("a convolutional stem of torchvision is not supported (conv_proj)")
    named = {key: _renamed(key) for key in file.tensors}
    tensors = {named[key]: value for key, value in file.tensors.items()}
    own = file.arch is None or _NAMES.fullmatch(file.arch) is not None
    width = tensors["pos_embed"].shape[-1] if "pos_embed" in tensors else 0
    notes = [
        *file.notes,
        "pixels as torchvision's own weights take them: 256 for a crop of 224, bilinear",
    ]
    heads = {"num_heads": _HEADS[width]} if own and width in _HEADS else {}
    if heads:
        notes.append(f"{heads['num_heads']} heads, as in torchvision's networks of width {width}")
    return Source(
        NAME,
        tensors,
        partial(original_name, named=_OUTER | named, layer="encoder_layer_"),
        arch=None if own else file.arch,
        stated_size=as_size(file.facts.get("val_crop_size")),
        conventions=UNSCALED
        | IMAGENET
        | heads
        | {"layer_norm_eps": 1e-6, "crop_pct": 224 / 256, "interpolation": "bilinear"},
        facts={},
        antialias=False,
        labels=file.labels,
        imagenet=True,
        notes=notes,
        advice="in torchvision's own networks a head is 64 or 80 wide",
    )


def _renamed(key: str) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    if key in _OUTER:
        return _OUTER[key]
    if found := _LAYER.fullmatch(key):
        place, rest = f"blocks.{found[1]}.", found[2]
        if rest in ("self_attention.in_proj_weight", "self_attention.in_proj_bias"):
            return f"{place}attn.qkv.{rest.rpartition('_')[2]}"
        module, _, leaf = rest.rpartition(".")
        if module in _BLOCK:
            return f"{place}{_BLOCK[module]}.{leaf}"
    return key
