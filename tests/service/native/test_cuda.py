"""On an NVIDIA GPU: attention's kernel equals Eq. 3, and half precision answers as float32."""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto

from service import native
from service.errors import StartupError
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import BUNDLED, DEEPVIT
from tests.support.operators import Shape, equation_3, inputs, model

CUDA = "CUDAExecutionProvider"
pytestmark = pytest.mark.skipif(
    CUDA not in ort.get_available_providers() or not native.CUDA_LIBRARY.exists(),
    reason="needs an NVIDIA GPU, onnxruntime-gpu, and a kernel compiled by nvcc",
)

SHAPES: list[Shape] = [
    (1, 1, 1, 1, 8),
    (5, 17, 17, 3, 8),
    (3, 65, 65, 6, 16),
    (2, 1, 65, 6, 16),
    (2, 197, 197, 12, 32),
    (40, 197, 197, 12, 32),
    (2, 2, 198, 12, 40),
    (2, 197, 197, 16, 64),
    (1, 577, 577, 3, 64),
    (1, 33, 50, 13, 24),
]


def session(content: bytes) -> ort.InferenceSession:
    ort.preload_dlls()
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(native.CUDA_LIBRARY))
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort.InferenceSession(content, options, providers=[CUDA])


@pytest.mark.parametrize("form", ["Packed", ""], ids=["packed", "apart"])
@pytest.mark.parametrize("mixes", [True, False], ids=["mixed", "plain"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_equals_the_equation(
    shape: Shape, mixes: bool, form: Literal["Packed", ""]
) -> None:
    if form and shape[1] != shape[2]:
        pytest.skip("side by side, there are as many queries as keys")
    scale = 2 / shape[-1] ** 0.5
    given = {name: value.astype(np.float16) for name, value in inputs(shape, mixes, scale).items()}
    expected = equation_3(shape, given)
    asked: dict[str, npt.NDArray[np.float16]] = dict(given)
    if form:
        bias = np.linspace(-1, 1, shape[3] * shape[4]).astype(np.float16)
        asked["qkv"] = np.concatenate([asked.pop(name) for name in "qkv"], axis=1)
        asked["bias"] = bias
        expected = equation_3(shape, {**given, "q": given["q"] + bias.astype(np.float32)})
    (found,) = session(model(shape, mixes, TensorProto.FLOAT16, form)).run(None, asked)
    difference = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert difference < 1e-3


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    shape = (1, 65, 65, 3, 16)
    given = {name: value.astype(np.float16) for name, value in inputs(shape, True, 50).items()}
    (found,) = session(model(shape, True, TensorProto.FLOAT16)).run(None, given)
    expected = equation_3(shape, given)
    assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)


def test_a_shape_that_the_kernel_does_not_support_is_refused() -> None:
    with pytest.raises(Exception, match="the kernel does not support this shape"):
        session(model((1, 17, 17, 3, 12), True, TensorProto.FLOAT16))


@pytest.mark.parametrize("graphs", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("attention", ["fused", "plain"])
def test_half_precision_answers_as_float32(
    fresh_repository: Path, attention: str, graphs: bool
) -> None:
    folder = fresh_repository / BUNDLED[0] / "1"
    images = list(np.random.default_rng(0).integers(0, 256, (21, 112, 112, 3), dtype=np.uint8))
    exact = OnnxEngine(folder, EngineOptions(provider="cpu"))
    half = OnnxEngine(
        folder, EngineOptions(provider="cuda", attention=attention, cuda_graphs=graphs)
    )
    assert (half.provider, half.precision, half.attention) == ("cuda", "fp16", attention)
    half.warm_up()
    for batch in (21, 1, 5):  # smaller ones after larger ones, which leave images behind
        expected = np.stack(exact.classify(images[:batch]))
        found = np.stack(half.classify(images[:batch]))
        assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()


def test_explanations_run_beside_captured_graphs(fresh_repository: Path) -> None:
    folder = fresh_repository / BUNDLED[0] / "1"
    images = list(np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8))
    engines = [OnnxEngine(folder, EngineOptions(provider=provider)) for provider in ("cpu", "cuda")]
    for engine in engines:
        engine.warm_up()
    name = "reattention.similarity.column"
    expected, found = (
        np.stack([row[name] for row in engine.explain(images, [name])]) for engine in engines
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert len(engines[1].classify(images)) == 2


def test_float32_has_no_kernel_on_a_gpu(repository: Path) -> None:
    with pytest.raises(StartupError, match="there is no kernel for fp32 on cuda"):
        OnnxEngine(
            repository / DEEPVIT / "1",
            EngineOptions(provider="cuda", precision="fp32", attention="fused"),
        )
