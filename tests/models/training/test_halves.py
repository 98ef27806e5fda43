"""Rounding to halves: before it, nothing changes; after it, the exported matrices are halves."""

import torch

from export.fold import FoldedDeepViT
from models.config import ARCHITECTURES
from models.deepvit import Block
from models.training import halves
from models.training.__main__ import architecture
from tests.support.networks import random_network

ARCH = "deepvit_patch16_112_re_attn_16b"


def test_gains_move_and_matrices_are_halves() -> None:
    network = random_network(architecture(ARCH, {"depth": "2"}, 10)).eval()
    found = halves.halved(network)
    images = torch.randn(4, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(found(images), network(images), atol=0.02, rtol=0.02)
    assert not torch.equal(found.head.weight, network.head.weight)
    matrices = [value for value in found.parameters() if value.ndim > 1]
    assert all(torch.equal(value, value.half().float()) for value in matrices)
    folded = dict(FoldedDeepViT(found, ARCHITECTURES[ARCH].preprocessing).named_parameters())
    large = {name: value for name, value in folded.items() if value.numel() > 10_000}
    others = {name for name, value in large.items() if not torch.equal(value, value.half().float())}
    # The scale of the scores goes into Q, the norms of the stem into its convolutions.
    assert others == {"blocks.0.q.weight", "blocks.1.q.weight", "patch_embed.conv2.weight"}


def test_moving_gains_changes_no_answer() -> None:
    network = random_network(ARCHITECTURES["deepvit_test"].config).double().eval()
    images = torch.randn(2, 3, *network.config.img_size).double()
    with torch.no_grad():
        before = network(images)
        block = network.blocks[0]
        assert isinstance(block, Block)
        halves._move_gain(block.norm1, block.attn.qkv)
        assert network.norm is not None
        halves._move_gain(network.norm, network.head)
        assert torch.equal(block.norm1.weight, torch.ones_like(block.norm1.weight))
        torch.testing.assert_close(network(images), before)
