"""Bulk inference on a real Ray: the answers of one process, and files that came later."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.service.bulk.runs import finished, part_names, rows_of
from tests.support.cluster import Cluster

KEPT = ("error", "labels", "indices")


def joining(cluster: Cluster) -> dict[str, Any]:
    """With engines for which there is room beside the cluster's own processes."""
    return {"ray_address": cluster.ray_address, "engine_cpus": 0.1}


@pytest.fixture(scope="module")
def folder(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("folder")
    for number in range(30):
        path = found / str(number % 2) / f"{number:02} of 30.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo)
    (found / "text.jpg").write_bytes(b"no picture")
    return found


def test_ray_answers_as_one_process_and_goes_on(
    cluster: Cluster, folder: Path, repository: Path, tmp_path: Path
) -> None:
    """From and to addresses, on a Ray that the run starts itself, and then on one that runs."""
    alone, output = tmp_path / "alone.parquet", tmp_path / "ray.parquet"
    finished(folder, alone, repository)
    settings: dict[str, Any] = {"ray": True, "engines": 2, "part_images": 8}
    said = finished(f"file://{folder}", f"file://{output}", repository, **settings)
    assert "31 files, 1 of them unreadable (1 unsupported-media)" in said
    assert len(part_names(output)) == 4
    for row, other in zip(rows_of(output), rows_of(alone), strict=True):
        assert row["path"] == f"file://{other['path']}"
        assert {name: row[name] for name in KEPT} == {name: other[name] for name in KEPT}
        if row["probabilities"]:  # the same but for rounding: batches differ
            assert row["probabilities"] == pytest.approx(other["probabilities"], abs=2e-6)
    lost = output / part_names(output)[0]
    lost.unlink()
    left = len(rows_of(output))
    assert left in (23, 24)
    shutil.copy(folder / "0" / "00 of 30.jpg", folder / "0" / "came later.jpg")
    settings |= joining(cluster)
    said = finished(f"file://{folder}", f"file://{output}", repository, **settings)
    assert f"going on after {left} files" in said
    assert len({row["path"] for row in rows_of(output)}) == len(rows_of(output)) == 32


@pytest.mark.slow
def test_folders_of_this_machine_are_read_and_written(
    cluster: Cluster, folder: Path, repository: Path, tmp_path: Path
) -> None:
    alone, output = tmp_path / "alone.parquet", tmp_path / "ray.parquet"
    (folder / "1" / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    finished(folder / "1", alone, repository)
    said = finished(folder / "1", output, repository, ray=True, **joining(cluster))
    assert "16 files, 1 of them unreadable (1 unreadable-file)" in said
    for row, other in zip(rows_of(output), rows_of(alone), strict=True):
        assert (row["path"], row["detail"]) == (other["path"], other["detail"])
        assert {name: row[name] for name in KEPT} == {name: other[name] for name in KEPT}


def test_another_run_and_a_wrong_place_are_refused_in_one_line(
    folder: Path, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.parquet"
    finished(folder / "1", output, repository)
    said = finished(folder / "1", output, repository, status=1, ray=True)
    assert "was begun with ray false, and this run has true" in said.splitlines()[-1]
    said = finished("nowhere://a/b", tmp_path / "other", repository, status=1, ray=True)
    assert "nowhere://a/b cannot be read" in said.splitlines()[-1]
