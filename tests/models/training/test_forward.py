"""The pass that training runs computes what the network computes, and what its gradients are."""

import copy
from typing import Any

import pytest
import torch

from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import Block, DeepViT
from models.training.draws import Draws
from models.training.forward import forward, stochastic_depth

TEST = ARCHITECTURES["deepvit_test"].config
CHANGES: dict[str, dict[str, Any]] = {
    "BatchNorm over heads": {},
    "LayerNorm over heads": {"reatten_layer_norm": True},
    "no norm": {"reatten_norm": False},
    "plain": {"reatten_blocks": ()},
    "reused attention": {"attention_donor": 0},
    "temperature, conv stem": {"softmax_temperatures": (2.0,) * 3, "stem": "conv"},
}


def network(**changes: Any) -> DeepViT:
    torch.manual_seed(0)
    made = DeepViT(DeepViTConfig(**TEST.model_dump() | changes)).double().train()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def blocks(made: DeepViT) -> list[Block]:
    return [block for block in made.blocks if isinstance(block, Block)]


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_answers_gradients_and_statistics_are_those_of_the_network(changes: dict[str, Any]) -> None:
    reference = network(**changes)
    trained = copy.deepcopy(reference)
    images = torch.randn(5, 3, 32, 32, dtype=torch.double)
    for _ in range(2):  # statistics run on
        expected, found = reference(images), forward(trained, images)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        gradient = torch.randn_like(expected)
        expected.backward(gradient)
        found.backward(gradient)
    for (name, one), other in zip(reference.named_parameters(), trained.parameters(), strict=True):
        assert one.grad is not None
        if name.endswith("reatten_matrix.bias") and other.grad is None:
            assert one.grad.abs().max() < 1e-10  # the norm removes it
        else:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-9, atol=1e-10)
    statistics = zip(trained.buffers(), reference.buffers(), strict=True)
    for kept, right in statistics:
        torch.testing.assert_close(kept, right, rtol=1e-10, atol=1e-12)


def test_nearly_uniform_maps_keep_their_differences_under_autocast() -> None:
    """Rounded to bfloat16, entries of such maps would be equal."""
    exact = network()
    for block in blocks(exact):
        qkv = block.attn.qkv
        torch.nn.init.normal_(qkv.weight[: 2 * TEST.embed_dim], std=0.02)
        torch.nn.init.zeros_(qkv.bias[: 2 * TEST.embed_dim])
    rounded = copy.deepcopy(exact).float()
    images = torch.randn(16, 3, 32, 32, dtype=torch.double)
    expected = forward(exact, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = forward(rounded, images.float())
    apart = (found.double() - expected).norm() / (expected - expected.mean(dim=0)).norm()
    assert apart < 0.1


def test_stochastic_depth_skips_what_a_block_adds_for_some_images() -> None:
    trained = network(reatten_blocks=(), depth=2)
    last = blocks(trained)[-1]
    torch.nn.init.zeros_(last.mlp.fc2.weight)
    torch.nn.init.zeros_(last.mlp.fc2.bias)
    images = torch.randn(1, 3, 32, 32, dtype=torch.double).expand(64, -1, -1, -1)
    answers = forward(trained, images, stochastic_depth(2, 0.5, 64, drawn()))
    kinds = answers.detach().round(decimals=6).unique(dim=0, return_counts=True)[1]
    assert len(kinds) == 2  # all images are the same: they differ in the last block alone
    assert 16 < kinds[0] < 48
    torch.testing.assert_close(forward(trained, images), trained(images))


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("mixing", [(), TEST.reatten_blocks], ids=["plain", "re-attention"])
def test_it_is_compiled_once(mixing: tuple[int, ...]) -> None:
    """Numbers that change from step to step would compile it anew."""
    trained = network(reatten_blocks=mixing)
    compiled = torch.compile(forward, dynamic=False, backend="eager")
    images = torch.randn(4, 3, 32, 32, dtype=torch.double)
    graphs = []
    for step in range(4):
        stays = stochastic_depth(TEST.depth, 0.5, 4, Draws(0, step, torch.device("cpu")))
        found = compiled(trained, images, stays)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        torch.testing.assert_close(found, forward(trained, images, stays))
    assert graphs[1] > 0  # a second step may compile what broke off in the first one
    assert graphs[1] == graphs[2] == graphs[3]


def drawn() -> Draws:
    return Draws(0, 0, torch.device("cpu"))
