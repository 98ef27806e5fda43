"""Weights before training: truncated normals, as ViTs are begun with, or those of a checkpoint."""

from collections.abc import Sequence

import torch
from torch import nn

from models.checkpoint import Checkpoint
from models.config import DeepViTConfig
from models.deepvit import DeepViT

_STD = 0.02


def initialised(config: DeepViTConfig, seed: int) -> DeepViT:
    """A new network. Its convolutions, Theta among them, begin as PyTorch makes them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DeepViT(config)
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (network.cls_token, network.pos_embed):
            if token is not None:
                nn.init.trunc_normal_(token, std=_STD)
    return network


def take_over(trained: Checkpoint, network: DeepViT, classes: Sequence[str]) -> None:
    """Weights of a checkpoint of the same architecture, the head's where the classes are the same.

    Raises `ValueError`.
    """
    other = trained.config.model_dump() | {"num_classes": network.config.num_classes}
    changed = [key for key, value in network.config.model_dump().items() if other[key] != value]
    if changed:
        raise ValueError(f"the checkpoint is of another architecture: {', '.join(changed)} differ")
    weights = trained.network().state_dict()
    if trained.labels != tuple(classes):
        weights = {key: value for key, value in weights.items() if not key.startswith("head.")}
    network.load_state_dict(weights, strict=False)
