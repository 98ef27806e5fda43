"""Every format against the code it comes from, on the stored values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import checkpoint
from models.checkpoint import Checkpoint
from tests.models.formats import weights

STORED = {path.stem: path for path in (Path(__file__).parent / "formats").glob("*.npz")}
TOLERANCE = 1e-5


def facts_of(name: str) -> dict[str, Any]:
    with np.load(STORED[name]) as stored:
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
    return facts


def tensors_of(facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    drawn = weights.state_dict(facts["shapes"])
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


def written(folder: Path, name: str) -> Path:
    """The checkpoint as its users have it: a folder with JSON, or a file of weights."""
    facts = facts_of(name)
    if not facts["files"]:
        torch.save(tensors_of(facts), folder / "model.pth")
        return folder / "model.pth"
    for file, text in facts["files"].items():
        (folder / file).write_text(text)
    save_file(tensors_of(facts), folder / "model.safetensors")
    return folder


def assert_equal(found: Checkpoint, name: str) -> None:
    """Logits in single precision; maps in double, because a LayerNorm over three heads magnifies
    rounding where the heads agree."""
    images = torch.from_numpy(weights.random_images(found.config.img_size))
    with torch.inference_mode(), np.load(STORED[name]) as stored:
        single = found.network()(images)
        logits, traces = found.network().double().trace(images.double())
        assert np.abs(single.numpy() - stored["logits"]).max() < TOLERANCE
        assert np.abs(logits.numpy() - stored["logits"]).max() < TOLERANCE
        assert np.abs(stored["logits"]).max() > 0.1
        for stage in ("softmax", "reattention"):
            if stored[stage].size:
                maps = np.stack([getattr(trace, stage).numpy() for trace in traces])
                assert np.abs(maps - stored[stage]).max() < TOLERANCE, stage


@pytest.mark.parametrize("name", sorted(STORED))
def test_logits_and_maps_equal_those_of_the_code_base(name: str, tmp_path: Path) -> None:
    found = checkpoint.load(written(tmp_path, name), **facts_of(name)["flags"])
    assert_equal(found, name)
    checkpoint.save(tmp_path / "again.safetensors", found)
    assert_equal(checkpoint.load(tmp_path / "again.safetensors"), name)


def test_every_code_base_and_generation_is_there() -> None:
    begins = {"timm_vit", "timm_deit", "hugging_face_vit", "hugging_face_deit"}
    begins |= {
        f"vit_pytorch_{release}_{kind}"
        for release in ("0.40.2", "1.2.2", "1.20.2")
        for kind in ("deepvit", "vit")
    }
    assert all(any(name.startswith(begin) for name in STORED) for begin in begins)


@pytest.mark.parametrize("name", ["hugging_face_vit", "hugging_face_deit"])
def test_names_that_transformers_saves(name: str, tmp_path: Path) -> None:
    facts = facts_of(name)
    tensors = tensors_of(facts)
    path = written(tmp_path, name)
    assert facts["saved_as"].keys() != tensors.keys()
    saved = {key: tensors[of] for key, of in facts["saved_as"].items()}
    save_file(saved, path / "model.safetensors")
    assert_equal(checkpoint.load(path), name)
