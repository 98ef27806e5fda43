"""What the name of an architecture, config.json and training arguments say beyond tensors."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models import checkpoint
from models.checkpoint import CheckpointError
from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.formats import timm_names
from models.size import Size
from tests.models.formats import weights
from tests.support.formats import STORED, facts_of, tensors_of

SWEEP = Path(__file__).parent / "formats" / "timm_sweep.json"


def plain(**changes: Any) -> dict[str, Tensor]:
    """The state dict of a plain ViT, two blocks deep, which is timm's too."""
    facts: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 192, "num_heads": 3}
    facts |= {"depth": 2, "num_classes": 5, "mlp_ratio": 4.0}
    return DeepViT(DeepViTConfig(**facts | changes)).state_dict()


def container(folder: Path, tensors: dict[str, Tensor], arch: str | None, **arguments: Any) -> Path:
    """As timm's training script saves it."""
    content = {"state_dict": tensors, "args": argparse.Namespace(**arguments)}
    if arch is not None:
        content["arch"] = arch
    torch.save(content, folder / "model_best.pth.tar")
    return folder / "model_best.pth.tar"


def test_heads_activation_and_eps_come_from_the_name(tmp_path: Path) -> None:
    name = "vit_base_patch32_clip_quickgelu_224"
    path = container(tmp_path, plain(embed_dim=768, norm_pre=True), name)
    found = checkpoint.load(path)
    assert found.arch == name
    assert found.config.num_heads == 12
    assert found.config.activation == "quick_gelu"
    assert found.config.layer_norm_eps == 1e-5
    assert found.preprocessing.mean[0] == 0.48145466


def test_quick_gelu_is_computed_as_timm_computes_it(tmp_path: Path) -> None:
    """The same tensors under the name with QuickGELU, and under the one without."""
    name, size = "timm_quick_gelu", Size.of(32)
    tensors = tensors_of(facts_of(name))
    images = torch.from_numpy(weights.random_images(size)).double()
    answers = {}
    for arch in ("vit_base_patch32_clip_quickgelu_224", "vit_base_patch32_clip_224"):
        found = checkpoint.load(container(tmp_path, tensors, arch), num_heads=3)
        answers[arch] = found.network().double()(images).numpy()
    with np.load(STORED[name]) as stored:
        quick, plain_gelu = (np.abs(one - stored["logits"]).max() for one in answers.values())
    assert quick < 1e-5 < plain_gelu


def test_heads_of_a_name_that_the_tensors_contradict_are_not_taken(tmp_path: Path) -> None:
    path = container(tmp_path, plain(embed_dim=384, num_heads=6), "vit_tiny_patch16_224")
    with pytest.raises(CheckpointError, match=r"do not determine num_heads: .* have 6 heads\)"):
        checkpoint.load(path)


def test_heads_from_the_arguments_of_the_model(tmp_path: Path) -> None:
    save_file(plain(embed_dim=384, num_heads=6), tmp_path / "model.safetensors")
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"embed_dim": 384, "num_heads": 6, "img_size": [32, 32]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(tmp_path).config.num_heads == 6


