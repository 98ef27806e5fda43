"""The whole network as published, from top to bottom, with the official parameter names.

Section and equation numbers refer to Zhou et al., "DeepViT" (arXiv 2103.11886).
Shapes: B images, S = (height, width) pixels, N tokens (P prefix tokens, the class token first if
there is one, then patches row by row), C width, H heads of D channels, L blocks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.config import Activation, DeepViTConfig
from models.size import Size


class BlockTrace(NamedTuple):
    """What one block did to one batch."""

    softmax: Tensor  # [B, H, N, N], rows sum to 1
    reattention: Tensor  # [B, H, N, N], multiplies V; the softmax map in a plain block
    tokens: Tensor  # [B, N, C], the block's output


class PatchEmbed(nn.Module):
    """One convolution cuts the image into patches."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_chans, config.embed_dim, config.patch_size, stride=config.patch_size
        )

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)  # [B, C, rows, columns]
        return patches.flatten(2).transpose(1, 2)  # [B, N - P, C]


class NormedPatchEmbed(PatchEmbed):
    """The same between two LayerNorms, as in vit-pytorch: over pixels, and over the embedding."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__(config)
        self.patch = config.patch_size
        pixels = config.in_chans * config.patch_size.area
        self.norm1 = nn.LayerNorm(
            pixels, eps=config.layer_norm_eps
        )  # in the order row, column, RGB
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        B, channels, *size = images.shape
        (h, w), (rows, columns) = self.patch, Size(*size) // self.patch
        pixels = images.reshape(B, channels, rows, h, columns, w).permute(0, 2, 4, 3, 5, 1)
        pixels = pixels.reshape(B, rows * columns, -1)  # [B, N - P, h * w * 3]
        weight = self.proj.weight.permute(0, 2, 3, 1).flatten(1)  # [C, h * w * 3]
        patches: Tensor = self.norm2(F.linear(self.norm1(pixels), weight, self.proj.bias))
        return patches


class ConvStem(nn.Module):
    """Three convolutions instead of one: the stem of DeepViT-S and DeepViT-L."""

    def __init__(self, config: DeepViTConfig, width: int = 64) -> None:
        super().__init__()
        half = config.patch_size.side // 2
        self.conv1 = nn.Conv2d(config.in_chans, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, config.embed_dim, half, stride=half)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))  # [B, 64, S / 2, S / 2]
        x = F.relu(self.bn2(self.conv2(x)))
        patches: Tensor = self.proj(x)  # [B, C, rows, columns]
        return patches.flatten(2).transpose(1, 2)  # [B, N - P, C]


class HeadNorm(nn.LayerNorm):
    """LayerNorm over the heads of each entry of a map, as in vit-pytorch."""

    def forward(self, maps: Tensor) -> Tensor:
        """[B, H, N, N] to the same."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Attention(nn.Module):
    """Multi-head self-attention, with Re-attention (section 4.2) where the block mixes heads.

    If the softmax map of another block is given, it is used instead (attention reuse, Table 3).
    """

    def __init__(self, config: DeepViTConfig, mixing: bool, temperature: float = 1.0) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.scale = config.head_dim**-0.5 / temperature
        self.reatten_scale = config.reatten_scale
        self.qkv = nn.Linear(config.embed_dim, 3 * config.heads_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.heads_dim, config.embed_dim)
        self.reatten_matrix: nn.Conv2d | None = None
        self.var_norm: nn.BatchNorm2d | HeadNorm | None = None
        if mixing:
            H, layer_norm = config.num_heads, config.reatten_layer_norm
            self.reatten_matrix = nn.Conv2d(H, H, 1, bias=not layer_norm)
            if layer_norm:
                self.var_norm = HeadNorm(H, eps=config.layer_norm_eps)
            elif config.reatten_norm:
                self.var_norm = nn.BatchNorm2d(H)

    def mix(self, softmax: Tensor) -> Tensor:
        """Norm(Theta A): across heads, position by position. [B, H, N, N] to the same."""
        if self.reatten_matrix is None:
            return softmax
        mixed: Tensor = self.reatten_matrix(softmax)
        if self.var_norm is not None:
            mixed = self.var_norm(mixed)
        return mixed * self.reatten_scale

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens [B, N, C]: [B, H, N, D] each."""
        B, N, _ = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        """What the softmax is taken of, over keys: [B, H, N, N]."""
        logits: Tensor = q @ k.transpose(-2, -1) * self.scale
        return logits

    def softmax(self, q: Tensor, k: Tensor) -> Tensor:
        """The map before the mixing, [B, H, N, N]."""
        return self.logits(q, k).softmax(dim=-1)

    def merge(self, out: Tensor) -> Tensor:
        """The heads' outputs [B, H, N, D], side by side and projected: [B, N, C]."""
        merged: Tensor = self.proj(out.transpose(1, 2).flatten(2))
        return merged

    def forward(self, x: Tensor, shared: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.split(x)
        softmax = self.softmax(q, k) if shared is None else shared
        reattention = self.mix(softmax)  # [B, H, N, N]
        return self.merge(reattention @ v), softmax, reattention


def activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


class Mlp(nn.Module):
    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.activation = config.activation
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(activate(self.fc1(x), self.activation))
        return out


class Block(nn.Module):
    """x += attn(norm1(a x)) / a, then x += mlp(norm2(a x)) / a, with a the scale adjustment."""

    def __init__(self, config: DeepViTConfig, index: int) -> None:
        super().__init__()
        mixing = index in config.reatten_blocks
        temperature = config.softmax_temperatures[index] if config.softmax_temperatures else 1.0
        self.scale_adjustment = config.scale_adjustment
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn = Attention(config, mixing, temperature)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> BlockTrace:
        a = self.scale_adjustment
        attended, softmax, reattention = self.attn(self.norm1(x * a), shared)
        x = x + attended / a
        x = x + self.mlp(self.norm2(x * a)) / a
        return BlockTrace(softmax, reattention, tokens=x)


class AttentionPool(nn.Module):
    """One learned query attends to the patches; an MLP follows (SigLIP's pooling)."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        C = config.embed_dim
        self.num_heads = config.num_heads
        self.latent = nn.Parameter(torch.zeros(1, 1, C))
        self.q = nn.Linear(C, C)
        self.kv = nn.Linear(C, 2 * C)
        self.proj = nn.Linear(C, C)
        self.norm = nn.LayerNorm(C, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """Patches [B, N - P, C] to [B, C]."""
        B, N, C = x.shape
        H = self.num_heads
        q = self.q(self.latent).reshape(1, H, 1, C // H) * (C // H) ** -0.5
        k, v = self.kv(x).reshape(B, N, 2, H, C // H).permute(2, 0, 3, 1, 4)
        maps = (q @ k.transpose(-2, -1)).softmax(dim=-1)  # [B, H, 1, N - P]
        pooled = self.proj((maps @ v).reshape(-1, C))
        out: Tensor = pooled + self.mlp(self.norm(pooled))
        return out


def pool(x: Tensor, config: DeepViTConfig) -> Tensor:
    """Tokens [B, N, C] to what the classifier head sees: [B, C], or [B, 2 C] for two vectors."""
    if config.pool == "cls_dist":
        return x[:, :2].flatten(1)
    if config.pool == "cls":
        return x[:, 0]
    mean = x[:, 0 if config.pool == "mean" else config.prefix_tokens :].mean(dim=1)
    return torch.cat((x[:, 0], mean), dim=1) if config.pool == "cls_mean" else mean


class DeepViT(nn.Module):
    """Normalised images [B, 3, *S] to logits [B, classes]."""

    def __init__(self, config: DeepViTConfig) -> None:
        super().__init__()
        self.config = config
        plain = NormedPatchEmbed if config.patch_norm else PatchEmbed
        self.patch_embed = {"patch": plain, "conv": ConvStem}[config.stem](config)
        self.cls_token: nn.Parameter | None = None
        if config.prefix_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, config.prefix_tokens, config.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_tokens, config.embed_dim))
        self.norm_pre: nn.LayerNorm | None = None
        if config.norm_pre:
            self.norm_pre = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.blocks = nn.ModuleList(Block(config, index) for index in range(config.depth))
        self.norm: nn.LayerNorm | None = None
        if config.last_norm:
            self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)
        self.attn_pool = AttentionPool(config) if config.pool == "attention" else None
        self.features: nn.Linear | None = None
        if config.features is not None:
            self.features = nn.Linear(config.pooled_width, config.features, bias=False)
        self.head = nn.Linear(config.head_width, config.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        for trace in self._run(images):
            x = trace.tokens
        return self.classify(x)

    def trace(self, images: Tensor) -> tuple[Tensor, list[BlockTrace]]:
        """Logits, and a trace of every block."""
        traces = list(self._run(images))
        return self.classify(traces[-1].tokens), traces

    def _run(self, images: Tensor) -> Iterator[BlockTrace]:
        """Block by block."""
        x = self.embed(images)
        shared: Tensor | None = None
        for index, block in enumerate(self.blocks):
            trace: BlockTrace = block(x, shared)
            yield trace
            x = trace.tokens
            if index == self.config.attention_donor:
                shared = trace.softmax

    def embed(self, images: Tensor, positions: Tensor | None = None) -> Tensor:
        """Images to the tokens that the first block sees, [B, N, C].

        `positions` [1, N, C] are those of another grid of patches than the network's own.
        """
        x = self.patch_embed(images)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(len(images), -1, -1), x), dim=1)  # [B, N, C]
        x = x + (self.pos_embed if positions is None else positions)
        tokens: Tensor = x if self.norm_pre is None else self.norm_pre(x)
        return tokens

    def classify(self, x: Tensor) -> Tensor:
        """The last block's tokens [B, N, C] to logits [B, classes]."""
        after = self.config.norm_after_pool
        x = x if after or self.norm is None else self.norm(x)
        if self.attn_pool is None:
            x = pool(x, self.config)
        else:
            x = self.attn_pool(x[:, self.config.prefix_tokens :])
        x = self.norm(x) if after and self.norm is not None else x
        if self.features is not None:
            x = F.normalize(self.features(x), dim=-1)
        logits: Tensor = self.head(x)  # [B, classes]
        return logits
