"""Requests to /v2, and what its tests read in the answers."""

from typing import Any

import httpx
import numpy as np
from tritonclient.http import InferInput

from models.arrays import Float32Array, Pixels
from models.preprocess import Preprocessing
from models.size import Size
from tests.conftest import DEEPVIT

MODEL = f"/v2/models/{DEEPVIT}"
INFER = f"{MODEL}/infer"
LENGTH = "Inference-Header-Content-Length"
RULE = Preprocessing(
    size=Size.of(32), crop_pct=1.0, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3
)


def tensor(pixels: Pixels, *, binary: bool = True) -> Any:
    found = InferInput("images", list(pixels.shape), "UINT8")
    found.set_data_from_numpy(pixels, binary_data=binary)
    return found


def image_request(pixels: Pixels, **changes: Any) -> dict[str, Any]:
    """A JSON request for one image; `changes` replace fields of its input."""
    image = {"name": "images", "datatype": "UINT8", "shape": [1, 32, 32, 3]}
    return {"inputs": [image | {"data": pixels[0].ravel().tolist()} | changes]}


def softmax(logits: Float32Array) -> Float32Array:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def statistics(client: httpx.Client, path: str = MODEL) -> dict[str, Any]:
    (found,) = client.get(f"{path}/stats").json()["model_stats"]
    return dict(found)


def error(response: httpx.Response) -> str:
    """The message of an error, which must have the form that the protocol defines."""
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    return str(response.json()["error"])
