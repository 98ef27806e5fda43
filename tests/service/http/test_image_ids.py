"""An id tells nothing of its image: nobody can find out what others have classified."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from models.arrays import Pixels
from tests.conftest import DEEPVIT, VIT
from tests.support.server import running_server


@pytest.fixture
def two_servers(repository: Path) -> Iterator[list[httpx.Client]]:
    with (
        running_server(repository) as one,
        running_server(repository) as other,
        one.client() as first,
        other.client() as second,
    ):
        yield [first, second]


def classify(client: httpx.Client, photo: bytes, model: str = DEEPVIT) -> str:
    answer = client.post("/classify", params={"model": model}, files={"image": photo})
    image_id: str = answer.json()["results"][0]["id"]
    return image_id


def test_who_has_the_picture_cannot_ask_whether_it_was_classified(
    two_servers: list[httpx.Client], photo: bytes, pixels: Pixels
) -> None:
    asked, own = two_servers
    image_id = classify(asked, photo)
    hashes = [
        hashlib.new(name, shape + pixels.tobytes()).hexdigest()[:32]
        for name in ("sha256", "sha512", "md5", "blake2b")
        for shape in (b"32x32x3", b"1x32x32x3", b"")
    ]
    for guess in [classify(own, photo), *hashes]:  # one of a service that the asker runs, too
        assert guess != image_id
        for path in (f"/images/{guess}", f"/similarity?id={guess}", f"/attention-maps?id={guess}"):
            refused = asked.get(path, headers={"If-None-Match": "*"})
            assert (refused.status_code, refused.json()["code"]) == (404, "unknown-image")
    assert asked.get(f"/images/{image_id}").status_code == 200


def test_within_a_service_equal_pixels_have_one_id(client: httpx.Client, photo: bytes) -> None:
    assert classify(client, photo) == classify(client, photo) == classify(client, photo, VIT)
