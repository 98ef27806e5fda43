"""Labels may be any text: the same in every answer, over every protocol."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient import grpc as over_grpc
from tritonclient import http as over_http

from tests.conftest import DEEPVIT
from tests.service.oip.grpc.calls import address
from tests.support.answers import results
from tests.support.server import Server, running_server
from tests.support.versions import copied, rewrite

LABELS = [
    "猫", "собака", "قطة", "a:b,c;d", 'say "cat"\\', "line\nbreak", "\u2028\x00\x1b[31m", "🐸",
    "e\u0301" * 1000, "",
]  # fmt: skip


@pytest.fixture(scope="module")
def labelled(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = copied(repository, tmp_path_factory.mktemp("labelled"))
    rewrite(folder / DEEPVIT / "1", labels=LABELS)
    with running_server(folder, grpc_port=0) as running:
        yield running


def test_labels_are_the_same_in_json(labelled: Server, photo: bytes) -> None:
    with labelled.client() as client:
        query = {"top_k": "10", "attention": "true"}
        (result,) = results(client.post("/classify", params=query, files={"image": photo}))
        found = {one["index"]: one["label"] for one in result["predictions"]}
        assert [found[index] for index in range(10)] == LABELS
        assert client.get(f"/models/{DEEPVIT}").json()["manifest"]["labels"] == LABELS
        for kind in ("npy", "npz", "png"):
            link = result["links"]["attention_maps"]
            assert client.get(f"{link}&format={kind}").status_code == 200
        assert client.get(f"{result['links']['similarity']}&format=png").status_code == 200


@pytest.mark.parametrize("library", [over_http, over_grpc])
@pytest.mark.parametrize("binary", [True, False])
def test_labels_are_the_same_in_the_classification_extension(
    labelled: Server, library: Any, binary: bool
) -> None:
    place = labelled.url.removeprefix("http://") if library is over_http else address(labelled)
    tensor = library.InferInput("images", [1, 32, 32, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 32, 32, 3), np.uint8))
    options = {"binary_data": binary} if library is over_http else {}
    wanted = library.InferRequestedOutput("logits", class_count=10, **options)
    with library.InferenceServerClient(place) as triton:
        classes = triton.infer(DEEPVIT, [tensor], outputs=[wanted]).as_numpy("logits")[0]
    found = {}
    for one in classes:
        text = one.decode() if isinstance(one, bytes) else one
        _, index, label = text.split(":", 2)
        found[int(index)] = label
    assert [found[index] for index in range(10)] == LABELS
