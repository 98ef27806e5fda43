"""The model that tritonserver serves beside ours, in its Python backend: the same tensors.

The values are of no interest: ten of an image's pixels stand for logits. tritonserver runs this
file with a Python of its own, which needs NumPy 1 and nothing else.
"""

from typing import Any

import triton_python_backend_utils as backend


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        images = backend.get_input_tensor_by_name(request, "images").as_numpy()  # [B, 32, 32, 3]
        logits = images[:, 0, :10, 0].astype("float32")
        return backend.InferenceResponse([backend.Tensor("logits", logits)])
