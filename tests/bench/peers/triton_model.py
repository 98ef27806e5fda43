"""The model that tritonserver runs in its Python backend: JPEGs in, answers as JSON out."""

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as backend

from tests.bench.peers.answer import Model
from tests.bench.peers.given import given


class TritonPythonModel:
    """One instance, in a process of its own."""

    def initialize(self, _: dict[str, str]) -> None:
        self.model = Model(given())

    def execute(self, requests: list[Any]) -> list[Any]:
        """The answers to a batch that Triton has made."""
        jpegs = [
            backend.get_input_tensor_by_name(request, "image").as_numpy().reshape(-1)[0]
            for request in requests
        ]
        logits = self.model.logits([self.model.decode(jpeg) for jpeg in jpegs])
        return [self._response(each) for each in logits]

    def _response(self, logits: Any) -> Any:
        answer = np.array([[json.dumps(self.model.answer(logits))]], dtype=np.object_)
        return backend.InferenceResponse([backend.Tensor("answer", answer)])
