"""The forward pass as training runs it: without passes over maps that nobody looks at.

Parameters, running statistics and gradients are those of `DeepViT.forward` in training mode.
Shapes: B images, N tokens, C width, H heads of D channels.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.deepvit import Attention, Block, DeepViT
from models.training.draws import Draws
from models.training.reattention import mixed_and_normed
from models.training.sizes import positions


def forward(network: DeepViT, images: Tensor, stays: Tensor | None = None) -> Tensor:
    """Normalised images [B, 3, S, S], of the network's size or a smaller one, to logits.

    Logits are [B, classes]. `stays` is what `stochastic_depth` drew; without it, all blocks count.
    """
    config = network.config
    x = network.embed(images, positions(network, images.shape[-1]))
    shared: Tensor | None = None
    for index, block in enumerate(network.blocks):
        assert isinstance(block, Block)
        donates = index == config.attention_donor
        x, softmax = _run(block, x, shared, donates, None if stays is None else stays[index])
        if donates:
            shared = softmax
    return network.classify(x)


def stochastic_depth(depth: int, drop_path: float, images: int, draws: Draws) -> Tensor | None:
    """Factors of what each block's attention and MLP add to each image, [L, 2, B].

    Zero with a probability that rises from 0 in the first block to `drop_path` in the last; the
    others are scaled up, so that the mean stays. None where nothing is ever dropped.
    """
    if not drop_path:
        return None
    kept = 1 - drop_path * torch.arange(depth) / max(1, depth - 1)
    uniform = draws.uniform(depth * 2 * images).reshape(depth, 2, images)
    kept = kept.to(uniform.device)[:, None, None]
    return (uniform < kept) / kept


def _run(
    block: Block, x: Tensor, shared: Tensor | None, donates: bool, stays: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """One block: its output [B, N, C], and its softmax map if it has to make one."""
    a = block.scale_adjustment
    attended, softmax = attend(block.attn, block.norm1(x * a), shared, donates)
    if stays is not None:
        attended = _scaled(attended, stays[0])
    x = x + attended / a
    added = block.mlp(block.norm2(x * a))
    if stays is not None:
        added = _scaled(added, stays[1])
    return x + added / a, softmax


def attend(
    attention: Attention, x: Tensor, shared: Tensor | None = None, donates: bool = False
) -> tuple[Tensor, Tensor | None]:
    """What `Attention.forward` adds to the tokens, [B, N, C]; its softmax map where it is made."""
    q, k, v = attention.split(x)  # [B, H, N, D] each
    unseen = shared is None and not donates
    if unseen and x.is_cuda and attention.reatten_matrix is None:
        # On a CPU, the backward pass of fused attention is many times slower than these steps.
        out = F.scaled_dot_product_attention(q, k, v, scale=attention.scale)
        return attention.merge(out), None
    if unseen and attention.training and isinstance(attention.var_norm, nn.BatchNorm2d):
        return attention.merge(mixed_and_normed(attention, attention.logits(q, k), v)), None
    softmax = attention.softmax(q, k) if shared is None else shared
    return attention.merge(attention.mix(softmax) @ v), softmax


def _scaled(x: Tensor, factors: Tensor) -> Tensor:
    """[B, N, C] times a factor for each image."""
    return x * factors[:, None, None].to(x.dtype)
