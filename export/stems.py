"""Stems: raw pixels to patch embeddings, with mean, std and the stem's norms folded in."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.linear import Dense, batch_norm_affine, fold_layer_norm
from models.deepvit import ConvStem, NormedPatchEmbed, PatchEmbed
from models.preprocess import Preprocessing
from models.size import Size


def fold_stem(stem: nn.Module, rule: Preprocessing) -> nn.Module:
    """The module that takes uint8 images [B, *S, 3] in place of `stem`."""
    if isinstance(stem, ConvStem):
        return FoldedConvStem(stem, rule)
    if isinstance(stem, NormedPatchEmbed):
        return FoldedNormedPatchEmbed(stem, rule)
    assert isinstance(stem, PatchEmbed)
    return FoldedPatchEmbed(stem, rule)


class FoldedPatchEmbed(nn.Module):
    """uint8 images [B, *S, 3] to patch embeddings [B, N - P, C], as one matrix product."""

    def __init__(self, embed: PatchEmbed, rule: Preprocessing) -> None:
        super().__init__()
        offset, scale = _normalization(rule)
        weight = embed.proj.weight.double() * scale[:, None, None]  # [C, 3, h, w]
        assert embed.proj.bias is not None
        bias = embed.proj.bias.double() - (weight * offset[:, None, None]).sum(dim=(1, 2, 3))
        self.patch = Size(*weight.shape[2:])
        self.proj = Dense(weight.permute(2, 3, 1, 0).flatten(0, 2), bias)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.proj(_cut(images, self.patch).float())
        return out


class FoldedNormedPatchEmbed(nn.Module):
    """The same between LayerNorms, which take normalised pixels, so mean and std are not folded."""

    def __init__(self, embed: NormedPatchEmbed, rule: Preprocessing) -> None:
        super().__init__()
        offset, scale = _normalization(rule)
        self.offset = nn.Parameter(offset.float(), requires_grad=False)
        self.scale = nn.Parameter(scale.float(), requires_grad=False)
        self.patch = embed.patch
        self.eps = embed.norm1.eps
        weight = embed.proj.weight.permute(2, 3, 1, 0).flatten(0, 2)  # [h * w * 3, C]
        self.proj = Dense(*fold_layer_norm(embed.norm1, weight.T, embed.proj.bias))
        self.norm = embed.norm2

    def forward(self, images: Tensor) -> Tensor:
        x = _cut((images.float() - self.offset) * self.scale, self.patch)
        x = self.proj(F.layer_norm(x, x.shape[-1:], eps=self.eps))
        patches: Tensor = self.norm(x)
        return patches


class FoldedConvStem(nn.Module):
    """uint8 images [B, *S, 3] to patch embeddings [B, N - P, C], through three convolutions.

    The mean is subtracted rather than folded: the first convolution pads with zeros, which
    stand for the mean colour, so that a bias would be wrong along the border.
    """

    def __init__(self, stem: ConvStem, rule: Preprocessing) -> None:
        super().__init__()
        offset, scale = _normalization(rule)
        self.offset = nn.Parameter(offset[:, None, None].float(), requires_grad=False)
        self.conv1 = _fold_conv(stem.conv1, stem.bn1, input_scale=scale)
        self.conv2 = _fold_conv(stem.conv2, stem.bn2)
        self.proj = stem.proj

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() - self.offset  # [B, 3, *S]
        x = F.relu(self.conv2(F.relu(self.conv1(x))))  # [B, 64, *S / 2]
        patches: Tensor = self.proj(x)
        return patches.flatten(2).transpose(1, 2)


def _normalization(rule: Preprocessing) -> tuple[Tensor, Tensor]:
    """Offset and scale of each channel: a normalised value is (pixel - offset) * scale."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (rule.mean, rule.std))
    return 255 * mean, 1 / (255 * std)


def _fold_conv(
    conv: nn.Conv2d, norm: nn.BatchNorm2d, input_scale: Tensor | None = None
) -> nn.Conv2d:
    gain, shift = batch_norm_affine(norm)
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


def _cut(images: Tensor, patch: Size) -> Tensor:
    """Images [B, *S, 3] to the pixels of each patch, [B, N - P, patch.area * 3]."""
    B, *size, channels = images.shape
    rows, columns = Size(*size) // patch
    cut = images.reshape(B, rows, patch.height, columns, patch.width, channels).transpose(2, 3)
    return cut.reshape(B, rows * columns, patch.area * channels)
