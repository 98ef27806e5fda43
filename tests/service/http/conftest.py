"""NVIDIA's client of the Open Inference Protocol, and an input for it."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tritonclient.http import InferenceServerClient

from models.arrays import Pixels
from models.preprocess import preprocess
from tests.service.http.v2_requests import RULE
from tests.support.server import Server


@pytest.fixture(scope="module")
def triton(server: Server) -> Iterator[Any]:
    with InferenceServerClient(server.url.removeprefix("http://")) as session:
        yield session


@pytest.fixture(scope="module")
def pixels(photo: bytes) -> Pixels:
    """The photograph as the models see it, upright and upside down. [2, 32, 32, 3]"""
    seen = preprocess(Image.open(io.BytesIO(photo)), RULE)
    return np.stack([seen, seen[::-1]])
