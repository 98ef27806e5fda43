"""What is normal of a model is measured over a folder, or read from a file of the same model."""

from pathlib import Path

import numpy as np
import pytest

from export import reference
from export.pictures import Pictures
from models import drift
from models.arrays import Float64Array
from models.drift import WINDOW, Moments
from models.manifest import Manifest
from models.reference import Reference
from models.signals import Signals
from tests.support import small
from tests.support.crops import CHANGES, crops, save

NAME = "deepvit16-cifar10"
VERSION = small.REPOSITORY / NAME / "1"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.read((VERSION / "manifest.json").read_text())


@pytest.fixture(scope="module")
def measured(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = tmp_path_factory.mktemp("ordinary")
    save(folder, crops(250, seed=1))
    (folder / "broken.jpg").write_bytes(b"nothing")
    return reference.measure(VERSION / "explain.onnx", manifest, Pictures(folder), lambda _: None)


def deviations(manifest: Manifest, normal: Reference, folder: Path) -> Float64Array:
    signals = Signals(manifest)
    values = [
        of_image
        for of_image, _ in reference.values(
            VERSION / "explain.onnx", manifest, signals, Pictures(folder)
        )
    ]
    means = Moments.of(np.stack(values)).mean
    return drift.deviations(means, len(values), normal.moments(signals.names))


def test_other_pictures_of_the_same_kind_are_ordinary(
    manifest: Manifest, measured: Reference, tmp_path: Path
) -> None:
    save(tmp_path, crops(WINDOW, seed=2))
    assert drift.drift(deviations(manifest, measured, tmp_path)) < measured.threshold
    assert measured.images == 250
    assert sum(measured.class_shares) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_beyond_the_threshold(
    manifest: Manifest, measured: Reference, tmp_path: Path, change: str
) -> None:
    save(tmp_path, map(CHANGES[change], crops(WINDOW, seed=2)))
    assert drift.drift(deviations(manifest, measured, tmp_path)) > measured.threshold


def test_a_file_holds_what_was_measured(
    manifest: Manifest, measured: Reference, tmp_path: Path
) -> None:
    file = tmp_path / "reference.json"
    file.write_text(measured.model_dump_json())
    assert reference.read(file, manifest) == measured


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{}", "is not a reference"), ("cat", "is not a reference"), (None, "of another model")],
)
def test_another_file_is_refused(
    manifest: Manifest, measured: Reference, tmp_path: Path, text: str | None, reason: str
) -> None:
    other = measured.model_copy(update={"measures": measured.measures[1:]})
    file = tmp_path / "reference.json"
    file.write_text(other.model_dump_json() if text is None else text)
    with pytest.raises(ValueError, match=reason):
        reference.read(file, manifest)


def test_too_few_pictures_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    save(tmp_path, crops(10, seed=1))
    with pytest.raises(ValueError, match="at least 200 images"):
        reference.measure(VERSION / "explain.onnx", manifest, Pictures(tmp_path), lambda _: None)
