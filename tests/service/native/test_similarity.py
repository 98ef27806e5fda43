"""The compiled measures: the copy for each instruction set equals their definitions."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from export.functions import DOMAIN, similarity
from models import measures
from models.arrays import Float32Array
from models.size import Size
from tests.support import equation_2
from tests.support.operators import session

Shape = tuple[int, int, int, int, int]  # images, blocks, heads, patches a side, tokens before them
Blocks = list[Tensor]  # [images, heads, tokens, tokens] each

pytestmark = pytest.mark.usefixtures("library")

SHAPES: list[Shape] = [
    (1, 1, 1, 2, 1),
    (2, 3, 2, 3, 1),
    (1, 5, 3, 4, 2),
    (3, 4, 16, 5, 0),
    (2, 3, 2, 2, 0),
    (1, 5, 3, 9, 0),
    (2, 16, 6, 8, 1),
    (1, 33, 12, 7, 1),
    (1, 2, 12, 14, 1),
]
SMALL: Shape = (2, 4, 3, 5, 1)
PATCH_SIZE = Size.of(4)
MEASURES = ("column", "row", "centred", "neighbours", "heads")


def graph(
    operator: str, given: Sequence[str], found: Sequence[str], attributes: Mapping[str, Any] = {}
) -> ir.Model:
    """An operator and its function, for blocks of any shape."""
    node = helper.make_node(operator, given, found, domain=DOMAIN, **attributes)
    inputs, outputs = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        for names in (given, found)
    )
    made = helper.make_graph([node], "measures", inputs, outputs)
    opset = helper.make_opsetid("", 20)
    model = ir.from_proto(helper.make_model(made, opset_imports=[opset], ir_version=10))
    similarity.add(model)
    return model


def comparing_features(blocks: int) -> bytes:
    given = [f"block{index}" for index in range(blocks)]
    return serialized(graph("FeatureSimilarity", given, ["features"]))


def measuring(shape: Shape, softmax: bool) -> bytes:
    """The operator of a stage; of softmax maps with a reach."""
    _, blocks, _, side, prefix = shape
    given = [f"block{index}" for index in range(blocks)]
    if not softmax:
        return serialized(graph("Similarity", given, MEASURES))
    names = (*MEASURES, "entropy", "distance")
    model = graph("SoftmaxSimilarity", ["reach", *given], names, {"prefix": prefix})
    reach = model.graph.inputs.pop(0)
    reach.const_value = ir.tensor(measures.reach(Size.of(side), PATCH_SIZE, prefix).numpy())
    model.graph.register_initializer(reach)
    return serialized(model)


def serialized(model: ir.Model) -> bytes:
    content: bytes = ir.to_proto(model).SerializeToString()
    return content


def run(content: bytes, blocks: Blocks, fused: bool = True) -> dict[str, Float32Array]:
    return running(content, fused)(blocks)


def running(content: bytes, fused: bool = True) -> Callable[[Blocks], dict[str, Float32Array]]:
    opened = session(content, fused)
    names = [output.name for output in opened.get_outputs()]

    def ask(blocks: Blocks) -> dict[str, Float32Array]:
        given = {f"block{index}": block.numpy() for index, block in enumerate(blocks)}
        return dict(zip(names, opened.run(None, given), strict=True))

    return ask


def maps(shape: Shape, scale: float = 2.0, seed: int = 0) -> Blocks:
    """Rows that sum to 1, one tensor a block."""
    images, blocks, heads, side, prefix = shape
    generator = torch.Generator().manual_seed(seed)
    size = (blocks, images, heads, side**2 + prefix, side**2 + prefix)
    return list((torch.randn(size, generator=generator) * scale).softmax(dim=-1))


def signed(shape: Shape) -> Blocks:
    return [3 * block - 0.5 for block in maps(shape, seed=1)]


def expected_measures(blocks: Blocks, shape: Shape | None) -> dict[str, Tensor]:
    """In float64, as they are defined; a shape for those of softmax maps."""
    doubles = [block.double() for block in blocks]
    found = {
        "column": equation_2.layer_similarity(doubles, "column"),
        "row": equation_2.layer_similarity(doubles, "row"),
        "centred": equation_2.layer_similarity(doubles, "centred"),
        "neighbours": equation_2.neighbour_similarity(doubles),
        "heads": equation_2.head_similarity(doubles),
    }
    if shape:
        stacked = torch.stack(doubles, dim=1)
        found["entropy"] = measures.entropy(stacked)
        *_, side, prefix = shape
        reach = measures.reach(Size.of(side), PATCH_SIZE, prefix)
        found["distance"] = measures.attention_distance(stacked, reach, prefix)
    return found


@cache
def expected_of_softmax_maps(shape: Shape) -> dict[str, Tensor]:
    return expected_measures(maps(shape), shape)


@cache
def expected_of_signed_maps(shape: Shape) -> dict[str, Tensor]:
    return expected_measures(signed(shape), None)


def assert_measures(
    found: dict[str, Float32Array], expected: dict[str, Tensor], atol: float = 3e-6
) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        scale = max(1.0, float(values.abs().max())) if values.numel() else 1.0
        np.testing.assert_allclose(found[name], values, atol=atol * scale, err_msg=name)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax_maps_are_measured_as_defined(shape: Shape) -> None:
    found = run(measuring(shape, softmax=True), maps(shape))
    assert_measures(found, expected_of_softmax_maps(shape))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_signed_maps_are_measured_as_defined(shape: Shape) -> None:
    found = run(measuring(shape, softmax=False), signed(shape))
    assert_measures(found, expected_of_signed_maps(shape))


@pytest.mark.usefixtures("instruction_set")
def test_near_uniform_maps_keep_what_stands_out_in_them() -> None:
    blocks = maps(SMALL, scale=0.01)
    found = run(measuring(SMALL, softmax=True), blocks)
    assert_measures(found, expected_measures(blocks, SMALL), atol=1e-5)


@pytest.mark.usefixtures("instruction_set")
def test_sharp_maps_have_columns_that_nearly_no_query_attends_to() -> None:
    blocks = maps(SMALL, scale=60)
    assert 0 < min(float(block.sum(dim=-2).min()) for block in blocks) < 1e-25
    for portable in (False, True):
        found = run(measuring(SMALL, softmax=True), blocks, fused=not portable)
        assert_measures(found, expected_measures(blocks, SMALL))


@pytest.mark.usefixtures("instruction_set")
def test_what_has_no_direction_is_similar_to_nothing() -> None:
    blocks = maps(SMALL)
    blocks[0][..., 2] = 0  # an empty column
    blocks[1][:, :, 4] = 0  # an empty row
    blocks[2] = torch.full_like(blocks[2], 1 / 26)  # nothing stands out
    found = run(measuring(SMALL, softmax=True), blocks)
    assert all(np.isfinite(values).all() for values in found.values())
    assert (found["neighbours"][:, 0, :, 2] == 0).all()
    assert (found["centred"][:, 2] == 0).all()
    assert found["entropy"][:, 2] == pytest.approx(np.log(26), abs=1e-5)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(
    "shape", [SMALL, (1, 5, 3, 4, 2), (2, 3, 2, 2, 1), (1, 4, 1, 3, 0)], ids=str
)
def test_what_is_no_number_spoils_what_it_spoils_in_single_steps(shape: Shape) -> None:
    """In the graph's own functions, as plain ONNX Runtime computes them; and no other image."""
    images, count, heads, side, prefix = shape
    tokens = side**2 + prefix
    random = np.random.default_rng(0)
    places = [(0, 0, 0, tokens - 1, 0), (count - 1, images - 1, heads - 1, 0, tokens - 1)]
    places += [tuple(random.integers((count, images, heads, tokens, tokens))) for _ in range(4)]
    for softmax in (True, False):
        content = measuring(shape, softmax)
        fused, plain = running(content), running(content, fused=False)
        for block, image, *place in places:
            blocks = maps(shape)
            blocks[block][image][tuple(place)] = torch.nan
            found, expected = fused(blocks), plain(blocks)
            for name, values in expected.items():
                np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(values), name)
                left_out = name == "distance" and place[1] < prefix
                assert np.isnan(values[image]).any() != left_out
                assert np.isfinite(np.delete(values, image, axis=0)).all()


