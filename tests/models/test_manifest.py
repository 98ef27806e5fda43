"""Manifests of earlier versions are read; those of later ones are refused by what they add."""

import json
from pathlib import Path
from typing import Any

import pytest

from models.manifest import (
    Manifest,
    ManifestError,
    NewerManifest,
    is_model_name,
    version_folders,
)
from models.size import Size
from tests.support.server import ROOT

# As vit16-cifar10 was exported before sizes were pairs and scores could be sigmoids.
EARLIER = (ROOT / "tests" / "data" / "earlier_manifest.json").read_text()


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(EARLIER) | changes)


def config(**changes: Any) -> dict[str, Any]:
    return {"config": json.loads(EARLIER)["config"] | changes}


def test_a_manifest_of_an_earlier_version_means_what_it_meant() -> None:
    new = {"class_token", "scores", "activation", "last_norm"}
    assert not new & json.loads(EARLIER)["config"].keys()
    found = Manifest.read(EARLIER)
    assert found.config.img_size == found.preprocessing.size == Size(32, 32)
    assert found.config.grid == Size(8, 8)
    assert found.config.default_query == "cls"
    assert (found.config.scores, found.config.activation) == ("softmax", "gelu")
    assert found.output("class_rows", "softmax").shape == (16, 6, 65)


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        (changed(schema_version=2), "schema_version 2"),
        (changed(camera="front"), "camera"),
        (changed(**config(pool="deep", rotary=True)), "config.pool 'deep', config.rotary"),
        (
            changed(outputs=[one | {"unit": ""} for one in json.loads(EARLIER)["outputs"]]),
            "outputs.unit",
        ),
    ],
)
def test_what_a_later_version_adds_is_told_in_one_line(text: str, unknown: str) -> None:
    with pytest.raises(NewerManifest) as caught:
        Manifest.read(text)
    message = "a newer version wrote the manifest, with what this one does not know: "
    assert str(caught.value) == message + unknown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the manifest: Invalid JSON"),
        (changed(labels=3), "labels: "),
        (changed(**config(img_size=[32])), "config.img_size"),
        (changed(**config(patch_size=5)), "config: Value error, patches of 5 x 5 do not divide"),
        (changed(**config(mlp_ratio=float("inf"))), "config.mlp_ratio: "),
        (changed(name="stats"), "the manifest: Value error, 'stats' is not the name of a model"),
        (changed(labels=["cat"]), "the manifest: Value error, 1 labels for 10 classes"),
        (changed(outputs=["x"] * 1000), "outputs: "),
    ],
)
def test_a_damaged_manifest_is_told_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ManifestError, match=f"^{message}") as caught:
        Manifest.read(text)
    assert not isinstance(caught.value, NewerManifest)
    assert "\n" not in str(caught.value)


def test_only_the_first_of_many_errors_are_told() -> None:
    names = [f"field_{number}" for number in range(1000)]
    with pytest.raises(NewerManifest) as caught:
        Manifest.read(changed(**dict.fromkeys(names), **{"x" * 10**6: 1}))
    assert str(caught.value).endswith("field_0, field_1, field_2, field_3, field_4 and 996 more")


@pytest.mark.parametrize("name", ["a", "deepvit16-photos", "0", "A.b_c-d", "x" * 64, "Stats"])
def test_names_of_models(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "stats", "x" * 65, "é", "模型", "\u0661"],
)
def test_names_that_no_model_may_have(name: str) -> None:
    assert not is_model_name(name)


def test_folders_of_versions_are_plain_numbers(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "01", "0", "-1", "1.0", "\u0661", "x", ".1", "1" * 19):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in version_folders(tmp_path)] == ["1", "9", "10"]
    assert version_folders(tmp_path / "missing") == []
