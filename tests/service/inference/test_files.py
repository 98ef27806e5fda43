"""Versions that are damaged, or whose manifest is hostile, are refused in one line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from models import sums
from service.errors import StartupError
from service.inference.engine import Engine
from service.inference.onnx_engine import OnnxEngine
from service.inference.repository import ModelRepository
from service.inference.served import QueueOptions
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT
from tests.support.versions import copied, rewrite


def make_engine(folder: Path) -> Engine:
    return OnnxEngine(folder, EngineOptions())


@pytest.fixture
def version(repository: Path, tmp_path: Path) -> Path:
    return copied(repository, tmp_path) / DEEPVIT / "1"


def refusal(version: Path) -> str:
    with pytest.raises(StartupError) as caught:
        ModelRepository(version.parents[1], make_engine, QueueOptions(max_images=4))
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 1000
    return caught.value.detail


def config(version: Path, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((version / "manifest.json").read_text())["config"]
    return found | changes


HOSTILE: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    "another name": (lambda _: {"name": "other"}, "holds version 1 of other"),
    "a path as name": (lambda _: {"name": "../other"}, "'../other' is not the name of a model"),
    "a name without end": (lambda _: {"name": "x" * 10**6}, "is not the name of a model"),
    "a reserved name": (lambda _: {"name": "stats"}, "not 'stats'"),
    "half a character": (lambda _: {"labels": ["\ud800"] * 10}, "no readable manifest"),
    "too few labels": (lambda _: {"labels": ["cat"] * 9}, "9 labels for 10 classes"),
    "too many labels": (lambda _: {"labels": ["cat"] * 10**5}, "100000 labels for 10 classes"),
    "labels that are none": (lambda _: {"labels": [1] * 10**4}, "labels: Input should be a valid"),
    "no version": (lambda _: {"version": 0}, "version: Input should be greater"),
    "a version that no number holds": (lambda _: {"version": 10**30}, "version: "),
    "a negative batch": (lambda _: {"max_batch_size": -1}, "max_batch_size: "),
    "another input size": (
        lambda v: {"config": config(v, img_size=48), "preprocessing": {"size": 48}},
        "images should be batch x 48 x 48 x 3, not batch x 32 x 32 x 3",
    ),
    "more classes than the graph": (
        lambda v: {"config": config(v, num_classes=11), "labels": ["cat"] * 11},
        "logits should be batch x 11, not batch x 10",
    ),
    "a negative size": (lambda v: {"config": config(v, img_size=-32)}, "config.img_size"),
    "a size without end": (lambda v: {"config": config(v, img_size=2**62)}, "are prepared at"),
    "a crop of nothing": (
        lambda _: {"preprocessing": {"size": 32, "crop_pct": 1e-9}},
        "preprocessing.crop_pct",
    ),
    "NaN": (lambda v: {"config": config(v, mlp_ratio=float("nan"))}, "a finite number"),
    "outputs that are not there": (
        lambda _: {"outputs": [{"name": "x", "measure": "map", "axes": ["batch"], "shape": []}]},
        "x should be batch, not missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_manifest_that_does_not_fit_is_refused(version: Path, kind: str) -> None:
    changes, message = HOSTILE[kind]
    rewrite(version, **changes(version))
    assert message in refusal(version)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "\ud800", "null", '"', "9" * 10**6])
def test_a_manifest_that_is_no_manifest_is_refused(version: Path, text: str) -> None:
    (version / "manifest.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    assert "has no readable manifest" in refusal(version)


def test_graphs_of_two_exports_are_refused(version: Path) -> None:
    other = (version / "explain.onnx").read_bytes()
    rewrite(version, exported_at="yesterday")
    (version / "explain.onnx").write_bytes(other)
    assert "explain.onnx does not have the hash in SHA256SUMS" in refusal(version)
    sums.write(version)
    assert "explain.onnx is not a graph of its manifest" in refusal(version)


@pytest.mark.parametrize("key", ["location", "offset"])
def test_weights_that_are_elsewhere_are_refused(version: Path, key: str) -> None:
    graph = onnx.load(version / "model.onnx", load_external_data=False)
    tensor = next(one for one in graph.graph.initializer if one.external_data)
    for entry in tensor.external_data:
        if entry.key == key:
            entry.value = {"location": "../../other.bin", "offset": "-4096"}[key]
    (version / "model.onnx").write_bytes(graph.SerializeToString())
    sums.write(version)
    assert "are not in weights.bin" in refusal(version)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "manifest.json is not listed in SHA256SUMS"),
        ("hash  file\n", "not a hash and the name of a file"),
        (f"{'0' * 64}  ../../other\n", "not a hash and the name of a file"),
        (f"{'0' * 64}  a\n{'1' * 64}  a\n", "not a hash and the name of a file"),
        (f"{'0' * 64}  manifest.json\n", "manifest.json does not have the hash in SHA256SUMS"),
    ],
)
def test_hashes_that_are_none_are_refused(version: Path, text: str, message: str) -> None:
    (version / "SHA256SUMS").write_text(text)
    assert message in refusal(version)


@pytest.mark.parametrize("name", ["manifest.json", "SHA256SUMS", "model.onnx", "weights.bin"])
def test_what_is_not_a_file_is_not_waited_for(version: Path, name: str) -> None:
    (version / name).unlink()
    os.mkfifo(version / name)  # to open it would wait for somebody who writes
    assert refusal(version) == f"{version / name} is not a file"
    (version / name).unlink()
    (version / name).mkdir()
    assert refusal(version) == f"{version / name} cannot be read: Is a directory"


def test_a_file_far_larger_than_the_graphs_need_is_not_read(version: Path) -> None:
    os.truncate(version / "weights.bin", 2**43)  # takes no space on the disk
    assert f"has {2**43:,} bytes, and the graphs need" in refusal(version)


def test_a_graph_that_was_cut_short_is_refused_without_hashes_too(version: Path) -> None:
    rewrite(version, sums=None)
    (version / "SHA256SUMS").unlink()
    os.truncate(version / "explain.onnx", 100_000)
    assert "explain.onnx is not a graph of its manifest" in refusal(version)
