"""The exact algebra of inference: a trained network to one that computes the same with less.

Nothing is approximated (paper.md section 7):
- Re-attention's BatchNorm over heads, its convolution bias and reatten_scale become one
  H x H matrix and one offset a head;
- LayerNorm's gain and bias move into the linear layers behind it, 1 / sqrt(D) into Q;
- the scale adjustment a leaves LayerNorm (eps becomes eps / a^2), 1 / a goes into the
  layers that write to the residual stream;
- the stem's BatchNorms move into its convolutions, mean and std into the first of them.

Weights are kept as [in, out], the orientation ONNX's MatMul wants, so that both exported
graphs hold the very same tensors.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepvit import Block, BlockTrace, ConvStem, DeepViT, PatchEmbed
from models.preprocess import Preprocessing


class Mixing(NamedTuple):
    """Re-attention of one block: A' = matrix A + offset, over heads."""

    theta: Tensor  # [H, H], out by in, as trained
    matrix: Tensor  # [H, H], with norm and scale
    offset: Tensor  # [H]

    def row_sum(self, num_tokens: int) -> Tensor:
        """What every row of a head's mixed map sums to, for any image (paper.md 3.5). [H]"""
        return self.matrix.sum(dim=1) + num_tokens * self.offset


def fold_mixing(network: DeepViT, block: int) -> Mixing:
    """Theta, its bias, BatchNorm and reatten_scale as one affine map over heads."""
    attention = cast(Block, network.blocks[block]).attn
    assert attention.reatten_matrix is not None
    assert attention.reatten_matrix.bias is not None
    theta = attention.reatten_matrix.weight[:, :, 0, 0].double()  # [H, H]
    matrix, offset = theta, attention.reatten_matrix.bias.double()  # [H, H], [H]
    if attention.var_norm is not None:
        gain, shift = _batch_norm_affine(attention.var_norm)
        matrix, offset = gain[:, None] * matrix, gain * offset + shift
    scale = attention.reatten_scale
    return Mixing(theta.float(), (scale * matrix).float(), (scale * offset).float())


