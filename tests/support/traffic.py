"""Generates the requests of many users: valid ones, invalid ones, and ones that are abandoned.

A seed determines every request, so that a run can be repeated. Each request states which
statuses are expected. load.py opens the connections and sends.
"""

import gzip
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlencode

import httpx
import numpy as np
import orjson

from models.manifest import Manifest
from tests.support.load import Leaving, Request
from tests.support.pictures import noise, photos

_STORED = 1024  # inputs of 32 x 32 pixels
# Settings of the server: a small store fills up soon, a small limit is soon exceeded.
SETTINGS = {"store_max_bytes": _STORED * 32 * 32 * 3, "max_upload_bytes": 2**20}


class Traffic:
    """An endless mix of requests to one model; `known_ids` are of images it has classified."""

    def __init__(
        self,
        manifest: Manifest,
        known_ids: Sequence[str],
        seed: int,
        *,
        may_refuse: bool = False,
        may_miss: Sequence[str] = (),
    ) -> None:
        """`may_refuse`: a 429 is expected too. `may_miss`: models that are loaded and unloaded."""
        self._manifest = manifest
        self._known_ids = known_ids
        self._random = random.Random(seed)
        self._photos = _photos()
        self._may_refuse = may_refuse
        self._may_miss = may_miss
        self._kinds: dict[Callable[[], Request], int] = {
            self._classify: 240,
            self._classify_several: 48,
            self._classify_and_explain: 48,
            self._attention_maps: 112,
            self._picture_of_maps: 1,
            self._similarity: 48,
            self._infer_json: 24,
            self._infer_binary: 64,
            self._classify_many: 32,
            self._bad_image: 40,
            self._too_large: 24,
            self._unknown: 32,
            self._wrong_parameter: 32,
            self._short_deadline: 32,
            self._leaving: 96,
        } | ({self._classify_elsewhere: 24} if may_miss else {})

    def __iter__(self) -> Iterator[Request]:
        kinds, weights = list(self._kinds), list(self._kinds.values())
        while True:
            request = self._random.choices(kinds, weights)[0]()
            # Queue slots are reserved before a body is read: invalid bodies may be refused too.
            if self._may_refuse and (request.body is not None or 200 in request.expected):
                request = replace(request, expected=request.expected | {429})
            yield request

    def _classify(self) -> Request:
        return self._post_image("classify", self._picture())

    def _classify_several(self) -> Request:
        return self._form(
            "classify several", [self._picture() for _ in range(self._random.randint(2, 4))]
        )

    def _classify_many(self) -> Request:
        """As many images as one request may contain."""
        return self._form("classify 32", [noise(self._random) for _ in range(32)])

    def _classify_and_explain(self) -> Request:
        wanted = self._random.choices(
            [{"attention": "1"}, {"similarity": "1"}, {"attention": "1", "similarity": "1"}],
            [10, 10, 1],  # the last needs a session of its own, for which another is closed
        )[0]
        return self._post_image(
            "classify and explain", self._picture(), **wanted, stage=self._stage()
        )

    def _classify_elsewhere(self) -> Request:
        request = self._post_image(
            "classify, model may be unloaded",
            self._picture(),
            model=self._random.choice(self._may_miss),
        )
        return replace(request, expected=frozenset({200, 404}))

    def _attention_maps(self) -> Request:
        selection = self._selection()
        selection["format"] = self._random.choice(["json", "npy", "npz"])
        return self._explain("attention maps", "/attention-maps", **selection)

    def _picture_of_maps(self) -> Request:
        selection = self._selection() | {
            "format": "png", "layer": "0", "overlay": self._random.choice(["true", "false"]),
        }  # fmt: skip
        return self._explain("attention maps as PNG", "/attention-maps", **selection)

    def _similarity(self) -> Request:
        threshold = f"{self._random.uniform(0, 0.99):.2f}"
        return self._explain("similarity", "/similarity", stage=self._stage(), threshold=threshold)

    def _infer_json(self) -> Request:
        tensor = {"data": list(self._random.randbytes(self._input_bytes))}
        return self._infer("infer, JSON", 1, tensor, b"")

    def _infer_binary(self) -> Request:
        count = self._random.randint(1, 4)
        pixels = self._random.randbytes(count * self._input_bytes)
        tensor = {"parameters": {"binary_data_size": len(pixels)}}
        return self._infer("infer, binary", count, tensor, pixels)

    def _bad_image(self) -> Request:
        photo = self._random.choice(self._photos)
        bad, status = self._random.choice(
            [
                (photo[: len(photo) // 3], 400),  # truncated
                (photo[:100], 400),
                (b"", 400),
                (self._random.randbytes(500), 415),
            ]
        )
        request = self._post_image("bad image", bad)
        return replace(request, expected=frozenset({status}))

    def _too_large(self) -> Request:
        if self._random.random() < 0.5:
            request = self._form("too large", [self._random.choice(self._photos)] * 33)
        else:
            declared = SETTINGS["max_upload_bytes"] + self._random.randint(1, 10**9)
            request = replace(self._post_image("too large", b"GIF89a"), declared=declared)
        return replace(request, expected=frozenset({413}))

    def _unknown(self) -> Request:
        unknown = self._random.randbytes(16).hex()
        path = self._random.choice(
            [
                f"/similarity?id={unknown}",
                f"/attention-maps?id={unknown}&layer=0",
                "/models/resnet",
                "/v2/models/resnet",
                f"/{unknown}",
            ]
        )
        return Request("unknown", path, expected=frozenset({404}))

    def _wrong_parameter(self) -> Request:
        known = f"/attention-maps?id={self._random.choice(self._known_ids)}"
        path = self._random.choice(
            [
                f"{known}&layer={self._manifest.config.depth}",
                f"{known}&head=-1",
                f"{known}&query=99,99",
                f"{known}&layer=rollout&stage=reattention",
                f"{known}&format=gif",
                "/similarity?id=cat",
                "/similarity",
            ]
        )
        return Request("wrong parameter", path, expected=frozenset({422}))

    def _short_deadline(self) -> Request:
        request = self._random.choice([self._classify_several, self._attention_maps])()
        limit = ("X-Request-Timeout-Ms", str(self._random.randint(1, 30)))
        return replace(
            request,
            kind="short deadline",
            headers=(*request.headers, limit),
            expected=frozenset({200, 504}),
        )

    def _leaving(self) -> Request:
        requests = [
            self._classify, self._classify_several, self._classify_and_explain,
            self._attention_maps, self._similarity, self._infer_binary,
        ]  # fmt: skip
        leaving: tuple[Leaving, ...] = (
            "while sending", "once sent", "while waiting", "while reading",
        )  # fmt: skip
        return replace(
            self._random.choice(requests)(),
            kind="leaving",
            leaving=self._random.choice(leaving),
            patience_s=self._random.uniform(0, 0.05),
        )

    def _post_image(self, kind: str, image: bytes, **query: str) -> Request:
        headers = (("Content-Type", "image/*"),)
        return Request(kind, f"/classify?{self._to_model(query)}", image, headers)

    def _form(self, kind: str, images: Sequence[bytes]) -> Request:
        boundary = "boundary-between-images"
        part_headers = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="image"'
            "\r\n\r\n"
        ).encode()
        parts = b"".join(part_headers + image + b"\r\n" for image in images)
        headers = (("Content-Type", f"multipart/form-data; boundary={boundary}"),)
        return Request(
            kind,
            f"/classify?{self._to_model({})}",
            parts + f"--{boundary}--\r\n".encode(),
            headers,
        )

    def _explain(self, kind: str, path: str, **query: str) -> Request:
        query["id"] = self._random.choice(self._known_ids)
        return Request(kind, f"{path}?{self._to_model(query)}")

    def _infer(self, kind: str, count: int, tensor: dict[str, Any], pixels: bytes) -> Request:
        size = self._manifest.preprocessing.size
        image = {"name": "images", "datatype": "UINT8", "shape": [count, *size, 3]} | tensor
        output = self._random.choice(
            ["logits", self._manifest.output("class_rows", self._stage()).name]
        )
        document = orjson.dumps(
            {
                "inputs": [image],
                "outputs": [{"name": output, "parameters": {"binary_data": bool(pixels)}}],
            }
        )
        body = document + pixels
        headers = [("Inference-Header-Content-Length", str(len(document)))]
        if self._random.random() < 0.3:
            body = gzip.compress(body, 1)
            headers += [("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip")]
        return Request(kind, f"/v2/models/{self._manifest.name}/infer", body, tuple(headers))

    def _selection(self) -> dict[str, str]:
        config = self._manifest.config
        row, column = map(self._random.randrange, config.grid)
        one_layer = str(self._random.randrange(config.depth))
        layer = self._random.choice(["all", "rollout", one_layer, one_layer])
        one_head = str(self._random.randrange(config.num_heads))
        return {
            "layer": layer,
            "head": self._random.choice(["all", "mean", "max", "max_abs", "rms", one_head]),
            "query": self._random.choice(["cls", "cls", f"{row},{column}"]),
            "direction": self._random.choice(["from", "to"]),
            "stage": "softmax" if layer == "rollout" else self._stage(),
        }

    def _stage(self) -> Literal["softmax", "reattention"]:
        return self._random.choice(("softmax", "reattention"))

    def _picture(self) -> bytes:
        """A photograph, or noise that is new to the store, so that it must evict something."""
        if self._random.random() < 0.3:
            return self._random.choice(self._photos)
        return noise(self._random)

    def _to_model(self, query: dict[str, str]) -> str:
        return urlencode({"model": self._manifest.name} | query)

    @property
    def _input_bytes(self) -> int:
        return self._manifest.preprocessing.size.area * 3


def start(client: httpx.Client, model: str, seed: int, **options: Any) -> Traffic:
    """Traffic for a running server, after filling its store."""
    fill(client, model, _STORED)
    known_ids = []
    for photo in _photos()[:4]:
        answer = client.post("/classify", params={"model": model}, files={"image": photo})
        known_ids.append(answer.json()["results"][0]["id"])
    return Traffic(manifest(client, model), known_ids, seed, **options)


def manifest(client: httpx.Client, model: str) -> Manifest:
    return Manifest.model_validate(client.get(f"/models/{model}").json()["manifest"])


def fill(client: httpx.Client, model: str, count: int) -> None:
    """Classify `count` images of noise, which no other request sends, to fill the store."""
    source = random.Random(-1)
    for _ in range(0, count, 32):
        form = [("image", noise(source)) for _ in range(32)]
        client.post("/classify", params={"model": model}, files=form).raise_for_status()


def answer_numbers(client: httpx.Client, model: str) -> list[float]:
    """All numbers of one photograph's answer: probabilities, attention and similarity."""
    classified = client.post(
        "/classify",
        params={"model": model, "top_k": 1000, "attention": True, "similarity": True},
        files={"image": _photos()[0]},
    )
    (result,) = classified.raise_for_status().json()["results"]
    classes = sorted(result["predictions"], key=lambda found: int(found["index"]))
    numbers = [float(found["probability"]) for found in classes]
    for values in (result["attention"]["values"], *result["similarity"]["matrix"].values()):
        numbers += np.ravel(values).tolist()
    return numbers


def _photos() -> tuple[bytes, ...]:
    return photos(SETTINGS["max_upload_bytes"] // 40)  # 33 of them fit into one request