def test_what_timm_called_small_before_has_eight_heads(tmp_path: Path) -> None:
    old = plain(embed_dim=768, num_heads=8, mlp_ratio=3.0, depth=8, qkv_bias=False)
    found = checkpoint.load(container(tmp_path, old, "vit_small_patch16_224"), img_size=32)
    assert found.config.num_heads == 8
    assert found.config.layer_norm_eps == 1e-5
    assert any("before 0.4.6" in note for note in found.notes)
    new = plain(embed_dim=384, num_heads=6)
    found = checkpoint.load(container(tmp_path, new, "vit_small_patch16_224"))
    assert (found.config.num_heads, found.config.layer_norm_eps) == (6, 1e-6)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vit_small_patch16_rope_ape_224", "rotary position embeddings"),
        ("vit_giant_patch14_dinov2", "a gated MLP"),
        ("vit_base_patch16_18x2_224.anything", "parallel branches"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_name(name: str, part: str, tmp_path: Path) -> None:
    """The tensors are those of a plain ViT; only the name tells."""
    with pytest.raises(CheckpointError, match=f"{name.partition('.')[0]} has {part}"):
        checkpoint.load(container(tmp_path, plain(), name), num_heads=3)
    save_file(plain(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(CheckpointError, match=f"has {part}"):
        checkpoint.load(tmp_path, num_heads=3)


def test_an_unknown_name_is_said(tmp_path: Path) -> None:
    found = checkpoint.load(container(tmp_path, plain(), "our_vit_17"), num_heads=3)
    assert found.arch is None
    assert any(
        note.startswith("warning: the file names its architecture our_vit_17, which is not known")
        for note in found.notes
    )
    found = checkpoint.load(container(tmp_path, plain(), None), num_heads=3)
    assert any("does not name its architecture" in note for note in found.notes)


def test_a_name_of_timm_may_be_given(tmp_path: Path) -> None:
    path = container(tmp_path, plain(), None)
    found = checkpoint.load(path, arch="vit_tiny_patch16_384", img_size=32)
    assert found.config.num_heads == 3
    assert found.preprocessing.crop_pct == 1.0
    with pytest.raises(CheckpointError, match="rotary"):
        checkpoint.load(path, arch="vit_small_patch16_rope_224")


COLLIDING: dict[str, Any] = {
    "pool": "avg",
    "interpolation": "random",
    "mean": 0.5,
    "crop_pct": 1.13,
    "num_heads": "many",
}


@pytest.mark.parametrize("key", COLLIDING)
def test_arguments_that_mean_something_else_are_noted_and_left_out(
    key: str, tmp_path: Path
) -> None:
    path = container(tmp_path, plain(), "vit_tiny_patch16_224", **{key: COLLIDING[key]})
    found = checkpoint.load(path)
    without = checkpoint.load(container(tmp_path, plain(), "vit_tiny_patch16_224"))
    assert found.config == without.config
    assert found.preprocessing == without.preprocessing
    assert any(note.startswith(f"{key} ") and note.endswith("not used") for note in found.notes)


@pytest.mark.parametrize(
    ("arguments", "resize"),
    [({}, 256), ({"eval_crop_ratio": 0.875}, 256), ({"eval_crop_ratio": 1.0}, 224)],
)
def test_the_crop_of_deit_is_that_of_its_script(
    arguments: dict[str, float], resize: int, tmp_path: Path
) -> None:
    tensors = plain(img_size=224, patch_size=16)
    args = argparse.Namespace(model="deit_tiny_patch16_224", input_size=224, **arguments)
    torch.save({"model": tensors, "args": args}, tmp_path / "checkpoint.pth")
    found = checkpoint.load(tmp_path / "checkpoint.pth")
    assert found.preprocessing.resize == Size.of(resize)
    assert found.preprocessing.mean == (0.485, 0.456, 0.406)


def test_the_processor_of_clip_crops_unless_it_says_otherwise(tmp_path: Path) -> None:
    facts = facts_of("hugging_face_vit")
    save_file(tensors_of(facts), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(facts["files"]["config.json"])
    processor: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "resample": 3,
    }
    for more, resize in (({}, 36), ({"do_center_crop": False}, 32)):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | more))
        rule = checkpoint.load(tmp_path).preprocessing
        assert rule.resize == Size.of(resize)
        assert rule.resize_mode == "shorter_side"


@pytest.mark.parametrize(
    ("stated", "scores"),
    [
        ({}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
    ],
)
def test_several_labels_may_be_right(stated: dict[str, str], scores: str, tmp_path: Path) -> None:
    facts = facts_of("hugging_face_vit")
    save_file(tensors_of(facts), tmp_path / "model.safetensors")
    config = json.loads(facts["files"]["config.json"]) | stated
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert checkpoint.load(tmp_path).config.scores == scores
    assert checkpoint.load(tmp_path, scores="softmax").config.scores == "softmax"
    (tmp_path / "config.json").write_text(json.dumps(config | {"problem_type": "regression"}))
    with pytest.raises(CheckpointError, match="regression"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("arch", ["vit_tiny_patch16_224", "vit_patch16_224_16b"])
def test_one_logit_has_a_sigmoid(arch: str, tmp_path: Path) -> None:
    """Whatever architecture the file names; its own says nothing of the classes."""
    found = checkpoint.load(container(tmp_path, plain(num_classes=1), arch), num_heads=3)
    assert found.config.scores == "sigmoid"
    assert "one logit: its probability is a sigmoid" in found.notes


def test_every_name_of_timm_is_read_right_or_refused() -> None:
    """The recorded sweep (tests/models/formats/timm_names.py) covers the table, name by name."""
    table = json.loads(timm_names.FILE.read_text(encoding="utf-8"))
    swept: dict[str, str] = json.loads(SWEEP.read_text(encoding="utf-8"))["names"]
    assert swept.keys() == table.keys()
    for name, outcome in swept.items():
        assert outcome == "equal" or outcome.startswith("refused: "), (name, outcome)
        if "unsupported" in table[name]:
            assert table[name]["unsupported"] in outcome
    assert sum(outcome == "equal" for outcome in swept.values()) > 100
