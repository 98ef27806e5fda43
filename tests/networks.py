"""Small networks with weights that leave nothing trivial, for tests of exactness."""

import torch
from torch import nn

from models.config import DeepViTConfig
from models.deepvit import DeepViT


def random_network(config: DeepViTConfig, seed: int = 0) -> DeepViT:
    """In evaluation mode; norms have gains, shifts and statistics of their own."""
    torch.manual_seed(seed)
    network = DeepViT(config).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.3, 0.3)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.2, 1.5)
        if isinstance(module, nn.Linear):
            module.weight.mul_(2)
    network.cls_token.uniform_(-1, 1)
    network.pos_embed.uniform_(-1, 1)
    return network
