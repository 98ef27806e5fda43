"""Hugging Face's CLIP and SigLIP: classifiers on their vision towers, and towers without one.

CLIP's classifier sees the mean of the patches without a norm; SigLIP's, which has no class token,
the mean of all tokens behind the last norm. A tower whose classifier comes from elsewhere
(models/formats/heads.py) is pooled as it was trained: CLIP's by its class token and a projection,
SigLIP's by attention.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor

from models.formats.geometry import as_size
from models.formats.heads import PROJECTION
from models.formats.hugging_face import activation, labels, scores
from models.formats.processor import preprocessing
from models.formats.source import UNSCALED, CheckpointError, File, Source, join
from models.preprocess import CLIP

NAME = "Hugging Face CLIP and SigLIP"

_OUTER = {
    "embeddings.class_embedding": "cls_token",
    "embeddings.position_embedding.weight": "pos_embed",
    "embeddings.patch_embedding": "patch_embed.proj",
    "pre_layrnorm": "norm_pre",
    "post_layernorm": "norm",
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_weight": "attn_pool.in_proj_weight",
    "head.attention.in_proj_bias": "attn_pool.in_proj_bias",
    "head.attention.out_proj": "attn_pool.proj",
    "head.layernorm": "attn_pool.norm",
    "head.mlp.fc1": "attn_pool.mlp.fc1",
    "head.mlp.fc2": "attn_pool.mlp.fc2",
}
_BLOCK = {
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.out_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
# The other tower, and what only training uses.
_TEXT = ("text_model.", "text_projection.", "logit_scale", "logit_bias")


def recognises(keys: set[str]) -> bool:
    return any(key.startswith("vision_model.") for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with the folder's JSON. Raises `CheckpointError`."""
    classifier = "classifier.weight" in file.tensors
    if not classifier and not file.gets_head:
        raise CheckpointError(
            "the tower has no classifier: pass --head FILE, or save a CLIPForImageClassification "
            "or a SiglipForImageClassification"
        )
    given = {key: value for key, value in file.tensors.items() if not key.startswith(_TEXT)}
    clip = "vision_model.embeddings.class_embedding" in given
    unused = "vision_model.post_layernorm." if clip else "vision_model.head."
    if classifier:
        given = {key: value for key, value in given.items() if not key.startswith(unused)}
    named = {key: _renamed(key) for key in given}
    tensors = {mine: given[key] for key, mine in named.items()}
    for index in {key.split(".")[1] for key in tensors if key.startswith("blocks.")}:
        for leaf in ("weight", "bias"):
            attention = f"blocks.{index}.attn"
            parts = {k: tensors.pop(k, None) for k in (f"{attention}.{x}.{leaf}" for x in "qkv")}
            theirs = {_original(key, named): part for key, part in parts.items()}
            tensors[f"{attention}.qkv.{leaf}"] = join(theirs, dim=0)
    _reshape(tensors, clip)
    vision: Mapping[str, Any] = file.config.get("vision_config") or file.config
    pooled = {"pool": "mean_patches", "last_norm": not clip} if classifier else {}
    return Source(
        "Hugging Face CLIP" if clip else "Hugging Face SigLIP",
        tensors,
        partial(_original, named=named),
        stated_size=as_size(vision.get("image_size", 224 if file.config else None)),
        class_token=clip,
        inferred=pooled,
        conventions=_conventions(clip),
        facts=_architecture(vision, clip)
        | scores(file.config)
        | preprocessing(file.processor, crops=clip),
        antialias=False,
        labels=file.labels or labels(file.config),
        notes=list(file.notes),
        advice="config.json beside the weights has the number of heads: pass the folder",
    )


def _reshape(tensors: dict[str, Tensor], clip: bool) -> None:
    """Tokens, positions and layers whose shapes differ from the project's."""
    if "pos_embed" in tensors:
        tensors["pos_embed"] = tensors["pos_embed"].unsqueeze(0)
    if clip:
        tensors["cls_token"] = tensors["cls_token"].reshape(1, 1, -1)
        _add_patch_bias(tensors)
    for leaf in ("weight", "bias"):
        if (both := tensors.pop(f"attn_pool.in_proj_{leaf}", None)) is not None:
            width = len(both) // 3
            tensors[f"attn_pool.q.{leaf}"], tensors[f"attn_pool.kv.{leaf}"] = (
                both[:width],
                both[width:],
            )


def _add_patch_bias(tensors: dict[str, Tensor]) -> None:
    if (weight := tensors.get("patch_embed.proj.weight")) is not None:
        tensors["patch_embed.proj.bias"] = weight.new_zeros(len(weight))


def _architecture(vision: Mapping[str, Any], clip: bool) -> dict[str, Any]:
    """What vision_config says; transformers leaves out what is as in the first published model."""
    if not vision:
        return {}
    return {
        "num_heads": vision.get("num_attention_heads", 12),
        "layer_norm_eps": vision.get("layer_norm_eps", 1e-5 if clip else 1e-6),
        "activation": activation(
            vision.get("hidden_act", "quick_gelu" if clip else "gelu_pytorch_tanh")
        ),
    }


def _conventions(clip: bool) -> dict[str, Any]:
    own = {"layer_norm_eps": 1e-5, "activation": "quick_gelu", "resize_mode": "shorter_side"}
    other = {"layer_norm_eps": 1e-6, "activation": "gelu_tanh", "resize_mode": "both_sides"}
    resizing = {"crop_pct": 1.0, "interpolation": "bicubic"}
    return UNSCALED | (own | CLIP if clip else other) | resizing


def _renamed(key: str) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    if key.startswith("classifier."):
        return key.replace("classifier", "head")
    if key == "visual_projection.weight":
        return PROJECTION
    rest = key.removeprefix("vision_model.")
    place, names = "", _OUTER
    if found := _LAYER.fullmatch(rest):
        place, rest, names = f"blocks.{found[1]}.", found[2], _BLOCK
    if rest in names:
        return place + names[rest]
    module, _, leaf = rest.rpartition(".")
    return f"{place}{names[module]}.{leaf}" if module in names else key


def _original(ours: str, named: Mapping[str, str]) -> str:
    """The name in the file; that of a missing tensor is derived from another block."""
    module, _, leaf = ours.rpartition(".")
    if module.endswith(".attn.qkv"):
        parts = (f"{module.removesuffix('qkv')}{part}.{leaf}" for part in "qkv")
        return ", ".join(_original(part, named) for part in parts)
    for theirs, mine in named.items():
        if mine == ours:
            return theirs
    if block := re.fullmatch(r"blocks\.(\d+)(\..+)", ours):
        alike = (theirs for theirs, mine in named.items() if mine.endswith(block[2]))
        return re.sub(r"layers\.\d+", f"layers.{block[1]}", next(alike, ours))
    for theirs, mine in {**_OUTER, "classifier": "head"}.items():
        if mine in (ours, module):
            prefix = "" if theirs == "classifier" else "vision_model."
            return f"{prefix}{theirs}.{leaf}" if mine == module else f"{prefix}{theirs}"
    return ours
