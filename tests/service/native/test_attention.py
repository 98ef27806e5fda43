"""The compiled attention: the copy for each instruction set equals Eq. 3, whatever the shape."""

import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.inliner import inline_local_functions

from models import sums
from service import native
from service.errors import StartupError
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from service.native.symbols import allow, attention_calls, chosen_copy
from tests.conftest import DEEPVIT
from tests.support.operators import Shape, equation_3, inputs, laid_open, model, session
from tests.support.server import running_server
from tests.support.service import running_service

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


# Any bits that are no number, as a broken network may make them.
NANS = np.array([0x7FC00000, 0xFFC00000, 0x7FC00001, 0x7F800001, 0xFFFFFFFF], np.uint32)
NO_NUMBERS = [*NANS.view(np.float32), np.float32(np.inf), np.float32(-np.inf)]


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("where", ["q", "k", "v"])
@pytest.mark.parametrize(("mixes", "outputs"), MAPS)
@pytest.mark.parametrize("shape", [(1, 5, 3, 2, 4), (2, 17, 17, 3, 16), (1, 33, 50, 5, 5)], ids=str)
def test_what_is_no_number_spoils_what_it_spoils_in_single_steps(
    shape: Shape, mixes: bool, outputs: list[str], where: str
) -> None:
    """In the graph's own functions, as plain ONNX Runtime computes them."""
    content = model(shape, mixes, form="Open", outputs=outputs)
    fused, plain = session(content), session(content, fused=False)
    random = np.random.default_rng(0)
    for value in NO_NUMBERS:
        given = inputs(shape, mixes)
        if mixes:
            given["theta"][0, 1] = 0  # even where Theta leaves a head out
        tokens, columns = given[where].shape
        for at in {(0, 0), (tokens - 1, columns - 1), (random.integers(tokens), 1)}:
            spoilt = given | {where: given[where].copy()}
            spoilt[where][at] = value
            found, expected = (opened.run(None, spoilt) for opened in (fused, plain))
            for name, values, wanted in zip(filter(None, outputs), found, expected, strict=True):
                np.testing.assert_allclose(values, wanted, atol=1e-4, err_msg=name)
            assert np.isnan(expected[-1]).any() or not np.isnan(value)


@pytest.mark.usefixtures("instruction_set")
def test_scores_of_minus_infinity_get_no_weight_and_a_row_of_them_is_nan() -> None:
    shape = (1, 2, 17, 1, 4)
    given = inputs(shape, mixes=False) | {"k": np.ones((17, 4), np.float32)}
    given["q"][0] = -np.inf
    given["q"][1] = 1
    given["k"][5] = -np.inf
    given["v"][5] = 1e30
    content = model(shape, False, form="Open", outputs=["maps", "out"])
    for fused in (True, False):
        maps, out = session(content, fused).run(None, given)
        assert np.isnan(maps[0, 0, 0]).all()
        assert np.isnan(out[0]).all()
        assert maps[0, 0, 1, 5] == 0
        np.testing.assert_allclose(out[1], np.delete(given["v"], 5, axis=0).mean(axis=0), atol=1e-6)


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


def test_real_weights_answer_the_same(repository: Path, instruction_set: str) -> None:
    images = list(np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))
    plain, fused = (
        OnnxEngine(
            repository / DEEPVIT / "1", EngineOptions(attention=attention, kernel=instruction_set)
        )
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
def test_a_start_without_a_library_says_so_once(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), running_service(repository) as running:
        assert [model.attention for model in running.pipeline.models] == ["plain", "plain"]
    (line,) = [record.getMessage() for record in caplog.records if "fused" in record.getMessage()]
    assert line.startswith("attention is not fused: ")
    assert str(native.LIBRARY) in line
    assert "python -m service.native" in line


def test_a_graph_without_operators_for_the_kernels_is_not_called_fused(
    repository: Path, tmp_path: Path
) -> None:
    """As another tool may write it: with the bodies of functions in their place."""
    version = shutil.copytree(repository / DEEPVIT / "1", tmp_path / DEEPVIT / "1")
    for name in ("model.onnx", "explain.onnx"):
        whole = onnx.load(version / name, load_external_data=False)
        onnx.save(inline_local_functions(whole), version / name)
    sums.write(version)
    images = [np.zeros((32, 32, 3), np.uint8)]
    engine = OnnxEngine(version, EngineOptions())
    engine.warm_up()
    assert engine.attention == "plain"
    fused = OnnxEngine(repository / DEEPVIT / "1", EngineOptions(attention="fused"))
    fused.warm_up()
    assert fused.attention == "fused"
    np.testing.assert_allclose(engine.classify(images), fused.classify(images), atol=1e-4)
    with pytest.raises(StartupError, match=f"no operator of {DEEPVIT} has run on the kernels"):
        OnnxEngine(version, EngineOptions(attention="fused")).warm_up()


def test_calls_of_the_kernel_are_counted_for_each_thread() -> None:
    shape = (1, 17, 17, 3, 16)
    given = inputs(shape, True)
    opened = {fused: session(model(shape, True), fused) for fused in (True, False)}

    def calls(fused: bool) -> int:
        before = attention_calls(native.LIBRARY)
        opened[fused].run(None, given)
        return attention_calls(native.LIBRARY) - before

    assert (calls(True), calls(False)) == (1, 0)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(calls, [True, False] * 20)) == [1, 0] * 20


def test_the_setting_names_the_best_copy_that_may_run(
    repository: Path, instruction_set: str
) -> None:
    with running_service(repository, kernel=instruction_set):
        assert chosen_copy(native.LIBRARY) == instruction_set
    with running_service(repository):  # auto: the best that the processor has
        found = chosen_copy(native.LIBRARY)
    allow(native.LIBRARY, "avx512")
    assert found == chosen_copy(native.LIBRARY)


def test_a_server_takes_the_variable_of_the_setting(repository: Path) -> None:
    with running_server(repository, kernel="baseline") as server, server.client() as client:
        models = client.get("/models").json()["models"]
        assert [model["attention"] for model in models] == ["fused", "fused"]


@pytest.mark.usefixtures("no_library")
def test_without_a_library_models_are_served_and_a_demand_is_refused(repository: Path) -> None:
    assert OnnxEngine(repository / DEEPVIT / "1", EngineOptions()).attention == "plain"
    with pytest.raises(StartupError, match=r"python -m service\.native"):
        OnnxEngine(repository / DEEPVIT / "1", EngineOptions(attention="fused"))
