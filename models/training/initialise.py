"""Weights before training: truncated normals, as ViTs are begun with."""

import torch
from torch import nn

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
            nn.init.trunc_normal_(token, std=_STD)
    return network
