"""Pixel values to what a network was trained on: the only place where mean and std are applied.

In an exported model they are folded into the graph instead.
"""

import torch
from torch import Tensor

from models.preprocess import Preprocessing


def normalize(values: Tensor, rule: Preprocessing) -> Tensor:
    """RGB values in 0..1, [B, 3, S, S], to network input of the same shape."""
    mean, std = (
        torch.tensor(channels, device=values.device)[:, None, None]
        for channels in (rule.mean, rule.std)
    )
    return (values - mean) / std
