"""The compiled attention: the copy for each instruction set equals Eq. 3, whatever the shape."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service import native
from service.errors import StartupError
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT
from tests.support.operators import Shape, equation_3, inputs, laid_open, model, session

pytestmark = pytest.mark.usefixtures("library")

SHAPES: list[Shape] = [  # images, queries, keys, heads, width
    (1, 1, 1, 1, 1),
    (2, 5, 5, 1, 7),
    (3, 17, 17, 3, 16),
    (2, 65, 65, 6, 16),
    (2, 1, 65, 6, 16),
    (1, 2, 197, 12, 32),
    (1, 197, 197, 12, 64),
    (2, 16, 30, 16, 24),
    (1, 33, 50, 13, 5),
]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("mixes", [True, False], ids=["mixed", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_equals_the_equation(shape: Shape, mixes: bool) -> None:
    given = inputs(shape, mixes)
    (found,) = session(model(shape, mixes)).run(None, given)
    expected = equation_3(shape, given)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


MAPS = [
    pytest.param(True, ["maps", "mixed", "out"], id="all"),
    pytest.param(True, ["maps", "", "out"], id="softmax"),
    pytest.param(True, ["", "mixed", "out"], id="mixed"),
    pytest.param(False, ["maps", "out"], id="plain"),
]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize(("mixes", "outputs"), MAPS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_maps_laid_open_equal_the_equation(shape: Shape, mixes: bool, outputs: list[str]) -> None:
    given = inputs(shape, mixes)
    found = session(model(shape, mixes, form="Open", outputs=outputs)).run(None, given)
    expected = laid_open(shape, given)
    for name, values in zip(filter(None, outputs), found, strict=True):
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(values, expected[name], atol=1e-5 * scale, err_msg=name)


@pytest.mark.parametrize(("mixes", "outputs"), MAPS)
def test_without_the_kernel_any_runtime_lays_the_same_maps_open(
    mixes: bool, outputs: list[str]
) -> None:
    shape = (2, 17, 17, 6, 16)
    given = inputs(shape, mixes)
    content = model(shape, mixes, form="Open", outputs=outputs)
    found = session(content, fused=False).run(None, given)
    expected = laid_open(shape, given)
    for name, values in zip(filter(None, outputs), found, strict=True):
        np.testing.assert_allclose(values, expected[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("mixes", [True, False], ids=["mixed", "plain"])
def test_without_the_kernel_any_runtime_computes_the_same(mixes: bool) -> None:
    shape = (2, 17, 17, 6, 16)
    given = inputs(shape, mixes)
    (found,) = session(model(shape, mixes), fused=False).run(None, given)
    np.testing.assert_allclose(found, equation_3(shape, given), atol=1e-4)


@pytest.mark.usefixtures("instruction_set")
def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    shape = (1, 17, 17, 3, 16)
    given = inputs(shape, True, scale=200)
    (found,) = session(model(shape, True)).run(None, given)
    expected = equation_3(shape, given)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("query", [-np.inf, np.inf, np.nan], ids=str)
def test_queries_that_are_no_numbers_attend_uniformly(query: float) -> None:
    shape = (1, 2, 17, 1, 4)
    given = inputs(shape, mixes=False) | {"k": np.ones((17, 4), np.float32)}
    (expected,) = session(model(shape, False)).run(None, given)
    given["q"][0] = query
    (found,) = session(model(shape, False)).run(None, given)
    np.testing.assert_allclose(found[0], given["v"].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.usefixtures("instruction_set")
def test_a_key_that_is_no_number_gets_no_weight_and_a_value_spoils_its_column() -> None:
    shape = (1, 2, 17, 1, 4)
    given = inputs(shape, mixes=False)
    given["k"][5] = given["v"][9, 2] = np.nan
    (found,) = session(model(shape, False)).run(None, given)
    kept = [0, 1, 3]
    others = {name: np.delete(value, 5, axis=0) for name, value in given.items() if name != "q"}
    expected = equation_3((1, 2, 16, 1, 4), given | others)
    np.testing.assert_allclose(found[:, kept], expected[:, kept], atol=1e-5)
    assert np.isnan(found[:, 2]).all()


def test_runs_at_the_same_time_do_not_mix() -> None:
    shape = (2, 65, 65, 6, 16)
    shared = session(model(shape, True))
    questions = [inputs(shape, True, scale=1 + number / 10) for number in range(8)]
    expected = [shared.run(None, given)[0] for given in questions]

    def ask(number: int) -> bool:
        found = shared.run(None, questions[number % 8])[0]
        return np.array_equal(found, expected[number % 8])

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(200)))


@pytest.mark.parametrize(
    ("name", "wrong"), [("k", (34, 95)), ("v", (33, 96)), ("q", (35, 96)), ("theta", (5, 6))]
)
def test_tensors_that_do_not_fit_are_an_error(name: str, wrong: tuple[int, int]) -> None:
    shape = (2, 17, 17, 6, 16)
    given = inputs(shape, True) | {name: np.zeros(wrong, np.float32)}
    with pytest.raises(Exception, match="fit"):
        session(model(shape, True)).run(None, given)


@pytest.mark.usefixtures("instruction_set")
def test_real_weights_answer_the_same(repository: Path) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    plain, fused = (
        OnnxEngine(repository / DEEPVIT / "1", EngineOptions(attention=attention))
        for attention in ("plain", "fused")
    )
    assert (plain.attention, fused.attention) == ("plain", "fused")
    np.testing.assert_allclose(fused.classify(images), plain.classify(images), atol=1e-4)


@pytest.fixture(params=["missing", "broken"])
def no_library(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "libdeepvit.so"
    if request.param == "broken":
        library.write_text("made for another machine")
    monkeypatch.setattr(native, "LIBRARY", library)


@pytest.mark.usefixtures("no_library")
def test_without_a_library_models_are_served_and_a_demand_is_refused(repository: Path) -> None:
    assert OnnxEngine(repository / DEEPVIT / "1", EngineOptions()).attention == "plain"
    with pytest.raises(StartupError, match=r"python -m service\.native"):
        OnnxEngine(repository / DEEPVIT / "1", EngineOptions(attention="fused"))
