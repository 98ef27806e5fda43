"""POST /classify on a real server with the trained models and real images."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from export.verify import normalize
from models import checkpoint
from models.imaging import heif
from models.preprocess import preprocess
from tests.conftest import DEEPVIT, VIT
from tests.support import small
from tests.support.answers import results
from tests.support.pictures import png
from tests.support.server import running_server


@pytest.mark.parametrize("model", [DEEPVIT, VIT])
def test_probabilities_are_those_of_pytorch(client: httpx.Client, photo: bytes, model: str) -> None:
    trained = checkpoint.load(small.weights(model))
    pixels = preprocess(Image.open(io.BytesIO(photo)), trained.preprocessing)
    with torch.inference_mode():
        logits = trained.network()(normalize(pixels[None], trained.preprocessing))
    expected = logits.softmax(dim=-1)[0].numpy()

    (result,) = results(client.post(f"/classify?model={model}&top_k=10", files={"image": photo}))
    assert [p["index"] for p in result["predictions"]] == list(np.argsort(-expected))
    assert trained.labels is not None
    for prediction in result["predictions"]:
        assert prediction["label"] == trained.labels[prediction["index"]]
        assert prediction["probability"] == pytest.approx(expected[prediction["index"]], abs=2e-5)


def test_a_raw_body_and_a_form_give_the_same_answer(client: httpx.Client, photo: bytes) -> None:
    (form,) = results(client.post("/classify", files={"anything": photo}))
    for kind in ("image/jpeg", "application/octet-stream"):
        (raw,) = results(client.post("/classify", content=photo, headers={"Content-Type": kind}))
        assert (raw["id"], raw["predictions"]) == (form["id"], form["predictions"])


@pytest.mark.skipif(not heif.FORMATS, reason="pillow-heif is not installed")
def test_a_photograph_as_phones_send_it(client: httpx.Client, photo: bytes) -> None:
    heic = io.BytesIO()
    Image.open(io.BytesIO(photo)).save(heic, "HEIF", quality=95)
    data, kind = heic.getvalue(), {"Content-Type": "image/heic"}
    (form,) = results(client.post("/classify", files={"image": ("IMG_0001.HEIC", data)}))
    (raw,) = results(client.post("/classify", content=data, headers=kind))
    assert raw["id"] == form["id"]
    assert raw["predictions"][0]["label"] == "cat"


def test_several_images_are_answered_in_order(client: httpx.Client, photo: bytes) -> None:
    colours = [png(Image.new("RGB", (40, 40), colour)) for colour in ("red", "green", "blue")]
    images = [*colours[:2], photo, colours[2]]
    together = results(client.post("/classify", files=[("image", image) for image in images]))
    alone = [results(client.post("/classify", files={"image": image}))[0] for image in images]
    assert [one["id"] for one in together] == [one["id"] for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert one["predictions"][0]["label"] == other["predictions"][0]["label"]
        assert one["predictions"][0]["probability"] == pytest.approx(
            other["predictions"][0]["probability"], abs=1e-5
        )


def test_top_k_timings_and_links(client: httpx.Client, photo: bytes) -> None:
    response = client.post("/classify?top_k=3", files={"image": photo})
    (result,) = results(response)
    assert response.json()["model"] == DEEPVIT
    assert len(result["predictions"]) == 3
    assert result["predictions"][0]["probability"] >= result["predictions"][1]["probability"]
    assert result["timings_ms"].keys() == {
        "decode", "preprocess", "queue", "inference", "postprocess"
    }  # fmt: skip
    assert result["timings_ms"]["inference"] > 0
    for link in result["links"].values():
        assert client.get(link).status_code == 200


def test_equal_pixels_have_one_id_and_other_pixels_another(
    client: httpx.Client, photo: bytes
) -> None:
    image = Image.open(io.BytesIO(photo))
    same, other = png(image), png(image.rotate(180))
    ids = [results(client.post("/classify", files={"i": data}))[0]["id"] for data in (photo, same)]
    assert ids[0] == ids[1]
    assert results(client.post("/classify", files={"i": other}))[0]["id"] != ids[0]


def test_extras_equal_the_answers_of_other_endpoints(client: httpx.Client, photo: bytes) -> None:
    url = "/classify?attention=true&similarity=true&stage=softmax&threshold=0.995"
    (result,) = results(client.post(url, files={"image": photo}))
    query = {"id": result["id"], "stage": "softmax"}
    maps = client.get("/attention-maps", params=query | {"head": "all"}).json()
    similarity = client.get("/similarity", params=query | {"threshold": 0.995}).json()
    np.testing.assert_allclose(result["attention"]["values"], maps["values"], atol=1e-6)
    for variant in ("column", "row", "centred"):
        np.testing.assert_allclose(
            result["similarity"]["matrix"][variant], similarity["matrix"][variant], atol=1e-5
        )
    assert result["similarity"]["similar_blocks"] == similarity["similar_blocks"]


FORM = {"Content-Type": "multipart/form-data"}
FORM_BOUNDARY = {"Content-Type": "multipart/form-data; boundary=a"}
PART = (
    b'--a\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
    b"Content-Type: image/jpeg\r\n\r\nnot an image\r\n"
)
BAD = [
    ({"files": {"image": b"not an image at all"}}, 415, "unsupported-media"),
    ({"files": {"image": b""}}, 400, "no-image"),
    ({"data": {"image": "cat.jpg"}, "files": {"b": b""}}, 400, "malformed-upload"),
    ({"content": b"", "headers": {"Content-Type": "image/jpeg"}}, 400, "no-image"),
    ({"content": b"abc"}, 415, "unsupported-media"),
    ({"json": {"image": "abc"}}, 415, "unsupported-media"),
    ({"content": b"x", "headers": FORM}, 400, "malformed-upload"),
    ({"content": b"x", "headers": FORM_BOUNDARY}, 400, "malformed-upload"),
    ({"files": [("image", b"x")] * 33}, 413, "too-many-images"),
    ({"content": PART + b"--a--", "headers": FORM_BOUNDARY}, 415, "unsupported-media"),
    ({"content": PART, "headers": FORM_BOUNDARY}, 400, "malformed-upload"),
    ({"content": PART + PART[:-3], "headers": FORM_BOUNDARY}, 400, "malformed-upload"),
    ({"content": PART + PART + b"--a", "headers": FORM_BOUNDARY}, 400, "malformed-upload"),
    ({"content": PART[:20], "headers": FORM_BOUNDARY}, 400, "malformed-upload"),
]


@pytest.mark.parametrize(("request_", "status", "code"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_requests_are_explained_and_the_server_stays_well(
    client: httpx.Client, photo: bytes, request_: dict[str, Any], status: int, code: str
) -> None:
    response = client.post("/classify", **request_)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert client.post("/classify", files={"image": photo}).status_code == 200


def test_a_part_that_says_it_is_an_image_needs_no_file_name(
    client: httpx.Client, photo: bytes
) -> None:
    named = client.post("/classify", files={"image": photo})
    nameless = client.post("/classify", files={"image": (None, photo, "image/jpeg")})
    assert results(nameless)[0]["id"] == results(named)[0]["id"]


def test_one_bad_image_is_named_and_its_neighbours_are_not_run(
    client: httpx.Client, photo: bytes
) -> None:
    images = [("image", photo), ("image", photo[: len(photo) // 2]), ("image", photo)]
    response = client.post("/classify", files=images)
    assert response.status_code == 400
    assert response.json()["detail"] == "image 2 of 3: the image is truncated or damaged"


def test_a_decompression_bomb_is_refused(client: httpx.Client) -> None:
    bomb = png(Image.new("1", (20_000, 20_000)))
    response = client.post("/classify", files={"image": bomb})
    assert (response.status_code, response.json()["code"]) == (413, "image-too-large")
    assert "more than 64,000,000 pixels" in response.json()["detail"]


def test_uploads_are_limited_by_declared_and_by_received_bytes(
    repository: Path, photo: bytes
) -> None:
    def endless() -> Any:
        yield from [b"x" * 1000] * 1000

    with running_server(repository, max_upload_bytes=50_000) as server, server.client() as client:
        for body in (b"x" * 1_000_000, endless()):
            response = client.post(
                "/classify", content=body, headers={"Content-Type": "image/jpeg"}
            )
            assert (response.status_code, response.json()["code"]) == (413, "upload-too-large")
        assert client.post("/classify", files={"image": photo}).status_code == 200


def test_a_full_queue_refuses_with_retry_after(repository: Path, photo: bytes) -> None:
    with running_server(repository, max_queue_images=1) as server, server.client() as client:
        url = "/classify?similarity=true"  # the first such request opens a session

        def post(_: int) -> httpx.Response:
            return client.post(url, files={"image": photo})

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(post, range(64)))
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert {answer.status_code for answer in answers} == {200, 429}
        assert {answer.json()["code"] for answer in refused} == {"queue-full"}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert client.post("/classify", files={"image": photo}).status_code == 200


def test_parameters_are_checked(client: httpx.Client, photo: bytes) -> None:
    for query, status, code in [
        ("model=resnet", 404, "unknown-model"),
        ("top_k=0", 422, "invalid-request"),
        ("stage=before", 422, "invalid-request"),
        ("threshold=1.5", 422, "invalid-request"),
        ("threshold=nan", 422, "invalid-request"),
    ]:
        response = client.post(f"/classify?{query}", files={"image": photo})
        assert (response.status_code, response.json()["code"]) == (status, code), query
