"""The REST codec of the Open Inference Protocol: round trips, and reasons for refusals."""

import struct
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult
from tritonclient.utils import deserialize_bytes_tensor

from models.size import Size
from service.errors import InvalidInference, UploadTooLarge
from service.oip.inference import Contract, InferRequest, RequestedOutput
from service.oip.rest import EncodedResponse, decode, encode, max_json_bytes

LABELS = ("cat", "dog: small", "Käfer")
CONTRACT = Contract(
    size=Size.of(2), max_batch_size=4, outputs={"logits": (3,), "maps": (2, 5)}, labels=LABELS
)
IMAGE = list(range(12))


def request(**changes: Any) -> dict[str, Any]:
    """One image as JSON, with changed fields; `...` leaves a field out."""
    message = {"inputs": [tensor()], **changes}
    return {name: value for name, value in message.items() if value is not ...}


def tensor(**changes: Any) -> dict[str, Any]:
    fields = {"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 3], "data": IMAGE}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def binary(size: Any = 12, **changes: Any) -> dict[str, Any]:
    parameters = {"binary_data_size": size}
    return request(inputs=[tensor(data=..., parameters=parameters, **changes)])


def read(message: Any) -> InferRequest:
    return decode(orjson.dumps(message), None, CONTRACT)


def read_binary(message: Any, tail: bytes) -> InferRequest:
    text = orjson.dumps(message)
    return decode(text + tail, str(len(text)), CONTRACT)


def respond(request: InferRequest, values: list[dict[str, Any]]) -> EncodedResponse:
    return encode(request, values, model="m", version=3, labels=LABELS)


images = st.integers(1, 4).flatmap(
    lambda count: st.binary(min_size=12 * count, max_size=12 * count).map(
        lambda data: np.frombuffer(data, np.uint8).reshape(-1, 2, 2, 3)
    )
)


@given(images, st.sampled_from(["flat", "nested", "binary"]), st.text(max_size=20))
@settings(deadline=None, derandomize=True)
def test_images_are_decoded_unchanged(pixels: Any, form: str, request_id: str) -> None:
    shape = list(pixels.shape)
    if form == "binary":
        message = binary(pixels.size, shape=shape) | {"id": request_id}
        found = read_binary(message, pixels.tobytes())
    else:
        data = pixels.ravel().tolist() if form == "flat" else pixels.tolist()
        found = read(request(id=request_id, inputs=[tensor(shape=shape, data=data)]))
    np.testing.assert_array_equal(found.images, pixels)
    assert found.images.dtype == np.uint8
    assert found.id == request_id
    assert found.outputs == (RequestedOutput("logits"),)


@given(images, st.booleans(), st.booleans(), st.integers(0, 5))
@settings(deadline=None, derandomize=True)
def test_requests_of_tritonclient_are_decoded(
    pixels: Any, binary_in: bool, binary_out: bool, classes: int
) -> None:
    given_ = InferInput("images", list(pixels.shape), "UINT8")
    given_.set_data_from_numpy(pixels, binary_data=binary_in)
    body, length = InferenceServerClient.generate_request_body(
        [given_],
        outputs=[
            InferRequestedOutput("maps", binary_data=binary_out),
            InferRequestedOutput("logits", binary_data=binary_out, class_count=classes),
        ],
        request_id="a",
        priority=1,
        timeout=5,
    )
    found = decode(body, None if length is None else str(length), CONTRACT)
    np.testing.assert_array_equal(found.images, pixels)
    assert found.outputs == (
        RequestedOutput("maps", binary_out),
        RequestedOutput("logits", binary_out, min(classes, 3)),
    )


numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(
    st.lists(st.lists(numbers, min_size=13, max_size=13), min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None, derandomize=True)
def test_tritonclient_reads_responses(
    rows: list[list[float]], maps_binary: bool, logits_binary: bool
) -> None:
    wanted = InferRequest(
        id="7",
        images=np.zeros((len(rows), 2, 2, 3), np.uint8),
        outputs=(RequestedOutput("maps", maps_binary), RequestedOutput("logits", logits_binary)),
    )
    values = np.array(rows, np.float32)
    encoded = respond(
        wanted, [{"maps": row[:10].reshape(2, 5), "logits": row[10:]} for row in values]
    )
    found = InferResult.from_response_body(encoded.body, header_length=encoded.json_length)
    np.testing.assert_array_equal(found.as_numpy("maps"), values[:, :10].reshape(-1, 2, 5))
    np.testing.assert_array_equal(found.as_numpy("logits"), values[:, 10:])
    assert found.get_response()["id"] == "7"
    assert found.get_response()["model_name"] == "m"
    assert found.get_response()["model_version"] == "3"
    assert (encoded.json_length is None) == (not maps_binary and not logits_binary)


def test_classes_are_strings_best_first_as_triton_writes_them() -> None:
    values: list[dict[str, Any]] = [
        {"logits": np.array([0.5, 2, -1], np.float32)},
        {"logits": np.array([1, 1, 1e6], np.float32)},
    ]
    zeros = np.zeros((2, 2, 2, 3), np.uint8)
    text = respond(InferRequest(None, zeros, (RequestedOutput("logits", classes=2),)), values)
    (output,) = orjson.loads(text.body)["outputs"]
    assert output == {
        "name": "logits",
        "datatype": "BYTES",
        "shape": [2, 2],
        "data": ["2.000000:1:dog: small", "0.500000:0:cat", "1000000.000000:2:Käfer",
                 "1.000000:0:cat"],
    }  # fmt: skip
    raw = respond(InferRequest(None, zeros, (RequestedOutput("logits", True, 2),)), values)
    assert raw.json_length is not None
    tail = raw.body[raw.json_length :]
    assert [text.decode() for text in deserialize_bytes_tensor(tail)] == output["data"]
    assert tail[:4] == struct.pack("<I", 21)
    assert "id" not in orjson.loads(raw.body[: raw.json_length])


def test_binary_is_chosen_for_all_outputs_or_for_one() -> None:
    message = request(
        parameters={"binary_data_output": True, "priority": 1, "anything": [1]},
        outputs=[
            {"name": "logits", "parameters": {"binary_data": False}},
            {"name": "maps", "parameters": {"other": 1}},
        ],
    )
    assert read(message).outputs == (
        RequestedOutput("logits", False),
        RequestedOutput("maps", True),
    )
    del message["outputs"]
    assert read(message).outputs == (RequestedOutput("logits", True),)
    assert read(message | {"outputs": []}).outputs == (RequestedOutput("logits", True),)


def test_the_size_of_a_response_is_known_in_advance() -> None:
    message = request(
        inputs=[tensor(shape=[2, 2, 2, 3], data=IMAGE * 2)],
        outputs=[{"name": "logits"}, {"name": "maps", "parameters": {"binary_data": True}}],
    )
    assert read(message).response_bytes(CONTRACT) == 2 * (3 * 14 + 10 * 4)


def output(name: Any = "logits", **parameters: Any) -> dict[str, Any]:
    return request(outputs=[{"name": name, "parameters": parameters}])


# Invalid requests, with part of the error detail.
WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "the request is not an object"),
    "no inputs": (request(inputs=...), "inputs is missing"),
    "empty inputs": (request(inputs=[]), "one input"),
    "inputs of another type": (request(inputs={}), "inputs is missing or not a list"),
    "an input that is no object": (request(inputs=[1]), "not an object"),
    "an input without a name": (request(inputs=[tensor(name=...)]), "has no name"),
    "another input": (request(inputs=[tensor(name="x")]), "takes one input, images"),
    "the input twice": (request(inputs=[tensor()] * 2), "appears twice in inputs"),
    "one input more": (request(inputs=[tensor(), tensor(name="x")]), "takes one input"),
    "no datatype": (request(inputs=[tensor(datatype=...)]), "datatype must be UINT8, not None"),
    "another datatype": (request(inputs=[tensor(datatype="FP32")]), "not 'FP32'"),
    "no shape": (request(inputs=[tensor(shape=...)]), "shape must be .B, 2, 2, 3."),
    "no data": (request(inputs=[tensor(data=...)]), "data is missing"),
    "data of another type": (request(inputs=[tensor(data="abc")]), "data is missing or not"),
    "no values": (request(inputs=[tensor(data=[])]), "0 values, and the shape needs 12"),
    "a value too few": (request(inputs=[tensor(data=IMAGE[1:])]), "11 values"),
    "a value too many": (request(inputs=[tensor(data=[*IMAGE, 1])]), "13 values"),
    "an object among values": (request(inputs=[tensor(data=[*IMAGE[1:], {}])]), "whole numbers"),
    "a list among values": (request(inputs=[tensor(data=[*IMAGE[1:], []])]), "whole numbers"),
    "a value among lists": (
        request(inputs=[tensor(data=[[1], 2])]),
        "flat, or nested like the shape",
    ),
    "lists cut elsewhere": (
        request(inputs=[tensor(data=[IMAGE])]),
        "flat, or nested like the shape",
    ),
    "lists too short": (
        request(inputs=[tensor(data=[[[[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [1, 2]]]])]),
        "flat, or nested like the shape",
    ),
    "lists too deep": (
        request(inputs=[tensor(data=[[[[[1], 2, 3], [1, 2, 3]]] * 2])]),
        "whole numbers",
    ),
    "data beside binary": (
        request(inputs=[tensor(parameters={"binary_data_size": 0})]),
        "not both",
    ),
    "binary without bytes": (binary(), "binary_data_size is 12, and 0 bytes follow"),
    "parameters of another type": (request(parameters=[]), "parameters must be an object"),
    "input parameters of another type": (request(inputs=[tensor(parameters=1)]), "an object"),
    "a number as id": (request(id=1), "id must be a string, not 1"),
    "a sequence": (request(parameters={"sequence_id": 1}), "is stateless.*sequence_id"),
    "binary_data_output as a word": (request(parameters={"binary_data_output": "yes"}), "boolean"),
    "outputs of another type": (request(outputs={"name": "logits"}), "outputs is missing or not"),
    "an unknown output": (output("softmax"), "no output 'softmax'"),
    "an output twice": (request(outputs=[{"name": "maps"}] * 2), "appears twice in outputs"),
    "an output without a name": (output(None), "has no name"),
    "binary_data as a number": (output(binary_data=1), "binary_data must be a boolean, not 1"),
    "no class": (output(classification=0), "a number of classes"),
    "fewer than no class": (output(classification=-1), "a number of classes"),
    "half a class": (output(classification=1.5), "a whole number, not 1.5"),
    "true classes": (output(classification=True), "a whole number, not True"),
    "classes of maps": (output("maps", classification=1), "for logits only"),
    "an output in shared memory": (output(shared_memory_region="a"), "shared memory"),
    "an input in shared memory": (
        request(inputs=[tensor(data=..., parameters={"shared_memory_region": "a"})]),
        "shared memory",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_requests_are_refused_with_a_reason(name: str) -> None:
    message, reason = WRONG[name]
    with pytest.raises(InvalidInference, match=reason):
        read(message)


@pytest.mark.parametrize(
    "shape",
    [[], [1], [1, 2, 2], [0, 2, 2, 3], [-1, 2, 2, 3], [5, 2, 2, 3], [1, 2, 3, 2], [1, 2, 2, 3, 1],
     [2**62, 2, 2, 3], [2**70, 2, 2, 3], [1.0, 2, 2, 3], [True, 2, 2, 3], ["1", 2, 2, 3],
     [[1], 2, 2, 3], [1, 2, 2, None], [1, -2, -2, 3], "1,2,2,3", {"0": 1}, 12, [1] * 100_000],
    ids=lambda shape: str(shape)[:20],
)  # fmt: skip
def test_invalid_shapes(shape: Any) -> None:
    text = orjson.dumps(request(inputs=[tensor(shape="SHAPE")]))
    written = text.replace(b'"SHAPE"', repr(shape).replace("'", '"').encode())
    with pytest.raises((InvalidInference, UploadTooLarge)) as caught:
        decode(written.replace(b"True", b"true").replace(b"None", b"null"), None, CONTRACT)
    assert len(caught.value.detail) < 200


@pytest.mark.parametrize(
    "value", ["-1", "256", "1.5", "1.0", "true", "null", '"1"', "1e400", "2e9"]
)
def test_values_that_are_not_bytes(value: str) -> None:
    text = orjson.dumps(request(inputs=[tensor(data=["VALUE", *IMAGE[1:]])]))
    with pytest.raises(InvalidInference):
        decode(text.replace(b'"VALUE"', value.encode()), None, CONTRACT)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nul", b"{}{}", b'{"inputs": NaN}', b'{"inputs": [Infinity]}', b"\xff\xfe{}",
     b'{"id": "\\ud800"}', b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 5000 + b"1" + b"}" * 5000],
    ids=lambda text: str(text[:12]),
)  # fmt: skip
def test_invalid_json(text: bytes) -> None:
    with pytest.raises(InvalidInference, match="not JSON"):
        decode(text, None, CONTRACT)


@pytest.mark.parametrize(
    "length", ["", "-1", "+5", "1e2", "abc", "0x10", "٣", "1 2", "9" * 30, "9" * 18, "100000"]
)
def test_header_lengths_that_do_not_fit_the_body(length: str) -> None:
    with pytest.raises(InvalidInference, match="Inference-Header-Content-Length"):
        decode(orjson.dumps(request()), length, CONTRACT)


def test_the_header_says_where_json_ends_and_bytes_begin() -> None:
    tail = bytes(IMAGE)
    text = orjson.dumps(binary())
    assert read_binary(binary(), tail).images.ravel().tolist() == IMAGE
    for length in (0, len(text) - 1, len(text) + 1, len(text) + 12):
        with pytest.raises(InvalidInference):
            decode(text + tail, str(length), CONTRACT)


@pytest.mark.parametrize(
    ("message", "tail", "reason"),
    [
        (binary(), bytes(11), "binary_data_size is 12, and 11 bytes follow"),
        (binary(), bytes(13), "and 13 bytes follow"),
        (binary(11), bytes(11), "11 bytes, and the shape needs 12"),
        (binary(-12), bytes(12), "binary_data_size is -12"),
        (binary(12.0), bytes(12), "binary_data_size is 12.0"),
        (binary(True), bytes(1), "binary_data_size is True"),
        (binary("12"), bytes(12), "binary_data_size is '12'"),
        (binary(None), bytes(12), "binary_data_size is None"),
        (binary([12]), bytes(12), "binary_data_size is a list"),
        (request(), bytes(12), "no input declares the 12 bytes"),
        (binary(shape=[2, 2, 2, 3]), bytes(12), "12 bytes, and the shape needs 24"),
    ],
)
def test_binary_tensors_that_do_not_fit(message: Any, tail: bytes, reason: str) -> None:
    with pytest.raises(InvalidInference, match=reason):
        read_binary(message, tail)


def test_json_longer_than_any_valid_request_is_not_parsed() -> None:
    text = b"[" + b"[]," * (max_json_bytes(CONTRACT) // 3) + b"1]"
    with pytest.raises(UploadTooLarge, match="send tensors in binary form"):
        decode(text, None, CONTRACT)


def test_pretty_printed_json_is_not_too_long() -> None:
    full = np.full((4, 2, 2, 3), 255, np.uint8).tolist()
    text = orjson.dumps(
        request(inputs=[tensor(shape=[4, 2, 2, 3], data=full)]), option=orjson.OPT_INDENT_2
    )
    assert decode(text, None, CONTRACT).images.shape == (4, 2, 2, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "shape", "data", "datatype", "parameters", "inputs", "outputs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["request", "inputs", "input", "outputs", "parameters"]))
@settings(deadline=None, derandomize=True, max_examples=300)
def test_any_json_anywhere_is_decoded_or_refused(value: Any, place: str) -> None:
    message = {
        "request": value,
        "inputs": request(inputs=value),
        "input": request(inputs=[value]),
        "outputs": request(outputs=value),
        "parameters": request(parameters=value),
    }[place]
    with suppress(InvalidInference):
        assert read(message).images.ravel().tolist() == IMAGE
