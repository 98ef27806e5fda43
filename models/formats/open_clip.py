"""The vision tower of open_clip's CLIP, whose classifier comes from elsewhere (heads.py)."""

import re
from functools import partial

from models.formats.geometry import as_size
from models.formats.heads import PROJECTION
from models.formats.source import UNSCALED, CheckpointError, File, Source, original_name
from models.preprocess import CLIP

NAME = "open_clip"

_LAYER = re.compile(r"visual\.transformer\.resblocks\.(\d+)\.(.+)")
_OUTER = {
    "visual.class_embedding": "cls_token",
    "visual.positional_embedding": "pos_embed",
    "visual.conv1.weight": "patch_embed.proj.weight",
    "visual.ln_pre.weight": "norm_pre.weight",
    "visual.ln_pre.bias": "norm_pre.bias",
    "visual.ln_post.weight": "norm.weight",
    "visual.ln_post.bias": "norm.bias",
    "visual.proj": PROJECTION,
}
_BLOCK = {
    "ln_1": "norm1",
    "ln_2": "norm2",
    "attn.in_proj_": "attn.qkv",
    "attn.out_proj": "attn.proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def recognises(keys: set[str]) -> bool:
    return any(_LAYER.fullmatch(key) for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with open_clip's conventions. Raises `CheckpointError`."""
    if not file.gets_head:
        raise CheckpointError("the tower has no classifier: pass --head FILE")
    given = {key: value for key, value in file.tensors.items() if key.startswith("visual.")}
    named = {key: _renamed(key) for key in given}
    tensors = {mine: given[key] for key, mine in named.items()}
    for key in ("cls_token", "pos_embed"):
        if key in tensors:
            tensors[key] = tensors[key].reshape(1, -1, tensors[key].shape[-1])
    if PROJECTION in tensors:
        tensors[PROJECTION] = tensors[PROJECTION].T  # x @ proj there
    if (weight := tensors.get("patch_embed.proj.weight")) is not None:
        tensors["patch_embed.proj.bias"] = weight.new_zeros(len(weight))
    return Source(
        NAME,
        tensors,
        partial(original_name, named=_OUTER | named, layer="resblocks."),
        arch=file.name,
        stated_size=as_size(file.facts.get("force_image_size")),
        conventions=UNSCALED | CLIP | {"layer_norm_eps": 1e-5, "crop_pct": 1.0},
        notes=[
            *file.notes,
            "warning: GELU unless --activation says otherwise; OpenAI's own weights, and all whose "
            "name ends in quickgelu, were trained with quick_gelu",
        ],
        advice="heads are 64 wide in ViT-B and ViT-L, 80 in ViT-H, 88 in ViT-g",
    )


def _renamed(key: str) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    if key in _OUTER:
        return _OUTER[key]
    if found := _LAYER.fullmatch(key):
        for theirs, ours in _BLOCK.items():
            if found[2].startswith(theirs):
                leaf = found[2].removeprefix(theirs).lstrip(".")
                return f"blocks.{found[1]}.{ours}.{leaf}"
    return key
