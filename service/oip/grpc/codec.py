"""Inference requests and responses as gRPC messages."""

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
    """Raises `InvalidInference`, which says what would be valid."""
    # Python objects take many times the memory of the message, so repeated fields are cut after
    # the first surplus element: that one is enough to make the request invalid.
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
    return inference.parse_request(message, contract, partial(_read_values, request), binary=True)


def encode(
    request: InferRequest,
    results: Sequence[Mapping[str, Float32Array]],
    *,
    model: str,
    version: int,
    labels: Sequence[str],
) -> ModelInferResponse:
    """The response to a request, from the model's outputs for each of its images."""
    response = ModelInferResponse(model_name=model, model_version=str(version), id=request.id or "")
    for _, tensor in inference.output_tensors(request, results, labels):
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.tobytes())
    return response


def _parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: getattr(parameter, choice)
        for name, parameter in parameters.items()
        if (choice := parameter.WhichOneof("parameter_choice"))
    }


def _read_values(request: ModelInferRequest, _: dict[str, Any], shape: tuple[int, ...]) -> Pixels:
    raw, typed = request.raw_input_contents, request.inputs[0]
    if raw:
        if len(raw) != 1 or typed.HasField("contents"):
            raise InvalidInference(
                f"{INPUT}: send either contents or one entry of raw_input_contents"
            )
        return inference.from_bytes(raw[0], shape)
    values = typed.contents.uint_contents
    inference.check_count(len(values), shape, "uint_contents")
    pixels = np.array(values, np.uint32)
    if pixels.max() > 255:
        raise InvalidInference(f"{INPUT}: uint_contents must be from 0 to 255")
    return pixels.astype(np.uint8).reshape(shape)
