"""Inputs and patches that are not square: what tells their size, and what if nothing does."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save_file

from models import checkpoint
from models.checkpoint import CheckpointError
from models.size import Size
from tests.models.test_names import plain
from tests.support.formats import facts_of, tensors_of

NINE_BY_SIXTEEN = plain(img_size=(144, 256), patch_size=16)  # 144 patches, as 12 x 12
NAME = "vit_tiny_patch16_224"


@pytest.mark.parametrize(
    "said",
    [
        {"model_args": {"img_size": [144, 256]}},
        {"pretrained_cfg": {"input_size": [3, 144, 256]}},
        {"pretrained_cfg": {"input_size": [3, 224, 224]}, "model_args": {"img_size": [144, 256]}},
    ],
)
def test_the_size_that_a_folder_of_timm_states(said: dict[str, Any], tmp_path: Path) -> None:
    save_file(NINE_BY_SIXTEEN, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": NAME} | said))
    found = checkpoint.load(tmp_path)
    assert found.config.img_size == found.preprocessing.size == Size(144, 256)
    assert found.config.grid == Size(9, 16)


@pytest.mark.parametrize("arguments", [{"img_size": [144, 256]}, {"input_size": [3, 144, 256]}])
def test_the_size_in_training_arguments(arguments: dict[str, Any], tmp_path: Path) -> None:
    content = {"state_dict": NINE_BY_SIXTEEN, "arch": NAME, "args": argparse.Namespace(**arguments)}
    torch.save(content, tmp_path / "model.pth")
    assert checkpoint.load(tmp_path / "model.pth").config.img_size == Size(144, 256)


def test_a_square_is_not_guessed_where_the_name_says_another_count(tmp_path: Path) -> None:
    torch.save({"state_dict": NINE_BY_SIXTEEN, "arch": NAME}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"144 patches of 16 x 16, but vit_tiny_patch16_224"):
        checkpoint.load(tmp_path / "model.pth")
    told = checkpoint.load(tmp_path / "model.pth", img_size=(144, 256))
    assert told.config.img_size == Size(144, 256)
    assert torch.equal(told.weights["pos_embed"], NINE_BY_SIXTEEN["pos_embed"])
    with pytest.raises(CheckpointError, match=r"144 patches of 16 x 16, but --img-size says"):
        checkpoint.load(tmp_path / "model.pth", img_size=(160, 256))


def test_a_square_is_assumed_with_a_note_where_nothing_is_said(tmp_path: Path) -> None:
    torch.save(NINE_BY_SIXTEEN, tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", num_heads=3)
    assert found.config.img_size == Size.of(192)
    note = "a square grid assumed: 144 patches of 16 x 16 are 192 x 192 pixels"
    assert note in found.notes
    told = checkpoint.load(tmp_path / "model.pth", num_heads=3, img_size=(144, 256))
    assert told.config.grid == Size(9, 16)
    assert note not in told.notes
    torch.save(plain(img_size=(64, 48), patch_size=16), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="12 patches, which is not a square grid"):
        checkpoint.load(tmp_path / "model.pth", num_heads=3)


def test_positions_of_another_shape_are_interpolated(tmp_path: Path) -> None:
    """From 9 x 16 patches to twice as many in each direction."""
    torch.save(
        {"state_dict": NINE_BY_SIXTEEN, "args": argparse.Namespace(img_size=[144, 256])},
        tmp_path / "m.pth",
    )
    found = checkpoint.load(tmp_path / "m.pth", num_heads=3, img_size=(288, 512))
    assert found.config.grid == Size(18, 32)
    assert "trained at 144 x 256 pixels: positions interpolated to 288 x 512" in found.notes
    saved = tmp_path / "again.safetensors"
    checkpoint.save(saved, found)
    assert checkpoint.load(saved).config == found.config


def test_patches_that_are_not_square(tmp_path: Path) -> None:
    """A convolution has its shape; vit-pytorch's flat patches have none."""
    wide = plain(img_size=(64, 256), patch_size=(8, 32))
    torch.save(wide, tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", num_heads=3)
    assert found.config.patch_size == Size(8, 32)
    assert found.config.img_size == Size(64, 256)  # 8 x 8 patches
    name = "vit_pytorch_1.20.2_vit"
    torch.save(tensors_of(facts_of(name)), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"do not tell the input size.* pass --img-size"):
        checkpoint.load(tmp_path / "model.pth", num_heads=3)
    with pytest.raises(CheckpointError, match="16 patches of 8 x 8, but --img-size says 64 x 64"):
        checkpoint.load(tmp_path / "model.pth", num_heads=3, img_size=64)
    guessed = checkpoint.load(tmp_path / "model.pth", num_heads=3, img_size=32)
    assert "RGB patches of 8 x 8 assumed, which the file does not say" in guessed.notes
    told = checkpoint.load(
        tmp_path / "model.pth", num_heads=3, img_size=(16, 64), patch_size=(4, 16)
    )
    assert (told.config.patch_size, told.config.grid) == (Size(4, 16), Size(4, 4))
    with pytest.raises(CheckpointError, match="192 values, and an RGB patch of 8 x 16 has 384"):
        checkpoint.load(tmp_path / "model.pth", num_heads=3, img_size=32, patch_size=(8, 16))


def test_a_hugging_face_folder_states_both_sides(tmp_path: Path) -> None:
    facts = facts_of("hugging_face_vit")
    save_file(tensors_of(facts), tmp_path / "model.safetensors")
    config = json.loads(facts["files"]["config.json"]) | {"image_size": [16, 64]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    processor = {"size": {"height": 16, "width": 64}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = checkpoint.load(tmp_path)
    assert found.config.grid == Size(2, 8)
    assert found.preprocessing.size == Size(16, 64)


def test_dinov2_is_served_at_the_size_of_its_processor(tmp_path: Path) -> None:
    """Its positions are for larger pictures than it is used on; transformers interpolates."""
    facts = facts_of("hugging_face_dinov2")
    save_file(tensors_of(facts), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(facts["files"]["config.json"])
    processor = {"size": {"shortest_edge": 28}, "crop_size": {"height": 24, "width": 24}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = checkpoint.load(tmp_path)
    assert found.config.img_size == Size.of(24)
    assert found.preprocessing.resize == Size.of(28)
    assert checkpoint.load(tmp_path, img_size=32).config.img_size == Size.of(32)


@pytest.mark.parametrize(
    ("value", "json_value"), [(224, "224"), ([224, 224], "224"), ((144, 256), "[144,256]")]
)
def test_a_square_is_one_number_in_json(value: int | Sequence[int], json_value: str) -> None:
    adapter = TypeAdapter(Size)
    size = adapter.validate_python(value)
    assert adapter.dump_json(size).decode() == json_value
    assert adapter.validate_json(json_value) == size


@pytest.mark.parametrize("value", [0, -1, [1], [1, 2, 3], [0, 5], "224", None, 1.5])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Size).validate_python(value)


def test_a_size_that_is_not_square_has_no_side() -> None:
    assert Size.of(16).side == 16
    with pytest.raises(ValueError, match="8 x 32 is not square"):
        _ = Size(8, 32).side
