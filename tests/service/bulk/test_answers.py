"""What a bulk run writes: the answers of the server, the files without one, and why."""

import io
import json
import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from PIL import Image

from models.manifest import Manifest
from tests.conftest import DEEPVIT
from tests.service.bulk.runs import finished, rows_of

_ON_REQUEST = ("logits", "features", "class_rows", "similarity", "token_measures")


def test_answers_are_those_of_the_server(
    pictures: Path, repository: Path, client: httpx.Client, tmp_path: Path
) -> None:
    paths = [pictures / "0" / "003.jpg", pictures / "1" / "004.jpg"]
    listed, output = tmp_path / "list.txt", tmp_path / "answers.parquet"
    listed.write_text("".join(f"{path}\n" for path in paths))
    finished(listed, output, repository, top_k=3)
    for row, path in zip(rows_of(output), paths, strict=True):
        answer = client.post(
            f"/classify?model={DEEPVIT}&top_k=3", files={"image": path.read_bytes()}
        )
        predictions = answer.json()["results"][0]["predictions"]
        assert row["path"] == str(path)
        assert row["indices"] == [one["index"] for one in predictions]
        assert row["labels"] == [one["label"] for one in predictions]
        # The same but for rounding: other images were in the batch.
        assert row["probabilities"] == pytest.approx(
            [one["probability"] for one in predictions], abs=2e-6
        )
        assert (row["error"], row["detail"]) == (None, None)


def test_columns_on_request_are_what_the_endpoints_answer(
    repository: Path, client: httpx.Client, photo: bytes, tmp_path: Path
) -> None:
    path, output = tmp_path / "cat.jpg", tmp_path / "answers.parquet"
    path.write_bytes(photo)
    wanted: dict[str, Any] = dict.fromkeys(_ON_REQUEST, True)
    finished("-", output, repository, stdin=f"{path}\n", **wanted)
    (row,) = rows_of(output)
    manifest = Manifest.read((repository / DEEPVIT / "1" / "manifest.json").read_text())
    shapes = json.loads((output / "_plan.json").read_text())["shapes"]
    posted = client.post(f"/classify?model={DEEPVIT}", files={"image": photo}).json()
    image = {"id": posted["results"][0]["id"], "model": DEEPVIT}
    assert np.argmax(row["logits"]) == posted["results"][0]["predictions"][0]["index"]
    for stage in ("softmax", "reattention"):
        query = {"stage": stage, "layer": "all", "head": "all", "query": "cls"}
        maps = client.get("/attention-maps", params=image | query).json()
        rows = np.reshape(row[f"class_rows_{stage}"], shapes[f"class_rows_{stage}"])
        np.testing.assert_allclose(rows, maps["values"], atol=1e-5)
        found = client.get("/similarity", params=image | {"stage": stage}).json()
        similar = row[f"neighbour_similarity_{stage}"]
        np.testing.assert_allclose(similar, found["neighbours"]["mean"], atol=1e-4)
    np.testing.assert_allclose(row["feature_similarity"], found["features"], atol=1e-4)
    assert len(row["rank_residual"]) == len(row["token_similarity"]) == manifest.config.depth
    head = onnx.load(repository / DEEPVIT / "1" / "model.onnx").graph
    weight, bias = (
        onnx.numpy_helper.to_array(one) for one in head.initializer if ".head." in one.name
    )
    assert shapes["features"] == [len(weight)]
    logits = np.array(row["features"]) @ weight + bias
    np.testing.assert_allclose(logits, row["logits"], atol=1e-5)


def test_files_without_an_answer_are_listed_with_the_reason(
    photo: bytes, repository: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "folder", tmp_path / "answers.parquet"
    folder.mkdir()
    for name, content in {
        "cut.jpg": photo[:2000],
        "empty.jpg": b"",
        "fine.jpg": photo,
        "fine.tiff": _tiff(),
        "large.jpg": photo + bytes(2**20),
        "text.jpg": b"no picture",
        ".hidden.jpg": photo,
    }.items():
        (folder / name).write_bytes(content)
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "pipe.jpg")
    said = finished(folder, output, repository, max_file_bytes=2**20, image_formats="jpeg,tiff")
    rows = {Path(row["path"]).name: row for row in rows_of(output)}
    assert {name: row["error"] for name, row in rows.items()} == {
        "cut.jpg": "corrupt-image",
        "empty.jpg": "no-image",
        "fine.jpg": None,
        "fine.tiff": None,
        "gone.jpg": "unreadable-file",
        "large.jpg": "unreadable-file",
        "pipe.jpg": "unreadable-file",
        "text.jpg": "unsupported-media",
    }
    assert rows["gone.jpg"]["detail"] == "No such file or directory"
    assert rows["pipe.jpg"]["detail"] == "it is not a file"
    assert "at most 1,048,576 are read" in rows["large.jpg"]["detail"]
    assert all((row["labels"] is None) == bool(row["error"]) for row in rows.values())
    assert "8 files, 6 of them unreadable (3 unreadable-file, " in said


def test_every_name_that_a_file_may_have_is_answered(
    photo: bytes, repository: Path, tmp_path: Path
) -> None:
    folder, output = os.fsencode(tmp_path / "folder"), tmp_path / "answers.parquet"
    Path(os.fsdecode(folder)).mkdir()
    names = [b"\xff.jpg", rb"\xff.jpg", b"a\nb.jpg", "\N{CAT}.jpg".encode(), b"back\\slash.jpg"]
    for name in names:
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(photo)
    for _ in range(2):  # the second run finds all of them done
        finished(os.fsdecode(folder), output, repository)
    rows = rows_of(output)
    assert [row["error"] for row in rows] == [None] * len(names)
    assert {row["path"].rpartition("/")[2] for row in rows} == {
        r"\xff.jpg",
        r"\x5cxff.jpg",
        "a\nb.jpg",
        "\N{CAT}.jpg",
        r"back\slash.jpg",
    }


def test_a_line_that_comes_twice_is_answered_once(
    photo: bytes, repository: Path, tmp_path: Path
) -> None:
    path, output = tmp_path / "cat.jpg", tmp_path / "answers.parquet"
    path.write_bytes(photo)
    finished("-", output, repository, stdin=f"{path}\n\n{path}\r\n{path}")
    assert [row["path"] for row in rows_of(output)] == [str(path)]


def _tiff() -> bytes:
    """A picture that is decoded in a process of its own."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(file, "TIFF")
    return file.getvalue()
