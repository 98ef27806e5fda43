"""The exported folders kept in Git are what the bundled checkpoints export to today."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.bundled import differences
from tests.conftest import BUNDLED, VIT
from tests.support import small
from tests.support.server import ROOT

KEPT = ROOT / "model_repository"


def manifest(model: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((model / "1" / "manifest.json").read_text())
    return found


@pytest.mark.parametrize("name", BUNDLED)
def test_a_fresh_export_is_what_is_kept(fresh_repository: Path, name: str) -> None:
    one, other = KEPT / name, fresh_repository / name
    assert manifest(one)["exported_at"] != manifest(other)["exported_at"], "one and the same export"
    assert list(differences(one, other)) == [], "run `make export`, and commit what it changes"


@pytest.mark.parametrize("name", BUNDLED)
def test_no_path_of_the_exporting_machine_is_kept(name: str) -> None:
    for path in (KEPT / name).rglob("*.*"):
        assert b"site-packages" not in path.read_bytes()


@pytest.mark.parametrize("name", BUNDLED)
def test_files_are_small_enough_to_be_kept(name: str) -> None:
    for path in (ROOT / "models" / "zoo" / f"{name}.safetensors", KEPT / name / "1/weights.bin"):
        assert path.stat().st_size < 16 * 10**6


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(small.REPOSITORY / VIT, tmp_path / VIT))


def test_a_date_is_no_difference(copy: Path) -> None:
    (copy / "1" / "manifest.json").write_text(
        json.dumps(manifest(copy) | {"exported_at": "2000-01-01", "parity": []})
    )
    assert list(differences(small.REPOSITORY / VIT, copy)) == []


def test_labels_and_facts_of_the_manifest_are_compared(copy: Path) -> None:
    (copy / "labels.txt").write_text("cat\n")
    (copy / "1" / "manifest.json").write_text(json.dumps(manifest(copy) | {"labels": ["cat"]}))
    found = list(differences(small.REPOSITORY / VIT, copy))
    assert found == ["another labels.txt", "another labels in the manifest"]


def test_nodes_and_their_attributes_are_compared(copy: Path) -> None:
    path = copy / "1" / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    epsilon = next(
        attribute
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "epsilon"
    )
    epsilon.f *= 2
    onnx.save(model, path)
    assert list(differences(small.REPOSITORY / VIT, copy)) == ["another node in a graph"]


@pytest.mark.parametrize(("factor", "differ"), [(1 + 1e-3, True), (1 + 2e-7, False)])
def test_weights_are_compared_within_the_tolerance(copy: Path, factor: float, differ: bool) -> None:
    path = copy / "1" / "weights.bin"
    weights = np.frombuffer(path.read_bytes(), np.float32) * np.float32(factor)
    path.write_bytes(weights.tobytes())
    found = list(differences(small.REPOSITORY / VIT, copy))
    assert bool(found) == differ