class Dense(nn.Module):
    """x [..., in] @ weight [in, out] + bias [out]."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.float().contiguous(), requires_grad=False)
        self.bias = nn.Parameter(bias.float().contiguous(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class FoldedPatchEmbed(nn.Module):
    """uint8 images [B, S, S, 3] to patch embeddings [B, N - 1, C], as one matrix product."""

    def __init__(self, embed: PatchEmbed, rule: Preprocessing) -> None:
        super().__init__()
        offset, scale = _normalization(rule)
        weight = embed.proj.weight.double() * scale[:, None, None]  # [C, 3, P, P]
        assert embed.proj.bias is not None
        bias = embed.proj.bias.double() - (weight * offset[:, None, None]).sum(dim=(1, 2, 3))
        self.patch = weight.shape[-1]
        self.proj = Dense(weight.permute(2, 3, 1, 0).flatten(0, 2), bias)

    def forward(self, images: Tensor) -> Tensor:
        B, S, _, channels = images.shape
        grid, P = S // self.patch, self.patch
        cut = images.reshape(B, grid, P, grid, P, channels).transpose(2, 3)
        out: Tensor = self.proj(cut.reshape(B, grid**2, P * P * channels).float())
        return out


class FoldedConvStem(nn.Module):
    """uint8 images [B, S, S, 3] to patch embeddings [B, N - 1, C], through three convolutions.

    The mean is subtracted rather than folded: the first convolution pads with zeros that
    stand for the mean colour, so a bias would be wrong along the border.
    """

    def __init__(self, stem: ConvStem, rule: Preprocessing) -> None:
        super().__init__()
        offset, scale = _normalization(rule)
        self.offset = nn.Parameter(offset[:, None, None].float(), requires_grad=False)
        self.conv1 = _fold_conv(stem.conv1, stem.bn1, input_scale=scale)
        self.conv2 = _fold_conv(stem.conv2, stem.bn2)
        self.proj = stem.proj

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() - self.offset  # [B, 3, S, S]
        x = F.relu(self.conv2(F.relu(self.conv1(x))))  # [B, 64, S / 2, S / 2]
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)


class FoldedBlock(nn.Module):
    """One transformer block without gains, scales or norms over heads left in it."""

    def __init__(self, network: DeepViT, index: int) -> None:
        super().__init__()
        config, block = network.config, cast(Block, network.blocks[index])
        a, C = config.scale_adjustment, config.embed_dim
        self.num_heads = config.num_heads
        self.eps = config.layer_norm_eps / a**2
        weight, bias = _fold_layer_norm(block.norm1, block.attn.qkv)  # [C, 3C], [3C]
        scale = block.attn.scale
        self.q = Dense(weight[:, :C] * scale, bias[:C] * scale)
        self.k = Dense(weight[:, C : 2 * C], bias[C : 2 * C])
        self.v = Dense(weight[:, 2 * C :], bias[2 * C :])
        self.proj = _residual(block.attn.proj, a)
        self.fc1 = Dense(*_fold_layer_norm(block.norm2, block.mlp.fc1))
        self.fc2 = _residual(block.mlp.fc2, a)
        self.mixes = block.attn.reatten_matrix is not None
        if self.mixes:
            _, matrix, offset = fold_mixing(network, index)
            self.theta = nn.Parameter(matrix, requires_grad=False)  # [H, H]
            self.offset = nn.Parameter(offset[:, None, None], requires_grad=False)  # [H, 1, 1]

    def forward(self, x: Tensor, rows: int | None = None) -> Tensor:
        """Tokens [B, N, C] to the first `rows` tokens of the output, all of them by default.

        The offset of a mixed map is the same at every position, so it leaves the map
        as one vector a head: offset * (sum of V over tokens).
        """
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        softmax = self._softmax(y[:, :rows], y)  # [B, H, rows, N]
        v = self._heads(self.v(y))
        if self.mixes:
            attended = self._mix(softmax) @ v + self.offset * v.sum(dim=-2, keepdim=True)
        else:
            attended = softmax @ v
        return self._finish(x[:, :rows], attended)

    def trace(self, x: Tensor) -> BlockTrace:
        """The same with both maps written out."""
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        softmax = self._softmax(y, y)
        reattention = self._mix(softmax) + self.offset if self.mixes else softmax
        tokens = self._finish(x, reattention @ self._heads(self.v(y)))
        return BlockTrace(softmax, reattention, tokens)

    def _softmax(self, queries: Tensor, keys: Tensor) -> Tensor:
        q, k = self._heads(self.q(queries)), self._heads(self.k(keys))
        return (q @ k.transpose(-2, -1)).softmax(dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        B, N, C = x.shape
        return x.reshape(B, N, self.num_heads, C // self.num_heads).transpose(1, 2)  # [B, H, N, D]

    def _mix(self, softmax: Tensor) -> Tensor:
        return (self.theta @ softmax.flatten(2)).reshape(softmax.shape)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        out: Tensor = x + self.fc2(F.gelu(self.fc1(y)))
        return out


class FoldedDeepViT(nn.Module):
    """The inference network: what both exported graphs are traced from."""

    def __init__(self, network: DeepViT, rule: Preprocessing) -> None:
        super().__init__()
        config = self.config = network.config
        stem = network.patch_embed
        self.patch_embed: nn.Module = (
            FoldedConvStem(stem, rule)
            if isinstance(stem, ConvStem)
            else FoldedPatchEmbed(stem, rule)
        )
        positions = network.pos_embed.detach().clone()  # [1, N, C]
        self.cls_token = nn.Parameter(
            network.cls_token.detach() + positions[:, :1], requires_grad=False
        )
        self.pos_embed = nn.Parameter(positions[:, 1:].contiguous(), requires_grad=False)
        self.blocks = nn.ModuleList(FoldedBlock(network, index) for index in range(config.depth))
        self.eps = config.layer_norm_eps
        self.head = Dense(*_fold_layer_norm(network.norm, network.head))

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images) + self.pos_embed
        cls = self.cls_token.expand(images.shape[0], -1, -1)
        return torch.cat((cls, patches), dim=1)  # [B, N, C]

    def classify(self, x: Tensor) -> Tensor:
        cls = F.layer_norm(x[:, 0], x.shape[-1:], eps=self.eps)  # [B, C]
        logits: Tensor = self.head(cls)
        return logits


def _normalization(rule: Preprocessing) -> tuple[Tensor, Tensor]:
    """Offset and scale a channel with (pixel - offset) * scale the normalised value."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (rule.mean, rule.std))
    return 255 * mean, 1 / (255 * std)


def _batch_norm_affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Gain and shift of a BatchNorm in evaluation mode, float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return gain, norm.bias.double() - gain * norm.running_mean.double()


def _fold_conv(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, input_scale: Tensor | None = None
) -> nn.Conv2d:
    gain, shift = _batch_norm_affine(norm)
    weight = conv.weight.double() * gain[:, None, None, None]
    if input_scale is not None:
        weight = weight * input_scale[:, None, None]
    folded = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (conv.kernel_size[0], conv.kernel_size[1]),
        stride=(conv.stride[0], conv.stride[1]),
        padding=(int(conv.padding[0]), int(conv.padding[1])),
    )
    folded.weight = nn.Parameter(weight.float(), requires_grad=False)
    folded.bias = nn.Parameter(shift.float(), requires_grad=False)
    return folded


def _fold_layer_norm(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [in, out] and bias [out], float64, that take the bare normalised input."""
    weight = linear.weight.double().T * norm.weight.double()[:, None]
    bias = linear.weight.double() @ norm.bias.double()
    if linear.bias is not None:
        bias = bias + linear.bias.double()
    return weight, bias


def _residual(linear: nn.Linear, a: float) -> Dense:
    """A layer that writes to the residual stream, divided by the scale adjustment."""
    return Dense(linear.weight.double().T / a, linear.bias.double() / a)
