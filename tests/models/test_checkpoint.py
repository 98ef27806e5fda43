"""Reading checkpoints: what is inferred, what is asked for, what is refused."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import checkpoint
from models.checkpoint import CheckpointError
from models.config import ARCHITECTURES
from models.deepvit import DeepViT
from models.formats import Source
from models.formats.architecture import infer
from models.preprocess import Preprocessing
from models.size import Size

CONFIG = ARCHITECTURES["deepvit_test"].config
Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    torch.manual_seed(0)
    return DeepViT(CONFIG).state_dict()


def saved(folder: Path, content: Any, name: str = "model.pth") -> Path:
    torch.save(content, folder / name)
    return folder / name


def test_official_container_with_namespace_and_module_prefix(
    tmp_path: Path, weights: Weights
) -> None:
    container = {
        "state_dict": {f"module.{key}": value for key, value in weights.items()},
        "arch": "deepvit_test",
        "args": argparse.Namespace(img_size=32, mean=[0.1, 0.2, 0.3], crop_pct=0.8, lr=1e-3),
        "epoch": 3,
        "metric": np.float64(71.5),
    }
    found = checkpoint.load(saved(tmp_path, container))
    assert found.config == CONFIG
    assert found.preprocessing == Preprocessing(
        size=Size.of(32), crop_pct=0.8, mean=(0.1, 0.2, 0.3)
    )
    assert all(torch.equal(found.weights[key], weights[key]) for key in weights)


def test_averaged_weights_are_preferred(tmp_path: Path, weights: Weights) -> None:
    averaged = {key: value + 1 for key, value in weights.items()}
    path = saved(tmp_path, {"state_dict": weights, "state_dict_ema": averaged})
    found = checkpoint.load(path, arch="deepvit_test")
    assert torch.equal(found.weights["head.bias"], weights["head.bias"] + 1)


def test_bare_state_dict_takes_the_rest_from_flags(tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path, weights)
    with pytest.raises(CheckpointError, match=r"--reatten-scale VALUE --scale-adjustment VALUE"):
        checkpoint.load(path)
    found = checkpoint.load(path, reatten_scale=0.7, scale_adjustment=0.5)
    assert found.config == CONFIG


def test_plain_network_needs_only_its_heads(tmp_path: Path) -> None:
    plain = CONFIG.model_copy(
        update={"reatten_blocks": (), "reatten_scale": 1.0, "scale_adjustment": 1.0}
    )
    path = saved(tmp_path, DeepViT(plain).state_dict())
    with pytest.raises(CheckpointError, match="do not determine num_heads"):
        checkpoint.load(path)
    assert checkpoint.load(path, num_heads=3).config == plain


def test_missing_batch_norm_is_a_network_without_one(tmp_path: Path, weights: Weights) -> None:
    bare = {key: value for key, value in weights.items() if "var_norm" not in key}
    found = checkpoint.load(saved(tmp_path, bare), arch="deepvit_test")
    assert not found.config.reatten_norm
    assert found.network().blocks[1].attn.var_norm is None  # type: ignore[union-attr]


def test_tensors_win_over_the_name_and_say_so(tmp_path: Path, weights: Weights) -> None:
    found = checkpoint.load(saved(tmp_path, weights), arch="deepvit_S")
    assert found.config.embed_dim == 24
    assert "embed_dim is 24 by the tensors, not 396" in found.notes


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_every_architecture_is_recognised_from_its_tensors(name: str) -> None:
    config = ARCHITECTURES[name].config
    with torch.device("meta"):
        tensors = DeepViT(config).state_dict()
    inferred = infer(Source("", tensors))
    assert {key: getattr(config, key) for key in inferred} == inferred


def test_safetensors_round_trip_keeps_everything(tmp_path: Path, weights: Weights) -> None:
    path = saved(tmp_path, {"state_dict": weights, "arch": "deepvit_test"})
    original = checkpoint.load(path)
    checkpoint.save(tmp_path / "model.safetensors", original)
    found = checkpoint.load(tmp_path / "model.safetensors")
    assert found.config == original.config
    assert found.preprocessing == original.preprocessing
    assert found.arch == "deepvit_test"
    assert all(torch.equal(found.weights[key], weights[key]) for key in weights)


def test_bare_safetensors(tmp_path: Path, weights: Weights) -> None:
    save_file(weights, tmp_path / "model.safetensors")
    assert checkpoint.load(tmp_path / "model.safetensors", arch="deepvit_test").config == CONFIG


def rename(weights: Weights) -> None:
    weights["blocks.0.attn.kqv.weight"] = weights.pop("blocks.0.attn.qkv.weight")


def reshape(weights: Weights) -> None:
    weights["blocks.2.mlp.fc2.weight"] = torch.zeros(24, 70)


def poison(weights: Weights) -> None:
    weights["head.bias"] = torch.full((7,), torch.nan)


def drop_block(weights: Weights) -> None:
    for key in [key for key in weights if key.startswith("blocks.1.")]:
        del weights[key]


def drop_patch(weights: Weights) -> None:
    weights["pos_embed"] = weights["pos_embed"][:, :-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename, r"missing: blocks.0.attn.qkv.weight; not part .*: blocks.0.attn.kqv.weight"),
        (reshape, r"blocks.2.mlp.fc2.weight \[24, 70\] instead of \[24, 72\]"),
        (poison, "not finite: head.bias"),
        (drop_block, r"missing: blocks.1.attn.proj.bias.* and \d+ more"),
        (drop_patch, "15 patches of 8 x 8, but --arch says 32 x 32 pixels"),
    ],
)
def test_wrong_tensors_are_named(
    tmp_path: Path, weights: Weights, damage: Callable[[Weights], None], message: str
) -> None:
    damage(weights)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(saved(tmp_path, weights), arch="deepvit_test")


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["DEEPVIT_ATTACK"],)


def test_a_malicious_pickle_is_refused_and_nothing_runs(
    tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPVIT_ATTACK", str(tmp_path / "owned"))
    path = saved(tmp_path, {"state_dict": weights, "args": Attack()})
    with pytest.raises(CheckpointError, match=r"would call posix.mkdir. Nothing was executed"):
        checkpoint.load(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_truncated_files_are_refused(
    tmp_path: Path, weights: Weights, suffix: str, share: float
) -> None:
    path = saved(tmp_path, weights)
    if suffix == ".safetensors":
        path = tmp_path / "model.safetensors"
        save_file(weights, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=f"model{suffix}"):
        checkpoint.load(path)


def test_other_objects_and_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a file"):
        checkpoint.load(tmp_path / "nothing.pth")
    with pytest.raises(CheckpointError, match="holds a list"):
        checkpoint.load(saved(tmp_path, [1, 2]))
    with pytest.raises(CheckpointError, match="holds no tensors"):
        checkpoint.load(saved(tmp_path, {"epoch": 1}))
    with pytest.raises(CheckpointError, match="not a state dict of a known format"):
        checkpoint.load(saved(tmp_path, {"conv.weight": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="no architecture 'resnet'; known: deepvit_patch16"):
        checkpoint.load(saved(tmp_path, {"a": torch.zeros(1)}), arch="resnet")
