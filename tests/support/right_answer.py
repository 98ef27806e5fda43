"""What must survive an attack: a good request's answer, to the last bit, and counts that add up."""

import io
import time
from typing import Any

import httpx
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from models.preprocess import Preprocessing, preprocess
from tests.conftest import DEEPVIT, VIT

_PATIENCE_S = 60
_SIZE = 32


def right_answer(client: httpx.Client, photo: bytes) -> list[Any]:
    """What both models say about the photograph: predictions, and logits as they come."""
    rule = Preprocessing(
        size=_SIZE, crop_pct=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
    )
    pixels = preprocess(Image.open(io.BytesIO(photo)), rule)
    image = {"name": "images", "datatype": "UINT8", "shape": [1, _SIZE, _SIZE, 3]}
    body = {"inputs": [image | {"data": pixels.ravel().tolist()}]}
    answer: list[Any] = []
    for model in (DEEPVIT, VIT):
        classified = client.post(f"/classify?model={model}&top_k=10", files={"image": photo})
        inferred = client.post(f"/v2/models/{model}/infer", json=body)
        assert (classified.status_code, inferred.status_code) == (200, 200), classified.text
        (result,) = classified.json()["results"]
        answer += [result["id"], result["predictions"], inferred.json()["outputs"]]
    return answer


def settled_counts(client: httpx.Client) -> dict[str, int]:
    """Images by outcome, over all queues, once none is in flight and the counts add up."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        counts = _read_counts(client)
        ends = sum(counts[fate] for fate in ("answered", "failed", "cancelled", "expired"))
        if counts["accepted"] == ends and not counts["waiting"]:
            return counts
        assert counts["accepted"] > ends, counts
        assert time.monotonic() < until, counts


def _read_counts(client: httpx.Client) -> dict[str, int]:
    counts: dict[str, int] = {"waiting": 0}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "deepvit_images_total":
                fate = sample.labels["fate"]
                counts[fate] = counts.get(fate, 0) + int(sample.value)
            if sample.name == "deepvit_queue_depth":
                counts["waiting"] += int(sample.value)
    return counts
