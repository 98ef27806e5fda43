"""The whole network as published, readable from top to bottom, with the official parameter names.

Section and equation numbers refer to Zhou et al., "DeepViT" (arXiv 2103.11886).
Shapes: B images, N tokens (class token first), C width, H heads, D = C / H, L blocks.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import DeepViTConfig


class BlockTrace(NamedTuple):
    """What one block did to one batch."""

    softmax: Tensor  # [B, H, N, N] rows sum to 1
    reattention: Tensor  # [B, H, N, N] what multiplies V; the softmax map in a plain block
    tokens: Tensor  # [B, N, C] the block's output


class PatchEmbed(nn.Module):
    """One convolution cuts the picture into patches."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_chans, config.embed_dim, config.patch_size, stride=config.patch_size
        )

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)  # [B, C, grid, grid]
        return patches.flatten(2).transpose(1, 2)  # [B, N - 1, C]


class ConvStem(nn.Module):
    """Three convolutions instead of one: the stem of DeepViT-S and DeepViT-L."""

    def __init__(self, config: DeepViTConfig, width: int = 64) -> None:
        super().__init__()
        half = config.patch_size // 2
        self.conv1 = nn.Conv2d(config.in_chans, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, config.embed_dim, half, stride=half)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))  # [B, 64, S / 2, S / 2]
        x = F.relu(self.bn2(self.conv2(x)))
        patches: Tensor = self.proj(x)  # [B, C, grid, grid]
        return patches.flatten(2).transpose(1, 2)  # [B, N - 1, C]


class Attention(nn.Module):
    """Multi-head self-attention, with Re-attention (section 4.2) where the block mixes heads."""

    def __init__(self, config: DeepViTConfig, mixing: bool) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = config.head_dim**-0.5
        self.reatten_scale = config.reatten_scale
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)
        self.reatten_matrix: nn.Conv2d | None = None
        self.var_norm: nn.BatchNorm2d | None = None
        if mixing:
            self.reatten_matrix = nn.Conv2d(config.num_heads, config.num_heads, 1)
            if config.reatten_norm:
                self.var_norm = nn.BatchNorm2d(config.num_heads)

    def mix(self, softmax: Tensor) -> Tensor:
        """Norm(Theta A): across heads, position by position. [B, H, N, N] to the same."""
        if self.reatten_matrix is None:
            return softmax
        mixed: Tensor = self.reatten_matrix(softmax)
        if self.var_norm is not None:
            mixed = self.var_norm(mixed)
        return mixed * self.reatten_scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # [B, H, N, D] each
        softmax = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)  # [B, H, N, N]
        reattention = self.mix(softmax)  # [B, H, N, N]
        out = (reattention @ v).transpose(1, 2).reshape(B, N, C)
        return self.proj(out), softmax, reattention


class Mlp(nn.Module):
    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """x += attn(norm1(a x)) / a, then x += mlp(norm2(a x)) / a, with a the scale adjustment."""

    def __init__(self, config: DeepViTConfig, mixing: bool) -> None:
        super().__init__()
        self.scale_adjustment = config.scale_adjustment
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = Attention(config, mixing)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> BlockTrace:
        a = self.scale_adjustment
        attended, softmax, reattention = self.attn(self.norm1(x * a))
        x = x + attended / a
        x = x + self.mlp(self.norm2(x * a)) / a
        return BlockTrace(softmax, reattention, tokens=x)


class DeepViT(nn.Module):
    """Normalised images [B, 3, S, S] to logits [B, classes]."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = {"patch": PatchEmbed, "conv": ConvStem}[config.stem](config)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config, mixing=index in config.reatten_blocks) for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.head = nn.Linear(config.embed_dim, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self._embed(images)
        for block in self.blocks:
            x = block(x).tokens
        return self._classify(x)

    def trace(self, images: Tensor) -> tuple[Tensor, list[BlockTrace]]:
        """Logits, and what every block did."""
        x = self._embed(images)
        traces: list[BlockTrace] = []
        for block in self.blocks:
            traces.append(block(x))
            x = traces[-1].tokens
        return self._classify(x), traces

    def _embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        cls = self.cls_token.expand(len(images), -1, -1)
        return torch.cat((cls, patches), dim=1) + self.pos_embed  # [B, N, C]

    def _classify(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(x)[:, 0])  # [B, classes]
        return logits
