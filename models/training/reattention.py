"""Re-attention's maps while training, without BatchNorm's passes over them.

A row of a softmax map sums to 1, so that the mean of each head's map is 1 / N whatever the input.
With D = A - 1 / N, head h of the mixed map is Theta_h D up to a constant, which the norm removes.
Its variance is Theta_h S Theta_h^T, where S, H x H, is the mean of D D^T over entries. What is left
of mixing and norm (section 4.2) is one product with G, which is Theta scaled row by row.
Shapes: B images, H heads, N tokens.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from models.deepvit import Attention


def mixed_and_normed(attention: Attention, logits: Tensor, v: Tensor) -> Tensor:
    """Norm(Theta softmax(logits)) V with the norm's batch statistics, which it also records.

    Attention logits [B, H, N, N] and values [B, H, N, D] to [B, H, N, D]. The norm's bias adds the
    same to each entry of a map: it multiplies the sum of V.
    """
    mixing, norm = attention.reatten_matrix, attention.var_norm
    assert mixing is not None
    assert mixing.bias is not None
    assert isinstance(norm, nn.BatchNorm2d)
    B, _, N, _ = logits.shape
    theta = mixing.weight.flatten(1)  # [H, H]
    scale = attention.reatten_scale
    maps, variance = _Mixed.apply(  # type: ignore[no-untyped-call]
        logits, theta, norm.weight, norm.eps, scale
    )
    _record(norm, theta.sum(dim=1) / N + mixing.bias, variance, B * N * N)
    shift = (norm.bias * scale).to(v.dtype)
    out: Tensor = maps @ v + shift[:, None, None] * v.sum(dim=2, keepdim=True)
    return out


class _Mixed(torch.autograd.Function):
    """G D and the variance of Theta D, from logits, Theta, the norm's weight, epsilon and a scale.

    One map is kept for the backward pass, D. The softmax is taken in float32 at least, and D is
    what is rounded to the logits' type: rounded themselves, nearly uniform maps would lose what
    tells their entries apart.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, theta: Tensor, weight: Tensor, eps: float, scale: float
    ) -> tuple[Tensor, Tensor]:
        B, _, N, _ = logits.shape
        with torch.autocast(logits.device.type, enabled=False):
            wide = torch.promote_types(logits.dtype, torch.float32)
            apart = logits.softmax(dim=-1, dtype=wide).sub_(1 / N).to(logits.dtype).flatten(2)
            covariance = _gram(apart, apart).to(theta.dtype) / (B * N * N)
            with torch.enable_grad():  # of H x H numbers
                inputs = [part.detach().requires_grad_() for part in (theta, weight, covariance)]
                gain, variance = _gain(inputs[0], inputs[1], inputs[2], eps, scale)
            ctx.gain, ctx.inputs = gain, inputs
            ctx.save_for_backward(apart)
            variance = variance.detach()
            ctx.mark_non_differentiable(variance)
            return _times(gain.detach(), apart).view(logits.shape), variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        (apart,) = ctx.saved_tensors
        B, H, N, _N = gradient.shape
        flat = gradient.flatten(2)
        of_gain = _gram(flat, apart).to(ctx.gain.dtype)
        theta, weight, covariance = torch.autograd.grad(ctx.gain, ctx.inputs, of_gain)
        through = ((covariance + covariance.T) / (B * N * N)).to(apart.dtype).expand(B, H, H)
        of_maps = _times(ctx.gain.detach().T, flat).baddbmm_(through, apart).view(gradient.shape)
        softmax = apart.view(gradient.shape) + 1 / N
        logits = torch.ops.aten._softmax_backward_data(of_maps, softmax, -1, softmax.dtype)
        return logits, theta, weight, None, None


def _gain(
    theta: Tensor, weight: Tensor, covariance: Tensor, eps: float, scale: float
) -> tuple[Tensor, Tensor]:
    """G [H, H], and the variance of each mixed head [H]."""
    variance = ((theta @ covariance) * theta).sum(dim=1)
    return (weight * (variance + eps).rsqrt() * scale)[:, None] * theta, variance


def _gram(one: Tensor, other: Tensor) -> Tensor:
    """Products of heads, summed over images and entries: [B, H, N * N] twice to [H, H]."""
    return (one @ other.transpose(1, 2)).sum(
        dim=0, dtype=torch.promote_types(one.dtype, torch.float32)
    )


def _times(matrix: Tensor, maps: Tensor) -> Tensor:
    """[H, H] times the heads of each image, [B, H, N * N]. Broadcasting would copy the maps."""
    return matrix.to(maps.dtype).expand(len(maps), -1, -1).bmm(maps)


@torch.no_grad()
def _record(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """Running statistics as BatchNorm keeps them, with the unbiased variance of `count` values."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
    unbiased = variance * count / (count - 1)
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), norm.momentum)
