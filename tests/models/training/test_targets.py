"""Soft labels are found by name; a teacher's share of the loss is what the recipe says."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.training.photographs import Files, PhotographsError
from models.training.recipe import Recipe
from models.training.targets import loss, soft_labels

FILES = Files(
    names=("cat/1.jpg", "big_dog/2.jpg"),
    data=(b"", b""),
    classes=("big dog", "cat"),
    labels=torch.tensor([1, 0]),
)


def saved(path: Path, names: list[str], classes: list[str]) -> Path:
    logits = np.arange(len(names) * len(classes), dtype=np.float16).reshape(len(names), -1)
    np.savez(path, names=np.array(names), classes=np.array(classes), class_logits=logits)
    return path


def test_soft_labels_are_sorted_as_the_pictures_and_classes_are(tmp_path: Path) -> None:
    path = saved(
        tmp_path / "soft.npz",
        ["bird/0.jpg", "big_dog/2.jpg", "cat/1.jpg"],
        ["cat", "bird", "big dog"],
    )
    assert soft_labels(path, FILES).tolist() == [[8, 6], [5, 3]]


def test_a_picture_without_a_soft_label_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "soft.npz", ["cat/1.jpg"], ["cat", "big dog"])
    with pytest.raises(PhotographsError, match=r"knows nothing of big_dog/2\.jpg"):
        soft_labels(path, FILES)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "soft.npz").write_bytes(b"PK")
    with pytest.raises(PhotographsError, match="does not hold soft labels"):
        soft_labels(tmp_path / "soft.npz", FILES)


def test_the_loss_is_the_share_of_both() -> None:
    logits, labels = torch.randn(3, 2), torch.eye(3)[:, :2]
    teacher = torch.rand(3, 2).softmax(dim=1)
    recipe = Recipe(distill=0.25, distill_temperature=2.0)
    hard = F.cross_entropy(logits, labels)
    soft = F.cross_entropy(logits / 2, teacher) * 4
    torch.testing.assert_close(loss(logits, labels, None, recipe), hard)
    torch.testing.assert_close(loss(logits, labels, teacher, recipe), 0.75 * hard + 0.25 * soft)
