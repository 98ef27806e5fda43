"""Inference requests and answers as messages of gRPC."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest, ModelInferResponse

from models.arrays import Float32Array, Pixels
from service.errors import InvalidInference
from service.oip import inference
from service.oip.inference import INPUT, Contract, InferRequest

_MAX_DIMENSIONS = 8


def decode(request: ModelInferRequest, contract: Contract) -> InferRequest:
    """Raises `InvalidInference` saying what would fit."""
    # Objects of Python take many times their message, and one too many is as wrong as a million.
    message = {
        "id": request.id or None,
        "parameters": _parameters(request.parameters),
        "inputs": [
            {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": list(tensor.shape[: _MAX_DIMENSIONS + 1]),
                "parameters": _parameters(tensor.parameters),
            }
            for tensor in request.inputs[:2]
        ],
        "outputs": [
            {"name": tensor.name, "parameters": _parameters(tensor.parameters)}
            for tensor in request.outputs[: len(contract.outputs) + 1]
        ],
    }
    return inference.read(message, contract, partial(_values, request), binary=True)


def encode(
    request: InferRequest,
    answers: Sequence[Mapping[str, Float32Array]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
) -> ModelInferResponse:
    """The answer to a request, from the outputs of each of its images."""
    response = ModelInferResponse(model_name=model, model_version=str(version), id=request.id or "")
    for _, tensor in inference.answer(request, answers, labels):
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.tobytes())
    return response


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: getattr(value, kind)
        for name, value in parameters.items()
        if (kind := value.WhichOneof("parameter_choice"))
    }


def _values(request: ModelInferRequest, _: dict[str, Any], shape: tuple[int, ...]) -> Pixels:
    raw, typed = request.raw_input_contents, request.inputs[0]
    if raw:
        if len(raw) != 1 or typed.HasField("contents"):
            raise InvalidInference(
                f"{INPUT}: contents or one of raw_input_contents, not {len(raw)} beside others"
            )
        return inference.from_bytes(raw[0], shape)
    values = typed.contents.uint_contents
    inference.check_count(len(values), shape, "uint_contents")
    pixels = np.array(values, np.uint32)
    if pixels.max() > 255:
        raise InvalidInference(f"{INPUT}: uint_contents are from 0 to 255")
    return pixels.astype(np.uint8).reshape(shape)
