"""Hugging Face's image classifiers of ViT's kind, as a file or in a folder with their JSON.

ViT, DeiT, ViT-MSN, I-JEPA and DINOv2 with and without registers. Both the names of transformers 4
and those of 5 are read. config.json gives heads, eps and labels, and preprocessor_config.json the
preprocessing.
"""

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

from torch import Tensor

from models.formats.geometry import as_size
from models.formats.layer_scale import fold_layer_scale
from models.formats.processor import crop_of, preprocessing
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

# The first part of the names of tensors, and what the kind of network is called here.
_KINDS = {
    "vit": NAME,
    "deit": "Hugging Face DeiT",
    "ijepa": "Hugging Face I-JEPA",
    "dinov2": "Hugging Face DINOv2",
    "dinov2_with_registers": "Hugging Face DINOv2",
}
_HEADLESS = "embeddings.patch_embeddings."  # a model that was saved without its classifier
_POOLS = {
    "ijepa": {"pool": "mean"},
    "dinov2": {"pool": "cls_mean"},
    "dinov2_with_registers": {"pool": "cls_mean"},
}
_OUTER = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.distillation_token": "distillation_token",
    "embeddings.register_tokens": "registers",
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
_BLOCK_OF_DINOV2 = {key: ours for key, ours in _BLOCK.items() if not key.startswith("layernorm_")}
_BLOCK_OF_DINOV2 |= {
    "norm1": "norm1",
    "norm2": "norm2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}
_LAYER = re.compile(r"(?:encoder\.layer|layers)\.(\d+)\.(.+)")
_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_UNSUPPORTED = {
    "decoder.": "a network for masked images",
    "weights_in": "a gated MLP",
}


def recognises(keys: set[str]) -> bool:
    return any(_kind(key) or key.startswith(_HEADLESS) for key in keys)


def convert(file: File) -> Source:
    """To the project's names, with the folder's JSON. Raises `CheckpointError`."""
    refuse(file.tensors, _UNSUPPORTED)
    kind = next(filter(None, map(_kind, file.tensors)), "vit")
    tensors = {
        _renamed(key): value
        for key, value in file.tensors.items()
        if not key.endswith("embeddings.mask_token")  # of training only
    }
    original = partial(_original, keys=file.tensors.keys())
    notes = list(file.notes)
    if not any(key.startswith("head.") for key in tensors):
        raise CheckpointError(
            "the network has no classifier: save a ViTForImageClassification, not a ViTModel"
        )
    for index in {key.split(".")[1] for key in tensors if key.startswith("blocks.")}:
        _join_qkv(tensors, f"blocks.{index}.attn", original)
    _join_prefix(tensors, notes, original)
    fold_layer_scale(tensors, notes)
    if not file.processor:
        notes.append(
            "no preprocessor_config.json: the default preprocessing of transformers assumed"
        )
    dinov2 = kind.startswith("dinov2")
    return Source(
        _KINDS[kind],
        tensors,
        original,
        stated_size=as_size(file.config.get("image_size")),
        serve_size=crop_of(file.processor) if dinov2 else None,
        class_token=kind != "ijepa",
        inferred=_POOLS.get(kind, {}),
        conventions=_conventions(kind),
        antialias=kind == "dinov2_with_registers",
        facts=_architecture(file.config) | preprocessing(file.processor, crops=_crops(kind)),
        labels=file.labels or labels(file.config),
        notes=notes,
        advice="config.json beside the weights has the number of heads: pass the folder",
    )


def _kind(key: str) -> str | None:
    """The kind of network that has a tensor of this name, if it is one of Hugging Face's."""
    first, _, rest = key.partition(".")
    return first if first in _KINDS and rest else None


def _crops(kind: str) -> bool:
    """Whether the processor of this kind crops the centre unless it says otherwise."""
    return kind == "deit" or kind.startswith("dinov2")


def _conventions(kind: str) -> dict[str, Any]:
    """The defaults of transformers."""
    dinov2 = kind.startswith("dinov2")
    return {
        **UNSCALED,
        **(IMAGENET if _crops(kind) else {}),
        "layer_norm_eps": 1e-6 if dinov2 or kind == "ijepa" else 1e-12,
        "crop_pct": 224 / 256 if _crops(kind) else 1.0,
        "interpolation": "bicubic" if _crops(kind) else "bilinear",
        "resize_mode": "shorter_side" if dinov2 else "both_sides",
    }


def _names_of_block(kind: str | None) -> dict[str, str]:
    return _BLOCK_OF_DINOV2 if (kind or "").startswith("dinov2") else _BLOCK


def _renamed(key: str) -> str:
    """The project's name of a tensor, or its own where the format has no such name."""
    rest = key.removeprefix(f"{_kind(key)}.")
    place, names = "", _OUTER
    if found := _LAYER.fullmatch(rest):
        place, rest, names = f"blocks.{found[1]}.", found[2], _names_of_block(_kind(key))
    if rest in names:
        return place + names[rest]
    module, _, leaf = rest.rpartition(".")
    return f"{place}{names[module]}.{leaf}" if module in names else key


def _original(ours: str, keys: AbstractSet[str]) -> str:
    """The name in a file with these tensors, also of a missing tensor: `_renamed` inverted."""
    kind = next(filter(None, map(_kind, keys)), "vit")
    model = f"{kind}."
    layers = "layers" if any(key.startswith(f"{model}layers.") for key in keys) else "encoder.layer"
    place, names, rest = model, _OUTER, ours
    if found := re.fullmatch(r"blocks\.(\d+)\.(.+)", ours):
        place, names, rest = f"{model}{layers}.{found[1]}.", _names_of_block(kind), found[2]
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
        later = layers == "layers" or any(".attention.o_proj." in key for key in keys)
    theirs = candidates[-1 if later else 0]
    return f"{place}{theirs}.{leaf}" if module else f"{place}{theirs}"


def _join_qkv(tensors: dict[str, Tensor], attention: str, original: Callable[[str], str]) -> None:
    """Join three layers to one; all biases may be absent."""
    for leaf in ("weight", "bias"):
        parts = {key: tensors.pop(key, None) for key in (f"{attention}.{x}.{leaf}" for x in "qkv")}
        if leaf == "weight" or any(part is not None for part in parts.values()):
            named = {original(key): part for key, part in parts.items()}
            tensors[f"{attention}.qkv.{leaf}"] = join(named, dim=0)


def _join_prefix(
    tensors: dict[str, Tensor], notes: list[str], original: Callable[[str], str]
) -> None:
    """Join the class token with a distillation token, or with registers without positions."""
    if "distillation_token" in tensors:
        both = ("cls_token", "distillation_token")
        tokens = {original(key): tensors.pop(key, None) for key in both}
        tensors["cls_token"] = join(tokens, dim=1)
    if any(key.startswith("distillation_head.") for key in tensors):
        dist = ("distillation_head.weight", "distillation_head.bias")
        tensors |= join_heads(tensors, ("head.weight", "head.bias"), dist, original)
        notes.append("logits are the mean of both classifiers")
    if "registers" in tensors and {"cls_token", "pos_embed"} <= tensors.keys():
        registers, positions = tensors.pop("registers"), tensors["pos_embed"]
        tokens = {"cls_token": tensors["cls_token"], original("registers"): registers}
        tensors["cls_token"] = join(tokens, dim=1)
        parts = {"class": positions[:, :1], "none": 0 * registers, "patches": positions[:, 1:]}
        tensors["pos_embed"] = join(dict(parts), dim=1)
        notes.append("registers behind the class token, without positions")


def _architecture(config: Mapping[str, Any]) -> dict[str, Any]:
    """Facts from config.json. Raises `CheckpointError` for what is not supported."""
    fields = {"num_attention_heads": "num_heads", "layer_norm_eps": "layer_norm_eps"}
    facts = {ours: config[theirs] for theirs, ours in fields.items() if theirs in config}
    if "hidden_act" in config:
        facts["activation"] = activation(config["hidden_act"])
    return facts | scores(config)


def activation(name: str) -> str:
    """The activation that transformers calls so. Raises `CheckpointError`."""
    if name not in _ACTIVATIONS:
        raise CheckpointError(
            f"hidden_act {name!r} is not supported, only {', '.join(_ACTIVATIONS)}"
        )
    return _ACTIVATIONS[name]


def scores(config: Mapping[str, Any]) -> dict[str, Any]:
    """How logits become probabilities, as the pipeline of transformers decides it."""
    if config.get("problem_type") == "multi_label_classification":
        return {"scores": "sigmoid"}
    if config.get("problem_type") == "regression":
        raise CheckpointError("problem_type regression is not supported: logits are no scores")
    return {}


def labels(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The names in id2label in order; None if it only numbers the classes."""
    found = config.get("id2label")
    if not isinstance(found, Mapping) or not found:
        return None
    names = tuple(str(found.get(str(index), "")) for index in range(len(found)))
    return names if all(names) and names[0] != "LABEL_0" else None
