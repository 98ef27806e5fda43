"""Interrupted runs go on: no file is lost or answered twice, and answers stay the same."""

import os
import signal
from pathlib import Path

import pytest

from tests.service.bulk.runs import finished, killed_after, part_names, rows_of, started


@pytest.fixture(scope="module")
def uninterrupted(
    pictures: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    output = tmp_path_factory.mktemp("uninterrupted") / "answers.parquet"
    finished(pictures, output, repository)
    return rows_of(output)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not(
    pictures: Path, repository: Path, tmp_path: Path, uninterrupted: list[dict[str, object]]
) -> None:
    output, kills = tmp_path / "answers.parquet", 0
    for parts in (1, 2, 1, 3):
        process = started(pictures, output, repository, part_images=20)
        kills += killed_after(parts, process, output)
    assert kills == 4
    done = len(rows_of(output))
    assert 7 * 20 <= done < 600
    said = finished(pictures, output, repository, part_images=20)
    assert f"going on after {done} files" in said
    assert "600 files, 0 of them unreadable" in said
    rows = rows_of(output)
    assert [row["path"] for row in rows] == [row["path"] for row in uninterrupted]
    assert [row["indices"] for row in rows] == [row["indices"] for row in uninterrupted]
    for row, other in zip(rows, uninterrupted, strict=True):
        # The same but for rounding: other images were in the batch.
        assert row["probabilities"] == pytest.approx(other["probabilities"], abs=2e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda one: one.name)
def test_a_signal_ends_a_run_that_goes_on_later(
    number: signal.Signals, pictures: Path, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.parquet"
    with started(pictures, output, repository, part_images=20) as process:
        while not part_names(output):
            assert process.poll() is None
        os.kill(process.pid, number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}; the same command goes on from here" in said
    rows = rows_of(output)
    assert f"{len(rows)} files, 0 of them unreadable" in said
    assert 20 <= len(rows) < 600
    assert not list(output.glob(".*.unfinished"))
    finished(pictures, output, repository, part_images=20)
    assert len({row["path"] for row in rows_of(output)}) == len(rows_of(output)) == 600


def test_files_that_came_later_are_answered_and_those_that_went_stay(
    repository: Path, pictures: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "folder", tmp_path / "answers.parquet"
    folder.mkdir()
    photo = (pictures / "0" / "000.jpg").read_bytes()
    for name in ("b.jpg", "d.jpg"):
        (folder / name).write_bytes(photo)
    finished(folder, output, repository)
    (folder / "b.jpg").unlink()
    for name in ("a.jpg", "c.jpg"):
        (folder / name).write_bytes(photo)
    assert "going on after 2 files" in finished(folder, output, repository)
    assert [Path(row["path"]).name for row in rows_of(output)] == [
        "a.jpg",
        "b.jpg",
        "c.jpg",
        "d.jpg",
    ]
    assert len(part_names(output)) == 2
    finished(folder, output, repository)
    assert len(part_names(output)) == 2, "a run with nothing to do writes nothing"
