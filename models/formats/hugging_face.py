"""Hugging Face's ViTForImageClassification and DeiT, as a file or in a folder with their JSON.

Both the names of transformers 4 and those of 5 are read. config.json gives heads, eps and labels,
and preprocessor_config.json the preprocessing.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from torch import Tensor

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

NAME = "Hugging Face ViT"

_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.distillation_token": "distillation_token",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm": "norm",
    "classifier": "head",
    "cls_classifier": "head",
    "distillation_classifier": "distillation_head",
}
_BLOCK = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "attention.q_proj": "attn.q",  # from here on as transformers 5 names them
    "attention.k_proj": "attn.k",
    "attention.v_proj": "attn.v",
    "attention.o_proj": "attn.proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)")
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_UNSUPPORTED = {
    "embeddings.mask_token": "a network for masked images",
    "decoder.": "a network for masked images",
    "lambda_1": "BEiT or DINOv2",
    "layer_scale": "DINOv2",
}


def recognises(keys: set[str]) -> bool:
    return any(key.startswith(("vit.", "deit.")) for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with the folder's JSON. Raises `CheckpointError`."""
    refuse(file.tensors, _UNSUPPORTED)
    deit = any(key.startswith("deit.") for key in file.tensors)
    tensors = {_renamed(key): value for key, value in file.tensors.items()}
    original = partial(_original, keys=file.tensors.keys())
    notes = list(file.notes)
    if not any(key.startswith("head.") for key in tensors):
        raise CheckpointError(
            "the network has no classifier: save a ViTForImageClassification, not a ViTModel"
        )
    for index in {key.split(".")[1] for key in tensors if key.startswith("blocks.")}:
        _join_qkv(tensors, f"blocks.{index}.attn", original)
    _join_distillation(tensors, notes, original)
    conventions: dict[str, Any] = {
        **UNSCALED,
        "layer_norm_eps": 1e-12,
        "crop_pct": 224 / 256 if deit else 1.0,
        "interpolation": "bicubic" if deit else "bilinear",
        "resize_mode": "both_sides",
    }
    if deit:
        conventions |= IMAGENET
    if not file.processor:
        notes.append(
            "no preprocessor_config.json: the default preprocessing of transformers assumed"
        )
    return Source(
        "Hugging Face DeiT" if deit else NAME,
        tensors,
        original,
        conventions=conventions,
        antialias=False,
        facts=_architecture(file.config) | _preprocessing(file.processor, deit),
        labels=file.labels or _labels(file.config),
        notes=notes,
        advice="config.json beside the weights has the number of heads: pass the folder",
    )


def _renamed(key: str) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    rest = key.removeprefix("vit.").removeprefix("deit.")
    place, names = "", _OUTER
    if found := _LAYER.fullmatch(rest):
        place, rest, names = f"blocks.{found[1]}.", found[2], _BLOCK
    if rest in names:
        return place + names[rest]
    module, _, leaf = rest.rpartition(".")
    return f"{place}{names[module]}.{leaf}" if module in names else key


def _original(ours: str, keys: AbstractSet[str]) -> str:
    """The name in a file with these tensors, also of a missing tensor: `_renamed` inverted."""
    model = "deit." if any(key.startswith("deit.") for key in keys) else "vit."
    layers = "layers" if any(key.startswith(f"{model}layers.") for key in keys) else "encoder.layer"
    place, names, rest = model, _OUTER, ours
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", ours):
        place, names, rest = f"{model}{layers}.{found[1]}.", _BLOCK, found[2]
    module, _, leaf = rest.rpartition(".")
    if module == "attn.qkv":
        parts = (ours.replace(".qkv.", f".{part}.") for part in "qkv")
        return ", ".join(_original(part, keys) for part in parts)
    candidates = [theirs for theirs, mine in names.items() if mine in (rest, module)]
    if not candidates:
        return ours
    if ours.startswith(("head.", "distillation_head.")):
        place, later = "", "cls_classifier.weight" in keys
    else:
        later = layers == "layers"
    theirs = candidates[-1 if later else 0]
    return f"{place}{theirs}.{leaf}" if module else f"{place}{theirs}"


def _join_qkv(tensors: dict[str, Tensor], attention: str, original: Callable[[str], str]) -> None:
    """Join three layers to one; all biases may be absent."""
    for leaf in ("weight", "bias"):
        parts = {key: tensors.pop(key, None) for key in (f"{attention}.{x}.{leaf}" for x in "qkv")}
        if leaf == "weight" or any(part is not None for part in parts.values()):
            named = {original(key): part for key, part in parts.items()}
            tensors[f"{attention}.qkv.{leaf}"] = join(named, dim=0)


def _join_distillation(
    tensors: dict[str, Tensor], notes: list[str], original: Callable[[str], str]
) -> None:
    if "distillation_token" in tensors:
        both = ("cls_token", "distillation_token")
        tokens = {original(key): tensors.pop(key, None) for key in both}
        tensors["cls_token"] = join(tokens, dim=1)
    if any(key.startswith("distillation_head.") for key in tensors):
        dist = ("distillation_head.weight", "distillation_head.bias")
        tensors |= join_heads(tensors, ("head.weight", "head.bias"), dist, original)
        notes.append("logits are the mean of both classifiers")


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from config.json. Raises `CheckpointError` for what is not supported."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise CheckpointError(f"hidden_act {config['hidden_act']!r} is not supported, only gelu")
    fields = {"num_attention_heads": "num_heads", "layer_norm_eps": "layer_norm_eps"}
    return {ours: config[theirs] for theirs, ours in fields.items() if theirs in config}


def _labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in id2label in order; None if it only numbers the classes."""
    found = config.get("id2label")
    if not isinstance(found, Mapping) or not found:
        return None
    labels = tuple(str(found.get(str(index), "")) for index in range(len(found)))
    return labels if all(labels) and labels[0] != "LABEL_0" else None


def _preprocessing(processor: Mapping[str, Any], deit: bool) -> dict[str, Any]:
    """Facts from preprocessor_config.json."""
    if not processor:
        return {}
    facts: dict[str, Any] = {}
    if "resample" in processor:
        if processor["resample"] not in _RESAMPLE:
            raise CheckpointError(f"resample {processor['resample']} is not supported")
        facts["interpolation"] = _RESAMPLE[processor["resample"]]
    bright = 255 * processor.get("rescale_factor", 1 / 255) if _on(processor, "rescale") else 255
    for theirs, ours, none in (("image_mean", "mean", 0.0), ("image_std", "std", 1.0)):
        values = processor.get(theirs, (0.5,) * 3) if _on(processor, "normalize") else (none,) * 3
        facts[ours] = tuple(value / bright for value in values)
    size = _side(processor.get("size"))
    crop = _side(processor.get("crop_size")) if processor.get("do_center_crop", deit) else None
    facts["crop_pct"] = crop / size if crop and size else 1.0
    shorter = isinstance(processor.get("size"), Mapping) and "shortest_edge" in processor["size"]
    facts["resize_mode"] = "shorter_side" if shorter else "both_sides"
    return facts


def _on(processor: Mapping[str, Any], step: str) -> bool:
    return bool(processor.get(f"do_{step}", True))


def _side(size: Any) -> int | None:
    """One number from 224, {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        sides = {size[key] for key in ("height", "width", "shortest_edge") if key in size}
        if len(sides) != 1:
            raise CheckpointError(f"preprocessing to {dict(size)} is not supported, only squares")
        size = sides.pop()
    return int(size) if size else None
