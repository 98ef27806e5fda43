"""GET /images: the pixels that the model saw, unchanged."""

import io

import httpx
import numpy as np
import pytest
from PIL import Image

from models.preprocess import Preprocessing, preprocess
from tests.conftest import DEEPVIT


def test_the_stored_input_comes_back_pixel_by_pixel(client: httpx.Client, photo: bytes) -> None:
    image_id = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    answer = client.get(f"/images/{image_id}")
    assert answer.headers["content-type"] == "image/png"
    rule = client.get(f"/models/{DEEPVIT}").json()["manifest"]["preprocessing"]
    expected = preprocess(Image.open(io.BytesIO(photo)), Preprocessing(**rule))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)


@pytest.mark.parametrize(
    ("id", "status", "code"),
    [("0" * 32, 404, "unknown-image"), ("short", 422, "invalid-request")],
)
def test_unknown_and_malformed_ids(client: httpx.Client, id: str, status: int, code: str) -> None:
    answer = client.get(f"/images/{id}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
