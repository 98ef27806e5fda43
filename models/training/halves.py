"""A network whose matrices half precision holds exactly, as trained and as exported."""

import copy

import torch
from torch import nn

from models.deepvit import Block, DeepViT


def halved(network: DeepViT) -> DeepViT:
    """A copy with its matrices rounded to half precision, in float32.

    The gain of each LayerNorm first moves into the linear layer that follows, as the export folds
    it (export/fold.py): products of two halves would be none.
    """
    network = copy.deepcopy(network)
    for block in network.blocks:
        assert isinstance(block, Block)
        _move_gain(block.norm1, block.attn.qkv)
        _move_gain(block.norm2, block.mlp.fc1)
    assert network.norm is not None
    _move_gain(network.norm, network.head)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half())
    return network


@torch.no_grad()
def _move_gain(norm: nn.LayerNorm, linear: nn.Linear) -> None:
    """W (g x + b) + c becomes (W g) x + (W b + c). A layer without c stays as it is."""
    if linear.bias is None:
        return
    times = linear.in_features // norm.weight.numel()  # several normed tokens side by side
    linear.bias.add_(linear.weight @ norm.bias.repeat(times))
    linear.weight.mul_(norm.weight.repeat(times))
    norm.weight.fill_(1)
    norm.bias.fill_(0)
