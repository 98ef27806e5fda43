"""The bundled DeepViT answers the explorer's photographs as a person would."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import BUNDLED
from tests.support.server import ROOT, running_server

SAMPLES = ROOT / "service" / "web" / "samples"
ACCEPTED = {
    "cat": {"cat"},
    "motorcycles": {"motorcycle"},
    "boat": {"boat"},
    "mountain": {"mountain"},
    "island": {"sea"},
    "houses": {"city street"},
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with running_server(ROOT / "model_repository") as server, server.client() as session:
        yield session


def test_every_photograph_has_an_answer_that_is_accepted() -> None:
    assert {path.stem for path in SAMPLES.glob("*.jpg")} == ACCEPTED.keys()


@pytest.mark.parametrize("name", ACCEPTED)
def test_photographs_are_answered_sensibly(client: httpx.Client, name: str) -> None:
    image = (SAMPLES / f"{name}.jpg").read_bytes()
    answer = client.post("/classify", params={"model": BUNDLED[0]}, files={"image": image})
    (first, *_) = answer.raise_for_status().json()["results"][0]["predictions"]
    assert first["label"] in ACCEPTED[name]
