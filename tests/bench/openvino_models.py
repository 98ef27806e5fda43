"""OpenVINO's models of a plain export: float32, bfloat16, and int8 by NNCF.

int8 as in "Basic Quantization Flow"
(https://docs.openvino.ai/2025/openvino-workflow/model-optimization-guide/quantizing-models-post-training/basic-quantization-flow.html):
post-training quantization with the model type for transformers, which smooths and keeps attention
precise enough, and the mixed preset.
"""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from models.arrays import Float32Array
from service.inference.cpus import available_cpus
from tests.bench.timing import Contender

FLOATS = ("f32", "bf16")
INT8 = "int8"


class OpenVino:
    """Compiles one plain export; its images are normalised, [B, 3, height, width]."""

    def __init__(self, path: Path, calibration: Iterable[Float32Array]) -> None:
        """`calibration`: batches of one image. They are read when int8 is first asked for."""
        self._path = path
        self._calibration = calibration
        self._int8: Any = None
        self._kept: dict[tuple[str, tuple[int, ...]], Any] = {}

    def contender(self, precision: str, images: Float32Array) -> Contender:
        """One batch. Raises `RuntimeError` if the processor lacks the precision."""
        request = self._compiled(precision, images.shape).create_infer_request()
        return partial(request.infer, [images])

    def logits(self, precision: str, images: Float32Array) -> Float32Array:
        """[B, classes]; compiled for this shape alone."""
        [found] = self._compiled(precision, images.shape)([images]).values()
        return np.asarray(found, np.float32)

    def _compiled(self, precision: str, shape: tuple[int, ...]) -> Any:
        if (precision, shape) not in self._kept:
            self._kept[precision, shape] = self._compile(precision, shape)
        return self._kept[precision, shape]

    def _compile(self, precision: str, shape: tuple[int, ...]) -> Any:
        import openvino

        if precision == INT8:
            self._int8 = self._int8 or self._quantized()
            network = self._int8.clone()
        else:
            network = openvino.Core().read_model(self._path)
        network.reshape(list(shape))
        settings = {
            "INFERENCE_NUM_THREADS": available_cpus(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if precision != INT8:  # whose remaining operators take the fastest precision there is
            settings["INFERENCE_PRECISION_HINT"] = precision
        compiled = openvino.compile_model(network, "CPU", settings)
        real = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if precision not in (real, INT8):
            raise RuntimeError(f"{precision} was requested, but the processor uses {real}")
        return compiled

    def _quantized(self) -> Any:
        os.environ["NNCF_CI"] = "1"  # it reports its use otherwise
        import nncf
        import openvino

        return nncf.quantize(
            openvino.Core().read_model(self._path),
            nncf.Dataset(list(self._calibration)),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
        )
