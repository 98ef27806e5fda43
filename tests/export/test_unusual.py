"""Exports of networks that are not square, have no class token, or several right classes."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from export.__main__ import main
from export.comparison import compare
from export.pictures import Pictures
from models.config import Scores
from models.preprocess import Preprocessing
from models.size import Size
from tests.support.unusual import REGISTERS, TALL, WIDE, YES_OR_NO, config_of, weights_of

RULE = Preprocessing(size=Size(8, 16), crop_pct=1.0)
GREYS = (40, 110, 130, 240)


@pytest.fixture
def greys(tmp_path: Path) -> Path:
    """A folder for each of two classes, `dark` and `light`, with two even pictures each."""
    for number, value in enumerate(GREYS):
        folder = tmp_path / "greys" / ("light" if value > 127 else "dark")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (value, value, value)).save(folder / f"{number}.png")
    return tmp_path / "greys"


def classifier(path: Path, thresholds: Sequence[float]) -> Path:
    """A graph with a logit for each threshold: how much brighter than it an image is."""
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["B", 8, 16, 3])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", len(thresholds)])
    values = helper.make_tensor("thresholds", TensorProto.FLOAT, [len(thresholds)], thresholds)
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    red = helper.make_tensor("red", TensorProto.INT64, [1], [0])
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("Gather", ["means", "red"], ["grey"], axis=1),
        helper.make_node("Sub", ["grey", "thresholds"], ["logits"]),
    ]
    graph = helper.make_graph(nodes, "classifier", [images], [logits], [values, axes, red])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def test_one_logit_agrees_where_the_decision_is_the_same(greys: Path, tmp_path: Path) -> None:
    exact = classifier(tmp_path / "exact.onnx", [120])
    cheaper = {
        "the same": classifier(tmp_path / "same.onnx", [125]),
        "another": classifier(tmp_path / "other.onnx", [100]),
    }
    found = compare(exact, cheaper, Pictures(greys), RULE, ["light"], "sigmoid")
    assert found["the same"].agreement == 1
    assert found["another"].agreement == 0.75  # 110 is on the other side


@pytest.mark.parametrize(("scores", "accuracy"), [("softmax", 0.5), ("sigmoid", None)])
def test_accuracy_is_told_where_one_class_is_right(
    greys: Path, tmp_path: Path, scores: Scores, accuracy: float | None
) -> None:
    exact = classifier(tmp_path / "exact.onnx", [120, 130])  # the first is always above
    labels = ["dark", "light"]
    found = compare(exact, {"": exact}, Pictures(greys), RULE, labels, scores)[""]
    assert (found.images, found.agreement) == (4, 1)
    assert found.accuracy == found.exact_accuracy == accuracy


def test_tritons_description_has_height_and_width(unusual_repository: Path) -> None:
    for name, size in ((WIDE, "48, 128"), (TALL, "64, 32"), (YES_OR_NO, "32, 32")):
        description = (unusual_repository / name / "config.pbtxt").read_text()
        assert f"dims: [ {size}, 3 ]" in description
        assert f"dims: [ {config_of(name).num_classes} ]" in description


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            WIDE,
            [
                "preprocessing  RGB, resized to cover 53 x 142 with bicubic filter, "
                "crop to 48 x 128, mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
                "embedding      6 x 8 patches of 8 x 16 pixels (one convolution) after "
                "class token, width 24",
            ],
        ),
        (
            YES_OR_NO,
            [
                "preprocessing  RGB, shorter side resized to 35 with bicubic filter, "
                "crop to 32 x 32, mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
                "head           the class token (LayerNorm, then pooled) to 1 class, sigmoid",
            ],
        ),
    ],
)
def test_inspect_tells_sizes_and_scores(
    unusual_repository: Path, name: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(weights_of(unusual_repository, name))]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in printed] == []


def test_a_report_on_networks_of_different_shapes(
    unusual_repository: Path, greys: Path, tmp_path: Path
) -> None:
    names = (WIDE, TALL, REGISTERS)
    chosen = [part for name in names for part in ("--model", name)]
    output = tmp_path / "report"
    command = ["report", *chosen, "--images", str(greys), "--output", str(output)]
    assert main([*command, "--repository", str(unusual_repository)]) == 0
    models = json.loads((output / "report.json").read_text())["models"]
    assert [(one["grid"], one["prefix_tokens"], one["class_token"]) for one in models] == [
        ([6, 8], 1, True),
        ([8, 4], 0, False),
        ([4, 4], 2, False),
    ]
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "version 1, 48 x 128 pixels in 6 x 8 patches, 2 blocks, 3 heads, 49 tokens, 1" in page
    for tokens in ("32 tokens, 0", "18 tokens, 2"):
        assert f"{tokens} of them before the patches (no class token)," in page
    with np.load(output / "report.npz") as maps:
        shapes = {name: maps[f"{name}.softmax"].shape for name in names}
    assert shapes == {WIDE: (2, 49, 49), TALL: (2, 32, 32), REGISTERS: (2, 18, 18)}


def test_a_report_on_a_manifest_of_a_later_version_says_to_upgrade(
    unusual_repository: Path, greys: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "repository" / WIDE / "1"
    folder.mkdir(parents=True)
    record = json.loads((unusual_repository / WIDE / "1" / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(record | {"camera": "front"}))
    command = ["report", "--model", WIDE, "--images", str(greys), "--output", str(tmp_path / "out")]
    assert main([*command, "--repository", str(tmp_path / "repository")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"export report: {folder}: ")
    assert line.endswith("with what this one does not know: camera; upgrade this one")
