"""Answers of a server: the results of one, and all that it says about one photograph."""

import io
from typing import Any

import httpx
from PIL import Image

from models.preprocess import Preprocessing, preprocess
from models.size import Size
from tests.conftest import DEEPVIT, VIT

_SIZE = 32  # pixels, the input size of both bundled models


def results(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return list(answer["results"])


def answers_of_both_models(client: httpx.Client, photo: bytes) -> list[Any]:
    """Image ids and predictions as JSON, and logits in full precision from the v2 protocol."""
    rule = Preprocessing(
        size=Size.of(_SIZE), crop_pct=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    pixels = preprocess(Image.open(io.BytesIO(photo)), rule)
    image = {"name": "images", "datatype": "UINT8", "shape": [1, _SIZE, _SIZE, 3]}
    body = {"inputs": [image | {"data": pixels.ravel().tolist()}]}
    answers: list[Any] = []
    for model in (DEEPVIT, VIT):
        classified = client.post(f"/classify?model={model}&top_k=10", files={"image": photo})
        inferred = client.post(f"/v2/models/{model}/infer", json=body)
        assert (classified.status_code, inferred.status_code) == (200, 200), classified.text
        (result,) = classified.json()["results"]
        answers += [result["id"], result["predictions"], inferred.json()["outputs"]]
    return answers