@pytest.mark.usefixtures("instruction_set")
def test_features_that_are_no_number_spoil_the_block_they_are_in() -> None:
    outputs = list(torch.randn((3, 2, 17, 31)))
    outputs[1][1, 16, 30] = torch.nan
    found, expected = (run(comparing_features(3), outputs, fused) for fused in (True, False))
    assert np.isnan(expected["features"]).tolist() == [[False] * 3, [False, True, False]]
    np.testing.assert_allclose(found["features"], expected["features"], atol=2e-6)


@pytest.mark.parametrize("softmax", [True, False], ids=["softmax", "reattention"])
def test_without_the_kernel_any_runtime_measures_the_same(softmax: bool) -> None:
    found = run(measuring(SMALL, softmax), maps(SMALL), fused=False)
    assert_measures(found, expected_measures(maps(SMALL), SMALL if softmax else None))


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "any runtime"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (2, 5, 17, 31), (3, 16, 65, 192)], ids=str)
def test_features_are_compared_as_defined(shape: tuple[int, int, int, int], fused: bool) -> None:
    images, blocks, tokens, width = shape
    outputs = list(torch.randn((blocks, images, tokens, width)) + 0.5)
    found = run(comparing_features(len(outputs)), outputs, fused)["features"]
    stacked = torch.stack(outputs, dim=1).double()
    np.testing.assert_allclose(found, measures.feature_similarity(stacked), atol=2e-6)


def test_runs_at_the_same_time_do_not_mix() -> None:
    shared = running(measuring(SMALL, softmax=True))
    questions = [maps(SMALL, seed=seed) for seed in range(8)]
    expected = [shared(blocks) for blocks in questions]

    def ask(number: int) -> bool:
        found = shared(questions[number % 8])
        return all(
            np.array_equal(values, expected[number % 8][name]) for name, values in found.items()
        )

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(200)))


def test_maps_that_do_not_fit_each_other_are_an_error() -> None:
    blocks = maps(SMALL)
    blocks[2] = blocks[2][:1]
    with pytest.raises(Exception, match="fit"):
        run(measuring(SMALL, softmax=False), blocks)
