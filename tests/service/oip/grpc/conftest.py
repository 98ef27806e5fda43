"""A server with gRPC and its clients, which these modules share."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tritonclient import http as over_http
from tritonclient.grpc import InferenceServerClient

from models.arrays import Pixels
from models.preprocess import preprocess
from tests.service.http.v2_requests import RULE
from tests.service.oip.grpc.calls import address
from tests.support.server import LARGEST_BATCH, Server, running_server


@pytest.fixture(scope="package")
def server(repository: Path) -> Iterator[Server]:
    with running_server(repository, grpc_port=0, max_batch_size=LARGEST_BATCH) as running:
        yield running


@pytest.fixture(scope="package")
def rest(server: Server) -> Iterator[httpx.Client]:
    with server.client() as session:
        yield session


@pytest.fixture(scope="package")
def triton(server: Server) -> Iterator[Any]:
    with InferenceServerClient(address(server)) as session:
        yield session


@pytest.fixture(scope="package")
def triton_http(server: Server) -> Iterator[Any]:
    with over_http.InferenceServerClient(server.url.removeprefix("http://")) as session:
        yield session


@pytest.fixture(scope="package")
def pixels(photo: bytes) -> Pixels:
    """The model input for the photograph. [1, 32, 32, 3]"""
    return preprocess(Image.open(io.BytesIO(photo)), RULE)[None]
