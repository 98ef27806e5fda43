"""Which parts of an int8 export run on the kernels, and that it answers as ONNX Runtime does."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from export import quantize
from models import sums
from models.arrays import Pixels
from models.manifest import Manifest
from models.preprocess import preprocess
from service.inference.graphs import Graphs
from service.inference.onnx_engine import OnnxEngine
from service.inference.reduced.int8 import Int8Layer
from service.inference.reduced.layers import in_panels
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT, VIT
from tests.support.crops import crops

# The baseline computes int8 and bf16 slowly, so it runs wherever these tests do.
ANYWHERE = EngineOptions(precision="int8", kernel="baseline")
RANDOM = np.random.default_rng(0)

pytestmark = pytest.mark.usefixtures("library")


@pytest.fixture(scope="module", params=[DEEPVIT, VIT])
def folder(
    request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A version of a small model with an int8 classifier, calibrated on crops."""
    copied = tmp_path_factory.mktemp("int8") / "1"
    shutil.copytree(repository / request.param / "1", copied)
    exact = ir.from_proto(onnx.load(copied / "model.onnx"))
    rounded = quantize.quantize(exact, quantize.calibrate(exact, [prepared(copied)]))
    onnx.save(ir.to_proto(rounded), copied / "model.int8.onnx")
    sums.write(copied)
    return copied


def prepared(folder: Path) -> Pixels:
    rule = Manifest.read((folder / "manifest.json").read_text()).preprocessing
    return np.stack([preprocess(crop, rule) for crop in crops(48, seed=0)])


def operators(folder: Path, reduced: bool) -> Counter[str]:
    graph = Graphs(folder).classifier("int8", 1, reduced)
    return Counter(node.op_type for node in onnx.load_model_from_string(graph.content).graph.node)


def test_all_blocks_run_on_the_kernels(folder: Path) -> None:
    found = operators(folder, reduced=True)
    # The last block has a layer for its one query, and one for keys and values.
    assert (found["Int8Linear"], found["Int8Rest"], found["Bf16Stem"]) == (17, 16, 1)
    assert found["Bf16ReAttention"] + found["Bf16Attention"] == 16
    assert not {"MatMulIntegerToFloat", "QuantizeLinear", "Gelu", "Sub", "Mul"} & found.keys()


def test_without_the_kernels_it_runs_as_it_was_exported(folder: Path) -> None:
    assert operators(folder, reduced=False)["MatMulIntegerToFloat"] == 6 * 16
    engine = OnnxEngine(folder, replace(ANYWHERE, attention="plain"))
    assert (engine.precision, engine.attention) == ("int8", "plain")


def test_real_weights_answer_as_exactly_as_both_roundings_do(folder: Path) -> None:
    """As linear layers in ONNX Runtime's int8, and all else in bfloat16."""
    kernels = OnnxEngine(folder, ANYWHERE)
    kernels.warm_up()
    assert kernels.attention == "fused"
    images = list(prepared(folder))
    exact, int8, bf16 = (
        OnnxEngine(folder, options).classify(images)
        for options in (
            EngineOptions(),
            replace(ANYWHERE, attention="plain"),
            replace(ANYWHERE, precision="bf16"),
        )
    )
    found = np.array(kernels.classify(images)) - exact
    errors = [np.sqrt(np.mean(one**2)) for one in (found, np.subtract(int8, exact))]
    expected = np.hypot(errors[1], np.sqrt(np.mean(np.subtract(bf16, exact) ** 2)))
    assert 0.5 * expected < errors[0] < 1.2 * expected
    assert errors[0] < 0.1 * np.std(exact)


def layer(rows: int, columns: int) -> Int8Layer:
    weight = RANDOM.integers(-63, 64, (rows, columns), dtype=np.int8)
    wide, deep = (RANDOM.random(size, np.float32) for size in (columns, rows))
    return Int8Layer(weight, wide, wide + 1, deep, deep + 1)


@pytest.mark.parametrize(("rows", "columns"), [(4, 16), (5, 70), (1, 1), (96, 128)])
def test_four_neighbours_lie_in_a_word(rows: int, columns: int) -> None:
    given = layer(rows, columns)
    packed = given.packed()
    words = packed["panels"]
    deep, wide = -(-rows // 4), -(-columns // 16) * 16
    assert words.shape == (deep, wide)
    expected = np.zeros((deep, wide), np.uint32)
    for row in range(rows):
        byte = given.weight[row].astype(np.int64) & 0xFF
        expected[row // 4, :columns] |= (byte << 8 * (row % 4)).astype(np.uint32)
    np.testing.assert_array_equal(words, in_panels(expected))
    assert [len(packed[name]) for name in ("bias", "steps")] == [wide] * 2
    assert [len(packed[name]) for name in ("scale", "offset")] == [-(-rows // 16) * 16] * 2


def answer(of: Int8Layer, x: Any) -> Any:
    return np.rint(x * of.scale + of.offset) @ of.weight.astype(np.float64) * of.steps + of.bias


def test_heads_of_odd_width_are_padded_with_what_changes_nothing() -> None:
    heads, width = 3, 5
    given, x = layer(4, heads * width), RANDOM.random((2, 4)) * 9
    found = answer(given.with_even_columns(heads), x).reshape(2, heads, width + 1)
    np.testing.assert_allclose(found[..., :width].reshape(2, -1), answer(given, x))
    assert not found[..., width].any()
    behind, y = layer(heads * width, 7), RANDOM.random((2, heads, width)) * 9
    padded = np.pad(y, ((0, 0), (0, 0), (0, 1)), constant_values=100)
    deep = behind.with_even_rows(heads)
    np.testing.assert_allclose(
        answer(deep, padded.reshape(2, -1)), answer(behind, y.reshape(2, -1))
    )
