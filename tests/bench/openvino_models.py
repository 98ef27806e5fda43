"""OpenVINO's models of a plain export: float32, bfloat16, and int8 by NNCF.

int8 as in "Basic Quantization Flow"
(https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html):
post-training quantization with the model type for transformers, which smooths activations, and the
mixed preset. Quantizing Re-attention's mixing of heads costs many answers, so there is also one of
linear layers alone with the whole range of activations, as ours is: the page says to ignore layers
that are sensitive, and to try other range estimators.
"""

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from models.arrays import Float32Array
from service.inference.cpus import available_cpus
from tests.bench.timing import Contender

FLOATS = ("f32", "bf16")
INT8, INT8_LINEAR = "int8", "int8, linear layers alone"
INT8S = (INT8, INT8_LINEAR)
_PROFILED_RUNS = 7
_SHAPING = ("Convert", "Reshape", "Transpose")  # what may lie between a weight and its product


class OpenVino:
    """Compiles one plain export; its images are normalised, [B, 3, height, width]."""

    def __init__(self, path: Path, calibration: Callable[[], Iterable[Float32Array]]) -> None:
        """`calibration`: batches of one image. They are read when int8 is first asked for."""
        self._path = path
        self._read = calibration
        self._int8: dict[str, Any] = {}
        self._kept: dict[tuple[str, tuple[int, ...]], Any] = {}

    @cached_property
    def _calibration(self) -> list[Float32Array]:
        return list(self._read())

    def contender(self, precision: str, images: Float32Array) -> Contender:
        """One batch. Raises `RuntimeError` if the processor lacks the precision."""
        request = self._compiled(precision, images.shape).create_infer_request()
        return partial(request.infer, [images])

    def operators(self, precision: str, images: Float32Array) -> dict[str, float]:
        """Milliseconds an image by kind of operator: medians of a few runs, the largest first."""
        compiled = self._compile(precision, images.shape, {"PERF_COUNT": True})
        request = compiled.create_infer_request()
        runs: list[Counter[str]] = []
        for _ in range(_PROFILED_RUNS):
            request.infer([images])
            runs.append(Counter())
            for part in request.profiling_info:
                runs[-1][part.node_type] += part.real_time.total_seconds() * 1e3 / len(images)
        found = {kind: statistics.median(run[kind] for run in runs) for kind in runs[-1]}
        ordered = sorted(found.items(), key=lambda entry: -entry[1])
        return {kind: ms for kind, ms in ordered if ms > 0}

    def logits(self, precision: str, images: Float32Array) -> Float32Array:
        """[B, classes]; compiled for this shape alone."""
        [found] = self._compiled(precision, images.shape)([images]).values()
        return np.asarray(found, np.float32)

    def _compiled(self, precision: str, shape: tuple[int, ...]) -> Any:
        if (precision, shape) not in self._kept:
            self._kept[precision, shape] = self._compile(precision, shape)
        return self._kept[precision, shape]

    def _compile(
        self,
        precision: str,
        shape: tuple[int, ...],
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Any:
        import openvino

        if precision in INT8S:
            if precision not in self._int8:
                self._int8[precision] = self._quantized(precision)
            network = self._int8[precision].clone()
        else:
            network = openvino.Core().read_model(self._path)
        network.reshape(list(shape))
        settings = {
            "INFERENCE_NUM_THREADS": available_cpus(),
            "PERFORMANCE_HINT": "LATENCY",
            **options,
        }
        if precision not in INT8S:  # whose remaining operators take the fastest precision there is
            settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = openvino.compile_model(network, "CPU", settings)
        real = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if precision not in (real, *INT8S):
            raise RuntimeError(f"{precision} was requested, but the processor uses {real}")
        return compiled

    def _quantized(self, precision: str) -> Any:
        os.environ["NNCF_CI"] = "1"  # it reports its use otherwise
        import nncf
        import openvino
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

        network = openvino.Core().read_model(self._path)
        careful: dict[str, Any] = {}
        if precision == INT8_LINEAR:
            extremes = RangeEstimatorParametersSet.MINMAX
            careful = {
                "ignored_scope": nncf.IgnoredScope(names=_not_linear(network)),
                "advanced_parameters": nncf.AdvancedQuantizationParameters(
                    activations_range_estimator_params=extremes
                ),
            }
        return nncf.quantize(
            network,
            nncf.Dataset(self._calibration),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            **careful,
        )


def _not_linear(network: Any) -> list[str]:
    """The names of convolutions (Re-attention's mixing among them) and products of activations."""
    return [
        node.get_friendly_name()
        for node in network.get_ops()
        if node.get_type_name() == "Convolution"
        or (node.get_type_name() == "MatMul" and not any(map(_is_weight, node.input_values())))
    ]


def _is_weight(value: Any) -> bool:
    node = value.get_node()
    while node.get_type_name() in _SHAPING:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
