"""Hundreds of randomly damaged inference requests: none makes the server fail."""

import gzip
import json
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.http import InferResult

from models.arrays import Pixels
from tests.conftest import DEEPVIT
from tests.service.http.v2_requests import INFER, LENGTH, error, tensor
from tests.support.server import Server

ODD: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from([[], {}, [[]], [-1, 32, 32, 3], "UINT8", "images", "logits", 3072, 2**63])
)


@st.composite
def damaged_requests(draw: st.DrawFn) -> tuple[bytes, dict[str, str]]:
    """A valid binary request after up to seven accidents."""
    message: dict[str, Any] = {
        "id": "1",
        "parameters": {"binary_data_output": True},
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": [1, 32, 32, 3],
                "parameters": {"binary_data_size": 3072},
            }
        ],
        "outputs": [
            {"name": "logits", "parameters": {"binary_data": True, "classification": 2}},
            {"name": "softmax.rollout"},
        ],
    }
    for _ in range(draw(st.integers(0, 3))):
        _damage(draw, message)
    text = json.dumps(message).encode()
    tail = bytearray(range(256)) * 12
    for _ in range(draw(st.integers(0, 3))):
        tail[draw(st.integers(0, len(tail) - 1))] ^= draw(st.integers(1, 255))
    body = text + tail
    length = str(len(text))
    accident = draw(st.sampled_from(["none", "length", "flip", "cut", "more", "encoding"]))
    headers = {LENGTH: length}
    if accident == "length":
        number = st.integers(-5, len(body) + 5).map(str)
        headers[LENGTH] = draw(number | st.sampled_from(["", "x", "1e3", "9" * 30]))
    elif accident == "flip":
        flipped = bytearray(body)
        flipped[draw(st.integers(0, len(text) - 1))] ^= draw(st.integers(1, 255))
        body = bytes(flipped)
    elif accident == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif accident == "more":
        body += draw(st.binary(max_size=20))
    elif accident == "encoding":
        headers["Content-Encoding"] = draw(st.sampled_from(["gzip", "deflate", "br", "identity"]))
        body = gzip.compress(body, mtime=0)[: draw(st.integers(0, 5000))]
    return bytes(body), headers


def _damage(draw: st.DrawFn, message: dict[str, Any]) -> None:
    """Replace, remove, add or repeat something somewhere in the JSON."""
    place: Any = message
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or draw(st.booleans()):
            break
        place = place[key]
    action = draw(st.sampled_from(["replace", "remove", "add", "repeat"]))
    if action == "replace":
        place[key] = draw(ODD)
    elif action == "remove":
        del place[key]
    elif isinstance(place, list):
        place.append(draw(ODD) if action == "add" else place[key])
    else:
        place[draw(st.text(max_size=8))] = draw(ODD)


@given(damaged_requests())
@settings(
    deadline=None,
    derandomize=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_damaged_request_is_the_servers_fault(
    client: httpx.Client, damaged: tuple[bytes, dict[str, str]]
) -> None:
    body, headers = damaged
    response = client.post(INFER, content=body, headers=headers)
    assert response.status_code in (200, 400, 413, 415), response.text
    if response.status_code == 200:
        length = response.headers.get(LENGTH.lower())
        found = InferResult.from_response_body(response.content, header_length=length)
        assert found.get_response()["outputs"]
    else:
        assert error(response)


def test_the_server_is_well_afterwards(server: Server, triton: Any, pixels: Pixels) -> None:
    """Last in this file."""
    assert triton.is_server_ready()
    assert triton.infer(DEEPVIT, [tensor(pixels)]).as_numpy("logits").shape == (2, 10)
    assert "Traceback" not in "".join(server.log)
