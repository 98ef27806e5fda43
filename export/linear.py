"""Linear layers of the inference network, and norms folded into them."""

import torch
from torch import Tensor, nn


class Dense(nn.Module):
    """x [..., in] @ weight [in, out] + bias [out], or without a bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
        self.bias: nn.Parameter | None = None
        if bias is not None:
            self.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """For matrices, ONNX has product and sum as one operator, Gemm: the sum costs no pass."""
        if self.bias is None:
            return x @ self.weight
        rows = torch.addmm(self.bias, x.flatten(0, -2), self.weight)
        return rows if x.ndim == 2 else rows.reshape(*x.shape[:-1], -1)


def batch_norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and shift of a BatchNorm in evaluation mode, float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - gain * norm.running_mean.double()


def fold_layer_norm(
    norm: nn.LayerNorm, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weight [in, out] and bias [out], float64, of a layer after a norm without gain and bias.

    `weight` is [out, in], as trained. An input several times as wide as the norm consists of that
    many normed vectors side by side.
    """
    weight = weight.double().T
    times = len(weight) // len(norm.weight)
    shift = weight.T @ norm.bias.double().repeat(times)
    if bias is not None:
        shift = shift + bias.double()
    return weight * norm.weight.double().repeat(times)[:, None], shift
