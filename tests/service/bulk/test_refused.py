"""What ends a run: one clear line, and nothing is written that does not belong there."""

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from service.bulk.model import load_model
from service.bulk.run import answer
from service.bulk.settings import BulkSettings
from service.errors import InferenceFailed
from tests.conftest import DEEPVIT, VIT
from tests.service.bulk.runs import finished, rows_of, started


@pytest.fixture(scope="module")
def begun(photo: bytes, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures`, and `answers.parquet` about them."""
    folder = tmp_path_factory.mktemp("begun")
    for name in ("pictures", "others"):
        (folder / name).mkdir()
        (folder / name / "cat.jpg").write_bytes(photo)
    finished(folder / "pictures", folder / "answers.parquet", repository)
    return folder


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": VIT}, f'was begun with model "{DEEPVIT}", and this run has "{VIT}"'),
        ({"top_k": 3}, "was begun with top_k 5, and this run has 3: write to another folder"),
        ({"logits": True}, "was begun with shapes {}, and this run has"),
        ({"image_formats": "jpeg"}, "was begun with image_formats"),
        ({"source": "others"}, "was begun with source"),
    ],
    ids=["model", "option", "columns", "formats", "source"],
)
def test_another_run_does_not_go_on_with_it(
    changed: dict[str, Any], said: str, begun: Path, repository: Path
) -> None:
    before = rows_of(begun / "answers.parquet")
    source = begun / str(changed.get("source", "pictures"))
    settings = {name: value for name, value in changed.items() if name != "source"}
    line = finished(source, begun / "answers.parquet", repository, status=1, **settings)
    assert said in line.splitlines()[-1]
    assert rows_of(begun / "answers.parquet") == before


def test_another_export_of_the_same_version_does_not_go_on_with_it(
    begun: Path, repository: Path, tmp_path: Path
) -> None:
    output = tmp_path / "answers.parquet"
    shutil.copytree(begun / "answers.parquet", output)
    plan = json.loads((output / "_plan.json").read_text())
    assert len(plan["export"]) == 64
    (output / "_plan.json").write_text(json.dumps(plan | {"export": "0" * 64}))
    said = finished(begun / "pictures", output, repository, status=1)
    assert f'was begun with export "{"0" * 64}"' in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "nobody"}, "no model nobody in "),
        ({"version": 7}, f"no version 7 of model {DEEPVIT} in "),
        ({"top_k": 0}, "wrong setting: top_k"),
        ({"source": "nowhere"}, "nowhere cannot be read: No such file or directory"),
        ({"output": "pictures/answers.parquet"}, "is in the folder that is read"),
        ({"output": "others"}, "others has files that no run has written"),
    ],
    ids=["model", "version", "setting", "source", "output inside", "output of others"],
)
def test_what_cannot_work_is_told_in_one_line(
    settings: dict[str, Any], said: str, begun: Path, repository: Path
) -> None:
    places = {"source": "pictures", "output": "new.parquet"}
    source, output = (begun / str(settings.get(name, there)) for name, there in places.items())
    rest = {name: value for name, value in settings.items() if name not in places}
    line = finished(source, output, repository, status=1, **rest).splitlines()[-1]
    assert line.startswith("service.bulk: ")
    assert said in line


def test_a_model_that_fails_ends_the_run(
    begun: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = BulkSettings(  # type: ignore[call-arg]
        source=str(begun / "pictures"),
        output=str(tmp_path / "answers.parquet"),
        model=DEEPVIT,
        model_repository=repository,
        intra_op_threads=1,
    )
    model = load_model(settings)

    def fail(_: object) -> NoReturn:
        raise RuntimeError("out of order")

    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "classify", fail)
        with pytest.raises(InferenceFailed):
            answer(settings, model)
    assert answer(settings, model) == 0, "a model that works again goes on"
    model.stop()
    (row,) = rows_of(tmp_path / "answers.parquet")
    assert row["error"] is None


def test_two_runs_do_not_write_to_one_folder(begun: Path, repository: Path, tmp_path: Path) -> None:
    output = tmp_path / "answers.parquet"
    with started("-", output, repository) as first:
        while not (output / "_plan.json").exists():
            assert first.poll() is None
        said = finished("-", output, repository, status=1)
        assert "another run is writing to" in said
        _, said = first.communicate(f"{begun / 'pictures' / 'cat.jpg'}\n", timeout=60)
    assert first.returncode == 0, said
    assert len(rows_of(output)) == 1
