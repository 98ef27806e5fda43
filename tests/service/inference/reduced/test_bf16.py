"""Which parts of exported graphs run in bfloat16, and that models answer as before."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from models.arrays import Pixels
from models.manifest import Manifest
from models.preprocess import preprocess
from service.errors import StartupError
from service.inference.graphs import Graphs
from service.inference.onnx_engine import OnnxEngine
from service.inference.reduced.classifier import ReducedClassifier
from service.inference.sessions import EngineOptions
from tests.conftest import BUNDLED, DEEPVIT, VIT
from tests.support.server import ROOT
from tests.support.unusual import UNUSUAL

SAMPLES = sorted((ROOT / "service" / "web" / "samples").glob("*.jpg"))
# The baseline computes bf16 in float32, so it runs wherever these tests do.
ANYWHERE = EngineOptions(precision="bf16", kernel="baseline")

pytestmark = pytest.mark.usefixtures("library")


def operators(folder: Path, threads: int = 1) -> Counter[str]:
    graph = onnx.load_model_from_string(Graphs(folder).classifier("bf16", threads).content).graph
    return Counter(node.op_type for node in graph.node)


@pytest.mark.parametrize("name", [DEEPVIT, VIT])
def test_stem_and_all_blocks_run_in_bf16(repository: Path, name: str) -> None:
    found = operators(repository / name / "1")
    attention = "Bf16ReAttention" if name == DEEPVIT else "Bf16Attention"
    # The last block has a layer for its one query, and one for keys and values.
    assert (found["Bf16Stem"], found["Bf16Linear"], found[attention]) == (1, 17, 16)
    assert found["Bf16Rest"] == 16
    assert found["Gemm"] == 1  # the head
    assert not {"MatMul", "Conv", "ReAttention", "Attention", "Gelu"} & found.keys()


def test_operators_know_how_many_threads_share_their_work(repository: Path) -> None:
    graph = Graphs(repository / DEEPVIT / "1").classifier("bf16", threads=3)
    nodes = onnx.load_model_from_string(graph.content).graph.node
    threads = {
        attribute.i for node in nodes for attribute in node.attribute if attribute.name == "threads"
    }
    assert threads == {3}


def test_weights_that_no_operator_needs_are_not_given_to_a_session(repository: Path) -> None:
    folder = repository / DEEPVIT / "1"
    graphs = Graphs(folder)
    half, full = (sum(graph_bytes(graphs, precision)) for precision in ("bf16", "fp32"))
    assert half < 0.8 * full


def graph_bytes(graphs: Graphs, precision: str) -> list[int]:
    return [value.numpy().nbytes for value in graphs.classifier(precision, 1).weights.values()]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_answer_as_in_float32(name: str) -> None:
    folder = ROOT / "model_repository" / name / "1"
    full, half = OnnxEngine(folder, EngineOptions()), OnnxEngine(folder, ANYWHERE)
    for engine in (full, half):
        engine.warm_up()
    assert (half.precision, half.attention) == ("bf16", "fused")
    images = [pixels(path, full.manifest) for path in SAMPLES]
    expected, found = (np.stack(engine.classify(images)) for engine in (full, half))
    assert 0 < np.abs(found - expected).max() < 0.01 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()


def pixels(path: Path, manifest: Manifest) -> Pixels:
    with Image.open(path) as image:
        return preprocess(image, manifest.preprocessing)


def test_explanations_stay_exact(repository: Path) -> None:
    folder = repository / DEEPVIT / "1"
    full, half = OnnxEngine(folder, EngineOptions()), OnnxEngine(folder, ANYWHERE)
    size = full.manifest.preprocessing.size
    images = list(np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    name = full.manifest.output("class_rows", "softmax").name
    expected, found = (engine.explain(images, ["logits", name]) for engine in (full, half))
    for left, right in zip(expected, found, strict=True):
        for key, values in left.items():
            np.testing.assert_array_equal(values, right[key])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (EngineOptions(precision="bf16", attention="plain"), "compiled kernels"),
        (EngineOptions(precision="bf16", kernel="avx2"), "no AVX512-BF16"),
    ],
    ids=["plain", "older processor"],
)
def test_what_cannot_run_in_bf16_is_not_served_in_another_precision(
    repository: Path, options: EngineOptions, reason: str
) -> None:
    with pytest.raises(StartupError, match=reason):
        OnnxEngine(repository / DEEPVIT / "1", options)


def test_without_compiled_kernels_there_is_no_bf16(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("service.native.LIBRARY", tmp_path / "libdeepvit.so")
    with pytest.raises(StartupError, match="bf16 was asked for, but there is no"):
        OnnxEngine(repository / DEEPVIT / "1", EngineOptions(precision="bf16"))


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_networks_answer_as_in_float32(unusual_repository: Path, name: str) -> None:
    """Oblong images, no class token, registers, a single logit; heads of odd width among them."""
    folder = unusual_repository / name / "1"
    assert operators(folder)["Bf16Rest"] == 2
    full, half = OnnxEngine(folder, EngineOptions()), OnnxEngine(folder, ANYWHERE)
    size = full.manifest.preprocessing.size
    images = list(np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8))
    expected, found = (np.stack(engine.classify(images)) for engine in (full, half))
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_a_network_of_other_blocks_is_refused() -> None:
    node = onnx.helper.make_node("Identity", ["images"], ["logits"])
    graph = onnx.helper.make_graph([node], "other", [], [])
    with pytest.raises(ValueError, match="no block of the kind that runs on these kernels"):
        ReducedClassifier(graph, dict[str, Any]().get)
