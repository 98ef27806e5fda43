"""Folding: a trained network becomes one that computes the same with fewer operations.

Nothing is approximated:
- Re-attention's BatchNorm over heads, its convolution bias and reatten_scale become one
  H x H matrix and one offset a head;
- LayerNorm's gain and bias move into the linear layers that follow, 1 / sqrt(D) into Q;
- the scale adjustment a leaves LayerNorm (eps becomes eps / a^2), 1 / a goes into the
  layers that write to the residual stream;
- K's bias adds the same value to all scores of a query, which the softmax cancels; V's bias is
  multiplied by a map whose rows sum to a constant, so it moves into the projection's bias;
- the centring of a LayerNorm over heads (vit-pytorch) moves into Theta; the rest stays;
- prefix tokens are added to their positions;
- the stem's BatchNorms move into its convolutions, mean and std into the first of them.

Weights are kept as [in, out], as ONNX's MatMul takes them, so that both exported graphs have the
same tensors.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export import attention
from export.linear import Dense, batch_norm_affine, fold_layer_norm
from export.pooling import FoldedAttentionPool
from export.stems import fold_stem
from models.deepvit import Block, DeepViT, HeadNorm, activate, pool
from models.preprocess import Preprocessing

# Features are scaled to unit length; before, the square of their length has to fit half precision.
_SHORTER = 2.0**-4


class Mixing(NamedTuple):
    """Re-attention of one block: A' = matrix A + offset, over heads.

    If a LayerNorm over heads remains, A' = gain * (matrix A / deviation) + offset, where deviation
    is the square root of the mean over heads of (matrix A)^2, plus eps, at each entry.
    """

    theta: Tensor  # [H, H], out by in, as trained
    matrix: Tensor  # [H, H], with norm and scale
    offset: Tensor  # [H]
    gain: Tensor | None = None  # [H]

    def row_sum(self, num_tokens: int) -> Tensor | None:
        """What every row of a head's mixed map sums to, for any image: [H].

        None if a LayerNorm over heads remains, because then the sums depend on the image.
        """
        if self.gain is not None:
            return None
        return (self.matrix.double().sum(dim=1) + num_tokens * self.offset.double()).float()


def fold_mixing(network: DeepViT, block: int) -> Mixing:
    """Theta, its bias, the norm and reatten_scale as one affine map over heads."""
    attention = cast(Block, network.blocks[block]).attn
    assert attention.reatten_matrix is not None
    theta = attention.reatten_matrix.weight[:, :, 0, 0].double()  # [H, H]
    scale, norm = attention.reatten_scale, attention.var_norm
    if isinstance(norm, HeadNorm):
        centred = theta - theta.mean(dim=0)
        gain, shift = scale * norm.weight, scale * norm.bias
        return Mixing(theta.float(), centred.float(), shift, gain)
    assert attention.reatten_matrix.bias is not None
    matrix, offset = theta, attention.reatten_matrix.bias.double()  # [H, H], [H]
    if norm is not None:
        gain, shift = batch_norm_affine(norm)
        matrix, offset = gain[:, None] * matrix, gain * offset + shift
    return Mixing(theta.float(), (scale * matrix).float(), (scale * offset).float())


class FoldedBlock(nn.Module):
    """One transformer block with its gains, scales and BatchNorm over heads folded."""

    def __init__(self, network: DeepViT, index: int) -> None:
        super().__init__()
        config, block = network.config, cast(Block, network.blocks[index])
        a, D = config.scale_adjustment, config.heads_dim
        self.num_heads, self.tokens = config.num_heads, config.num_tokens
        self.eps = config.layer_norm_eps / a**2
        self.head_eps = config.layer_norm_eps
        self.activation = config.activation
        qkv, fc1 = block.attn.qkv, block.mlp.fc1
        weight, bias = fold_layer_norm(block.norm1, qkv.weight, qkv.bias)  # [C, 3D], [3D]
        self.shares = config.map_source(index) != index
        if not self.shares:
            scale = block.attn.scale
            self.q = Dense(weight[:, :D] * scale, bias[:D] * scale)
            self.k = Dense(weight[:, D : 2 * D])
        self.fc1 = Dense(*fold_layer_norm(block.norm2, fc1.weight, fc1.bias))
        self.fc2 = _residual(block.mlp.fc2, a)
        self.mixes = block.attn.reatten_matrix is not None
        lends = config.attention_donor == index
        self.head_norm = self.mixes and config.reatten_layer_norm
        self.fused = not (self.shares or lends or self.head_norm)
        row_sum: Tensor | None = torch.ones(self.num_heads)  # of a softmax map
        if self.mixes:
            mixing = fold_mixing(network, index)
            self.theta = nn.Parameter(mixing.matrix, requires_grad=False)  # [H, H]
            self.offset = nn.Parameter(mixing.offset, requires_grad=False)  # [H]
            self.gain: nn.Parameter | None = None
            if mixing.gain is not None:
                self.gain = nn.Parameter(mixing.gain, requires_grad=False)  # [H]
            row_sum = mixing.row_sum(config.num_tokens)
        if row_sum is None:
            self.v = Dense(weight[:, 2 * D :], bias[2 * D :])
            self.proj = _residual(block.attn.proj, a)
        else:
            self.v = Dense(weight[:, 2 * D :])
            carried = row_sum.double().repeat_interleave(config.head_dim) * bias[2 * D :]
            self.proj = _residual(block.attn.proj, a, carried)

    def forward(
        self, x: Tensor, before: Tensor | None = None, rows: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [B * N, C] to the first `rows` tokens of each image, all of them by default.

        The second result is the softmax map if later blocks share it; `before` is the shared map.
        """
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        shape = (rows or self.tokens, self.tokens)
        v, maps = self.v(y), None
        if not self.fused:
            maps = self._softmax(y, before, rows)
            attended = self._attended(maps, v)
        else:
            q, k = self.q(self._first(y, rows)), self.k(y)
            if self.mixes:
                attended = attention.reattend(q, k, v, self.theta, self.offset, shape)
            else:
                attended = attention.attend(q, k, v, self.num_heads, shape)
        return self._finish(self._first(x, rows), attended), maps

    def trace(self, x: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B * N, C] to the softmax map, what multiplies V, and all tokens."""
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        softmax, reattention, attended = self._laid_open(y, before)
        return softmax, reattention, self._finish(x, attended)

    def _laid_open(self, y: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """[B * N, C] to the softmax map, what multiplies V, and the input of the projection."""
        v, shape = self.v(y), (self.tokens, self.tokens)
        if self.shares or self.head_norm:
            softmax = self._softmax(y, before)
            mixed = self._mix(softmax) + self.offset[:, None, None] if self.mixes else softmax
            return softmax, mixed, attention.join(mixed @ self._heads(v))
        q, k = self.q(y), self.k(y)
        if self.mixes:
            return attention.open_reattend(q, k, v, self.theta, self.offset, shape)
        softmax, attended = attention.open_attend(q, k, v, self.num_heads, shape)
        return softmax, softmax, attended

    def _softmax(self, y: Tensor, before: Tensor | None, rows: int | None = None) -> Tensor:
        if self.shares:
            assert before is not None
            return before if rows is None else before[:, :, :rows]
        q, shape = self.q(self._first(y, rows)), (rows or self.tokens, self.tokens)
        return attention.softmax(q, self.k(y), self.num_heads, shape)

    def _heads(self, x: Tensor) -> Tensor:
        return attention.split(x, self.num_heads, self.tokens)

    def _attended(self, maps: Tensor, v: Tensor) -> Tensor:
        if self.mixes:
            return attention.mixed_values(self._mix(maps), self.offset, self._heads(v))
        return attention.join(maps @ self._heads(v))

    def _mix(self, softmax: Tensor) -> Tensor:
        """The mixed map without its offset. [B, H, rows, N] to the same."""
        mixed = attention.mix(self.theta, softmax)
        if self.gain is None:
            return mixed
        variance = mixed.square().mean(dim=1, keepdim=True)  # over heads; Theta is centred
        return self.gain[:, None, None] * (mixed * (variance + self.head_eps).rsqrt())

    def _first(self, x: Tensor, rows: int | None) -> Tensor:
        """[B * N, C] to the first `rows` tokens of each image, [B * rows, C]."""
        if rows is None:
            return x
        return x.reshape(-1, self.tokens, x.shape[-1])[:, :rows].flatten(0, 1)

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.proj(attended)
        y = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        out: Tensor = x + self.fc2(activate(self.fc1(y), self.activation))
        return out


class FoldedDeepViT(nn.Module):
    """The inference network, from which both exported graphs are traced."""

    def __init__(self, network: DeepViT, rule: Preprocessing) -> None:
        super().__init__()
        config = self.config = network.config
        self.patch_embed = fold_stem(network.patch_embed, rule)
        positions = network.pos_embed.detach().clone()  # [1, N, C]
        if network.cls_token is not None:
            positions[:, : config.prefix_tokens] += network.cls_token.detach()
        self.positions = nn.Parameter(positions, requires_grad=False)
        self.norm_pre = network.norm_pre
        self.blocks = nn.ModuleList(FoldedBlock(network, index) for index in range(config.depth))
        self.eps = config.layer_norm_eps
        norm = network.norm
        self.attn_pool: FoldedAttentionPool | None = None
        if network.attn_pool is not None:
            self.attn_pool = FoldedAttentionPool(network.attn_pool, norm)
            norm = None
        self.features: Dense | None = None
        if network.features is not None:
            weight, bias = _behind(norm, network.features)
            self.features, norm = Dense(_SHORTER * weight, _SHORTER * bias), None
        self.head = Dense(*_behind(norm, network.head))

    @property
    def rows(self) -> int | None:
        """How many tokens of the last block the logits depend on; None for all."""
        return {"cls": 1, "cls_dist": 2}.get(self.config.pool)

    def embed(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)  # [B, N - P, C]
        x = F.pad(patches, (0, 0, self.config.prefix_tokens, 0)) + self.positions  # [B, N, C]
        return x if self.norm_pre is None else self.norm_pre(x)

    def classify(self, x: Tensor) -> Tensor:
        """Tokens [B, N, C], or the first `rows` of them, to logits [B, classes]."""
        after = self.config.norm_after_pool
        x = pool(x, self.config) if after else x[:, : self.rows]
        if self.config.last_norm:
            x = F.layer_norm(x, x.shape[-1:], eps=self.eps)
        if self.attn_pool is not None:
            x = self.attn_pool(x[:, self.config.prefix_tokens :])
        elif not after:
            x = pool(x, self.config)
        if self.features is not None:
            x = F.normalize(self.features(x), dim=-1)
        logits: Tensor = self.head(x)
        return logits


def _behind(norm: nn.LayerNorm | None, linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight [in, out] and bias [out], float64, of a layer with the norm before it folded in."""
    if norm is not None:
        return fold_layer_norm(norm, linear.weight, linear.bias)
    weight = linear.weight.double().T
    return weight, weight.new_zeros(
        weight.shape[1]
    ) if linear.bias is None else linear.bias.double()


def _residual(linear: nn.Linear, a: float, carried: Tensor | None = None) -> Dense:
    """A layer that writes to the residual stream, divided by the scale adjustment.

    `carried` [in] is missing from its input at every token, and goes into the bias.
    """
    weight, bias = linear.weight.double().T, linear.bias.double()
    if carried is not None:
        bias = bias + carried @ weight
    return Dense(weight / a, bias / a)
