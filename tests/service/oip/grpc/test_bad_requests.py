"""Requests over gRPC that cannot be answered, and a server that survives all of them."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from models.arrays import Pixels
from service.errors import HeadersTooLarge, MisdirectedRequest, ServiceError, UriTooLong
from service.oip.grpc.interceptor import STATUS_CODES
from tests.conftest import DEEPVIT
from tests.service.oip.grpc.calls import (
    SERVICE,
    address,
    image_request,
    stub_of,
    tensor,
    typed,
)
from tests.support.server import Server


def parameter(**choice: Any) -> dict[str, Any]:
    return {"parameters": {"shared_memory_region": choice}}


IMAGE = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
BAD: dict[str, tuple[dict[str, Any], StatusCode, str]] = {
    "another model": ({"model_name": "resnet"}, StatusCode.NOT_FOUND, "No such model"),
    "another version": ({"model_version": "2"}, StatusCode.NOT_FOUND, "no version 2"),
    "no version": ({"model_version": "latest"}, StatusCode.NOT_FOUND, "versions are numbers"),
    "no input": ({"inputs": []}, StatusCode.INVALID_ARGUMENT, "takes one input"),
    "the input twice": ({"inputs": [IMAGE] * 9}, StatusCode.INVALID_ARGUMENT, "appears twice"),
    "another input": (
        {"inputs": [IMAGE | {"name": "x"}]}, StatusCode.INVALID_ARGUMENT, "takes one input",
    ),
    "another datatype": (
        {"inputs": [IMAGE | {"datatype": "FP32"}]}, StatusCode.INVALID_ARGUMENT, "not 'FP32'",
    ),
    "a negative length": (
        {"inputs": [IMAGE | {"shape": [-1, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "must be",
    ),
    "a shape that overflows": (
        {"inputs": [IMAGE | {"shape": [2**62, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "shape",
    ),
    "many dimensions": (
        {"inputs": [IMAGE | {"shape": [1] * 10_000}]}, StatusCode.INVALID_ARGUMENT, "must be",
    ),
    "too many images": (
        {"inputs": [IMAGE | {"shape": [33, 32, 32, 3]}]}, StatusCode.INVALID_ARGUMENT, "1 to 32",
    ),
    "nothing": ({"raw_input_contents": []}, StatusCode.INVALID_ARGUMENT, "0 uint_contents"),
    "a byte too few": (
        {"raw_input_contents": [bytes(3071)]}, StatusCode.INVALID_ARGUMENT, "3071 bytes",
    ),
    "raw contents twice": (
        {"raw_input_contents": [bytes(3072)] * 2}, StatusCode.INVALID_ARGUMENT, "one entry of raw",
    ),
    "contents of both kinds": (
        {"inputs": [IMAGE | {"contents": {"uint_contents": [1]}}]},
        StatusCode.INVALID_ARGUMENT,
        "either contents or one entry",
    ),
    "contents of another type": (
        {"inputs": [IMAGE | {"contents": {"fp32_contents": [1.0] * 3072}}],
         "raw_input_contents": []},
        StatusCode.INVALID_ARGUMENT,
        "0 uint_contents",
    ),
    "an unknown output": (
        {"outputs": [{"name": "x"}]}, StatusCode.INVALID_ARGUMENT, "no output 'x'",
    ),
    "an output over and over": (
        {"outputs": [{"name": "logits"}] * 1_000}, StatusCode.INVALID_ARGUMENT, "appears twice",
    ),
    "an output too many times to read on": (
        {"outputs": [{"name": "logits"}] * 10_000}, StatusCode.INVALID_ARGUMENT, "4,096 fields",
    ),
    "no class": (
        {"outputs": [{"name": "logits", "parameters": {"classification": {"int64_param": 0}}}]},
        StatusCode.INVALID_ARGUMENT,
        "a number of classes",
    ),
    "classes as text": (
        {"outputs": [{"name": "logits", "parameters": {"classification": {"string_param": "2"}}}]},
        StatusCode.INVALID_ARGUMENT,
        "a whole number",
    ),
    "a sequence": (
        {"parameters": {"sequence_id": {"int64_param": 1}}},
        StatusCode.INVALID_ARGUMENT,
        "is stateless",
    ),
    "an input in shared memory": (
        {"inputs": [IMAGE | parameter(string_param="a")]},
        StatusCode.INVALID_ARGUMENT,
        "shared memory",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_have_their_codes(server: Server, pixels: Pixels, name: str) -> None:
    changes, code, reason = BAD[name]
    with stub_of(address(server)) as stub:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(image_request(pixels, **changes))
        assert caught.value.code() == code
        assert reason in caught.value.details()
        assert stub.ModelInfer(image_request(pixels)).model_name == DEEPVIT


def test_malformed_messages_are_client_errors(server: Server) -> None:
    with grpc.insecure_channel(address(server)) as channel:
        for name in ("ModelInfer", "ServerLive"):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(f"/{SERVICE}/{name}")(b"\xff\xff\xff")
            assert caught.value.code() == StatusCode.INVALID_ARGUMENT
        answers = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(iter([b"\xff\xff\xff"]))
        with pytest.raises(grpc.RpcError) as caught:
            next(answers)
        assert caught.value.code() == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("values", [[256] * 3072, [2**32 - 1] * 3072, [1] * 3071, []])
def test_typed_contents_that_do_not_fit(server: Server, pixels: Pixels, values: list[int]) -> None:
    with stub_of(address(server)) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(image_request(pixels, **typed(pixels, values)))
    assert caught.value.code() == StatusCode.INVALID_ARGUMENT


def test_unsupported_methods_are_unimplemented(server: Server) -> None:
    with stub_of(address(server)) as stub:
        for call, request in [
            (stub.SystemSharedMemoryStatus, pb.SystemSharedMemoryStatusRequest()),
            (stub.CudaSharedMemoryUnregister, pb.CudaSharedMemoryUnregisterRequest()),
            (stub.TraceSetting, pb.TraceSettingRequest()),
            (stub.LogSettings, pb.LogSettingsRequest()),
        ]:
            with pytest.raises(grpc.RpcError) as caught:
                call(request)
            assert caught.value.code() == StatusCode.UNIMPLEMENTED


WORDS = st.sampled_from(["", "images", "logits", "UINT8", "FP32", DEEPVIT, "1", "0"]) | st.text(
    max_size=5
)
PARAMETERS = st.dictionaries(
    st.sampled_from(["classification", "binary_data", "binary_data_output", "sequence_id", "x"]),
    st.sampled_from(
        [{}, {"int64_param": 2}, {"bool_param": True}, {"string_param": "a"}, {"double_param": 2.0}]
    ),
    max_size=2,
)
INPUTS = st.fixed_dictionaries(
    {
        "name": WORDS,
        "datatype": WORDS,
        "shape": st.just([1, 32, 32, 3]) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    },
    optional={
        "parameters": PARAMETERS,
        "contents": st.fixed_dictionaries(
            {}, optional={"uint_contents": st.just([7] * 3072), "bool_contents": st.just([True])}
        ),
    },
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model_version": WORDS,
            "id": WORDS,
            "parameters": PARAMETERS,
            "inputs": st.lists(st.just(IMAGE) | INPUTS, max_size=2),
            "outputs": st.lists(
                st.fixed_dictionaries({"name": WORDS}, optional={"parameters": PARAMETERS}),
                max_size=2,
            ),
            "raw_input_contents": st.lists(
                st.just(bytes(3072)) | st.binary(max_size=9), max_size=2
            ),
        },
    )
)
@settings(
    deadline=None,
    derandomize=True,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_invalid_request_is_a_server_error(
    server: Server, pixels: Pixels, changes: dict[str, Any]
) -> None:
    with stub_of(address(server)) as stub:
        call = stub.ModelInfer.future(image_request(pixels, **changes))
        assert call.code() in (StatusCode.OK, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND)
        assert call.code() != StatusCode.OK or call.result().outputs


def test_every_error_has_a_code() -> None:
    def tree(error: type[ServiceError]) -> Iterator[type[ServiceError]]:
        yield error
        for child in error.__subclasses__():
            yield from tree(child)

    only_over_http = {UriTooLong, MisdirectedRequest, HeadersTooLarge}
    assert {error.status for error in {*tree(ServiceError)} - only_over_http} <= STATUS_CODES.keys()


def test_the_server_is_still_well(server: Server, triton: Any, pixels: Pixels) -> None:
    """Must be the last test in this file."""
    assert triton.is_server_ready()
    assert triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits").shape == (1, 10)
    assert "Traceback" not in "".join(server.log)
