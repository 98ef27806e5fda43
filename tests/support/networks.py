"""Networks with random weights in which no parameter is trivial, for tests of exactness."""

from pathlib import Path

import torch
from torch import nn

from models import checkpoint
from models.checkpoint import Checkpoint
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import DeepViT
from models.preprocess import Preprocessing

# Of one block, which mixes its heads: what costs an export least.
LONE = ARCHITECTURES["deepvit_test"].config.model_copy(update={"depth": 1, "reatten_blocks": (0,)})


def save_random(config: DeepViTConfig, path: Path) -> Path:
    """Write a checkpoint of random weights, a safetensors file that needs no flags."""
    weights, rule = random_network(config).state_dict(), Preprocessing(size=config.img_size)
    checkpoint.save(path, Checkpoint(config, weights, rule, sha256=""))
    return path


def settled(network: DeepViT) -> DeepViT:
    """Set the running statistics of the norms over heads to those of the maps, as training does.

    With random statistics the offsets are many times larger than the differences between
    entries, which rounding then hides.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
        norm.train()
    size = network.config.img_size
    network(torch.rand((4, 3, *size), generator=torch.Generator().manual_seed(0)) * 2 - 1)
    return network.eval()


def random_network(config: DeepViTConfig, seed: int = 0) -> DeepViT:
    """A network in evaluation mode whose norms have random gains, biases and statistics."""
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
    if network.cls_token is not None:
        network.cls_token.uniform_(-1, 1)
    network.pos_embed.uniform_(-1, 1)
    return network
