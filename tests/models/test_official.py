"""Our network against the official implementation, on the stored values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.config import ARCHITECTURES
from models.deepvit import DeepViT
from tests.models.official import weights

STORED = {path.stem: path for path in (Path(__file__).parent / "official").glob("*.npz")}


def test_every_published_architecture_has_stored_values() -> None:
    ours = {"deepvit_patch4_32_re_attn_16b", "deepvit_patch16_112_re_attn_16b", "deepvit_test"}
    published = {name for name in ARCHITECTURES if name.startswith("deepvit_")}
    assert STORED.keys() == published - ours


@pytest.mark.parametrize("name", sorted(STORED))
def test_logits_and_every_map_equal_the_official_ones(name: str) -> None:
    config = ARCHITECTURES[name].config
    network = DeepViT(config).eval()
    state = network.state_dict()
    drawn = weights.state_dict({key: tuple(value.shape) for key, value in state.items()})
    network.load_state_dict({key: torch.from_numpy(value) for key, value in drawn.items()})
    images = torch.from_numpy(weights.random_images(config.img_size.side))
    with torch.inference_mode():
        logits, traces = network.trace(images)

    with np.load(STORED[name]) as official:
        assert sum(p.numel() for p in network.parameters()) == official["parameters"]
        assert np.abs(logits.numpy() - official["logits"]).max() < 1e-5
        for stage, maps in {
            "softmax": [trace.softmax.numpy() for trace in traces],
            "attention": [trace.reattention.numpy() for trace in traces],
        }.items():
            entries = np.stack([weights.sample(block) for block in maps])
            probes = np.stack([weights.probe(block) for block in maps])
            assert np.abs(entries - official[stage]).max() < 1e-5
            assert np.abs(probes - official[f"{stage}_probe"]).max() < 1e-5
