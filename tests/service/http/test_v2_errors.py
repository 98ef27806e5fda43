"""Requests to /v2 that are wrong or too large: each is refused, and the server stays well."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tritonclient.http import InferenceServerClient

from models.arrays import Pixels
from tests.conftest import DEEPVIT
from tests.service.http.v2_requests import INFER, LENGTH, MODEL, error, image_request, tensor
from tests.support.server import running_server


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("GET", "/v2/nothing", 404, "Not Found"),
        ("GET", "/v2/models", 404, "Not Found"),
        ("GET", INFER, 405, "Method Not Allowed"),
        ("POST", "/v2", 405, "Method Not Allowed"),
        ("GET", "/v2/models/resnet", 404, "No such model: no model resnet; served: "),
        ("GET", "/v2/models/%2e%2e%2fetc", 404, ""),
        ("GET", "/v2/models/resnet/ready", 404, "No such model"),
        ("GET", "/v2/models/resnet/config", 404, "No such model"),
        ("GET", "/v2/models/resnet/stats", 404, "No such model"),
        ("POST", "/v2/models/resnet/infer", 404, "No such model"),
        ("GET", f"{MODEL}/versions/2", 404, f"no version 2 of {DEEPVIT}; served: 1"),
        ("GET", f"{MODEL}/versions/01", 404, "no version '01' of"),
        ("GET", f"{MODEL}/versions/-1/ready", 404, "no version '-1'"),
        ("GET", f"{MODEL}/versions/{'9' * 99}/config", 404, "no version '999"),
        ("GET", f"{MODEL}/versions/latest/stats", 404, "no version 'latest'"),
        ("POST", f"{MODEL}/versions/2/infer", 404, "no version 2"),
    ],
)
def test_errors_have_the_form_of_the_protocol(
    client: httpx.Client, method: str, path: str, status: int, reason: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert reason in error(response)
    assert client.get("/v2x").headers["content-type"] == "application/problem+json"


BAD_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "deep JSON": b"[" * 50_000,
    "NaN": b'{"inputs": [NaN]}',
    "an image": b"\xff\xd8\xff\xe0",
    "no fields": b"{}",
    "a negative length": b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[-1,32,32,3]}]}',
    "a shape that overflows": b'{"inputs":[{"name":"images","datatype":"UINT8",'
    b'"shape":[4611686018427387904,32,32,3],"parameters":{"binary_data_size":0}}]}',
    "a shape that overflows more": b'{"inputs":[{"name":"images","datatype":"UINT8",'
    b'"shape":[1,18446744073709551615,18446744073709551615,3],"data":[]}]}',
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_refused_and_the_server_stays_well(
    client: httpx.Client, pixels: Pixels, name: str
) -> None:
    response = client.post(INFER, content=BAD_BODIES[name])
    assert response.status_code == 400
    assert error(response).startswith("The inference request is invalid: ")
    assert client.post(INFER, json=image_request(pixels)).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "image"},
        {"datatype": "FP32"},
        {"shape": [1, 32, 32]},
        {"shape": [1, 3, 32, 32]},
        {"shape": [0, 32, 32, 3]},
        {"data": [1, 2, 3]},
        {"data": [0.5] * 3072},
        {"data": [True] * 3072},
        {"data": [256] * 3072},
        {"data": [[1] * 3072]},
        {"parameters": {"shared_memory_region": "a", "shared_memory_byte_size": 3072}},
        {"parameters": {"binary_data_size": 3072}},
    ],
    ids=str,
)
def test_inputs_that_do_not_fit(
    client: httpx.Client, pixels: Pixels, changes: dict[str, Any]
) -> None:
    response = client.post(INFER, json=image_request(pixels, **changes))
    assert response.status_code == 400, response.text
    assert error(response)
    assert client.post(INFER, json=image_request(pixels)).status_code == 200


@pytest.mark.parametrize("length", ["-1", "0", "1", "abc", "99999999", "9" * 40, "", "1.5"])
def test_length_headers_that_do_not_fit(client: httpx.Client, pixels: Pixels, length: str) -> None:
    body, _ = InferenceServerClient.generate_request_body([tensor(pixels)])
    response = client.post(INFER, content=body, headers={LENGTH: length})
    assert response.status_code == 400
    assert error(response)


def test_compressed_requests_are_limited_after_decompression(
    client: httpx.Client, pixels: Pixels
) -> None:
    bomb = bytes(40 * 2**20)
    good = json.dumps(image_request(pixels)).encode()
    for body, encoding, status, reason in [
        (gzip.compress(bomb), "gzip", 413, "decompressed body has more than 33,554,432 bytes"),
        (zlib.compress(bomb), "deflate", 413, "decompressed body has more than 33,554,432 bytes"),
        (good, "gzip", 400, "not gzip"),
        (gzip.compress(good)[:-20], "gzip", 400, "not one whole gzip stream"),
        (good, "br", 415, "send gzip, deflate or identity"),
        (good, "gzip, deflate", 415, "not 'gzip, deflate'"),
    ]:
        response = client.post(INFER, content=body, headers={"Content-Encoding": encoding})
        assert response.status_code == status
        assert reason in error(response)
        whole = client.post(
            INFER, content=gzip.compress(good), headers={"Content-Encoding": "gzip"}
        )
        assert whole.status_code == 200


def test_bodies_and_answers_are_limited(repository: Path, pixels: Pixels) -> None:
    def endless() -> Iterator[bytes]:
        yield from [b" " * 1000] * 1000

    with (
        running_server(repository, max_upload_bytes=50_000, max_answer_bytes=100_000) as server,
        server.client() as client,
    ):
        for body in (b" " * 1_000_000, endless()):
            response = client.post(INFER, content=body)
            assert response.status_code == 413
            assert "more than 50,000 bytes" in error(response)
        large = image_request(pixels) | {"outputs": [{"name": "softmax.map.00"}]}
        response = client.post(INFER, json=large)
        assert response.status_code == 422
        assert "about 354,900 bytes, and at most 100,000" in error(response)
        assert client.post(INFER, json=image_request(pixels)).status_code == 200
