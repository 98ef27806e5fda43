"""The forward pass as training runs it: without passes over maps that nobody looks at.

Parameters, running statistics and gradients are those of `DeepViT.forward` in training mode.
Shapes: B images, N tokens, C width, H heads of D channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepvit import Attention, Block, DeepViT
from models.training.draws import Draws


def forward(
    network: DeepViT, images: Tensor, drop_path: float = 0.0, draws: Draws | None = None
) -> Tensor:
    """Normalised images [B, 3, S, S] to logits [B, classes].

    Stochastic depth skips what a block adds with a probability that rises from 0 in the first
    block to `drop_path` in the last, for each image on its own.
    """
    config = network.config
    x = network.embed(images)
    shared: Tensor | None = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        kept = 1 - drop_path * index / max(1, config.depth - 1)
        donates = index == config.attention_donor
        x, softmax = _run(block, x, shared, donates, kept, draws)
        if donates:
            shared = softmax
    return network.classify(x)


def _run(
    block: Block,
    x: Tensor,
    shared: Tensor | None,
    donates: bool,
    kept: float,
    draws: Draws | None,
) -> tuple[Tensor, Tensor | None]:
    """One block: its output [B, N, C], and its softmax map if it has to make one."""
    a = block.scale_adjustment
    attended, softmax = attend(block.attn, block.norm1(x * a), shared, donates)
    x = x + _dropped(attended, kept, draws) / a
    x = x + _dropped(block.mlp(block.norm2(x * a)), kept, draws) / a
    return x, softmax


def attend(
    attention: Attention, x: Tensor, shared: Tensor | None = None, donates: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What `Attention.forward` adds to the tokens, [B, N, C]; its softmax map where it is made."""
    q, k, v = attention.split(x)  # [B, H, N, D] each
    unseen = attention.reatten_matrix is None and shared is None and not donates
    if unseen and x.is_cuda:  # on a CPU, the backward pass of fused attention is many times slower
        out = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
        return attention.merge(out), None
    softmax = _softmax(q, k, attention.scale) if shared is None else shared
    if attention.training and isinstance(attention.var_norm, nn.BatchNorm2d):
        out = _mixed_and_normed(attention, softmax, v)
    else:
        out = attention.mix(softmax) @ v
    return attention.merge(out), softmax


def _softmax(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """The map before the mixing, [B, H, N, N], at least in float32."""
    logits = q @ k.transpose(-2, -1) * scale
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _mixed_and_normed(attention: Attention, softmax: Tensor, v: Tensor) -> Tensor:
    """Norm(Theta A) V with BatchNorm's batch statistics taken from the heads' covariance.

    A row of a softmax map sums to 1, so that the mean of each head's map is 1 / N whatever the
    input. With D = A - 1 / N, head h of the mixed map is Theta_h D up to a constant, which the norm
    removes; its variance is Theta_h S Theta_h^T, where S, H x H, is the mean of D D^T. What is left
    is one product with Theta scaled row by row. The bias of the norm adds the same to each entry of
    a map: it multiplies the sum of V. Nearly uniform maps lose nothing, because D and not A is
    rounded.
    """
    mixing, norm = attention.reatten_matrix, attention.var_norm
    assert mixing is not None
    assert mixing.bias is not None
    assert isinstance(norm, nn.BatchNorm2d)
    B, H, N, _ = softmax.shape
    apart = (softmax - 1 / N).to(v.dtype).flatten(2)  # [B, H, N * N]
    theta = mixing.weight.flatten(1)  # [H, H]
    covariance = (apart @ apart.transpose(1, 2)).to(theta.dtype).sum(dim=0) / (B * N * N)
    variance = ((theta @ covariance) * theta).sum(dim=1)  # [H]
    _update(norm, theta.sum(dim=1) / N + mixing.bias, variance, B * N * N)
    gain = norm.weight * (variance + norm.eps).rsqrt() * attention.reatten_scale
    shift = norm.bias * attention.reatten_scale
    mixed = ((gain[:, None] * theta).to(v.dtype) @ apart).reshape(B, H, N, N)
    return mixed @ v + shift[:, None, None].to(v.dtype) * v.sum(dim=2, keepdim=True)


@torch.no_grad()
def _update(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics as BatchNorm keeps them, with the unbiased variance of `count` values."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    unbiased = variance * count / (count - 1)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)


def _dropped(x: Tensor, kept: float, draws: Draws | None) -> Tensor:
    """Zero for some images, [B, N, C]; the others are scaled up, so that the mean stays."""
    if draws is None or kept == 1:
        return x
    factor = (draws.uniform(len(x)) < kept) / kept
    return x * factor[:, None, None].to(x.dtype)
