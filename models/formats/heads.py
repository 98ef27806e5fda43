"""A classifier in a file of its own, for a network that was trained without one.

A linear head has `weight` [classes, D] and perhaps `bias` [classes]. For zero-shot classification
`text_embeddings` [classes, D] are those of a caption for each class; `logit_scale` is a logarithm,
as CLIP trains it, and `logit_bias` is SigLIP's, which gives each class a probability of its own.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from models.formats.source import CheckpointError, File, Source

PROJECTION = "projection.weight"  # [D, C], which a tower has for text and pictures to meet
_SCALE = math.log(100)  # the most that CLIP's training allows, and where it ends


def attach(source: Source, head: File) -> None:
    """Give the network this classifier. Raises `CheckpointError` if they do not fit."""
    tensors, given = source.tensors, head.tensors
    if "head.weight" in tensors:
        raise CheckpointError("--head is for networks without a classifier, and this one has one")
    if "pos_embed" not in tensors:
        raise CheckpointError(f"the state dict is incomplete: no {source.original('pos_embed')}")
    projection = tensors.pop(PROJECTION, None)
    if "text_embeddings" in given:
        tensors |= _zero_shot(given, projection, tensors["pos_embed"].shape[-1])
        source.notes.append("zero-shot classification by the text embeddings of --head")
        if "logit_bias" in given:
            source.facts = {**source.facts, "scores": "sigmoid"}
        return
    weight = given.get("weight", given.get("head.weight"))
    bias = given.get("bias", given.get("head.bias"))
    if weight is None or weight.ndim != 2:
        raise CheckpointError("--head holds neither text_embeddings nor weight [classes, D]")
    if projection is not None and weight.shape[1] == len(projection):
        weight = (weight.double() @ projection.double()).float()
        source.notes.append("the linear head of --head sees projected features")
    tensors["head.weight"] = weight
    tensors["head.bias"] = torch.zeros(len(weight)) if bias is None else bias


def _zero_shot(
    given: dict[str, Tensor], projection: Tensor | None, width: int
) -> dict[str, Tensor]:
    """logits = exp(scale) cos(features, text) + bias."""
    features = torch.eye(width) if projection is None else projection
    text = given["text_embeddings"]
    if text.ndim != 2 or text.shape[1] != len(features):
        raise CheckpointError(
            f"text_embeddings {list(text.shape)} of --head do not fit features of {len(features)}"
        )
    scale = given.get("logit_scale", torch.tensor(_SCALE)).double().exp()
    bias = given.get("logit_bias", torch.tensor(0.0)).double()
    return {
        "features.weight": features,
        "head.weight": (scale * F.normalize(text.double(), dim=-1)).float(),
        "head.bias": bias.reshape(-1)[:1].expand(len(text)).float().clone(),
    }
