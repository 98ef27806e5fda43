"""A served model whose later blocks reuse one softmax map, which each block mixes itself."""

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from export.__main__ import main
from tests.support.exports import DONOR, REUSING
from tests.support.server import running_server
from tests.support.unusual import TALL, config_of, weights_of
from tests.support.waiting import until


def test_shared_maps_equal_the_donors_in_every_answer(
    reusing_repository: Path, tmp_path: Path, photo: bytes
) -> None:
    maps, similarity = {}, {}
    with running_server(reusing_repository, monitor_sample=1) as server, server.client() as client:
        (model,) = client.get("/models").raise_for_status().json()["models"]
        detail = client.get(f"/models/{REUSING}").raise_for_status().json()["manifest"]
        answer = client.post("/classify", files={"image": photo}).raise_for_status().json()
        for stage in ("softmax", "reattention"):
            query = {"id": answer["results"][0]["id"], "stage": stage}
            similarity[stage] = client.get("/similarity", params=query).raise_for_status().json()
            query |= {"query": "all", "layer": "all", "head": "all", "format": "npz"}
            found = client.get("/attention-maps", params=query).raise_for_status()
            (tmp_path / f"{stage}.npz").write_bytes(found.content)
            with np.load(tmp_path / f"{stage}.npz") as arrays:
                maps[stage] = arrays["maps"]
        until(lambda: monitored(client)["samples"]["measured"] == 1)
        watched = monitored(client)
    assert model["attention_donor"] == detail["config"]["attention_donor"] == DONOR
    assert detail["attention_reuse"]["comparison"]["images"] == 4
    assert detail["attention_reuse"]["forced"]
    for block in (2, 3):
        np.testing.assert_array_equal(maps["softmax"][block], maps["softmax"][DONOR])
        assert np.abs(maps["reattention"][block] - maps["reattention"][block - 1]).max() > 0.01
        assert similarity["softmax"]["neighbours"]["mean"][block - 1] > 0.99999
        assert similarity["reattention"]["neighbours"]["mean"][block - 1] < 0.9
    assert np.abs(maps["softmax"][DONOR] - maps["softmax"][0]).max() > 0.01
    assert similarity["softmax"]["neighbours"]["mean"][0] < 0.9
    assert watched["similar_blocks"] == {"softmax": [2, 3], "reattention": []}
    assert watched["reference"] is None


def monitored(client: httpx.Client) -> Any:
    (found,) = client.get("/monitor").raise_for_status().json()["models"]
    return found


def test_maps_are_shared_without_a_class_token_too(
    unusual_repository: Path, tmp_path: Path, photo: bytes
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "cat.jpg").write_bytes(photo)
    arguments = [str(weights_of(unusual_repository, TALL)), "--name", "shared"]
    arguments += ["--output", str(tmp_path / "repository"), "--max-batch-size", "2"]
    arguments += ["--reuse-attention", "0", "--force", "--images", str(images)]
    assert main(arguments) == 0
    with running_server(tmp_path / "repository") as server, server.client() as client:
        query = {"attention": "true", "similarity": "true", "stage": "softmax"}
        answer = client.post("/classify", params=query, files={"image": photo}).json()
    (result,) = answer["results"]
    assert result["attention"]["query"] == config_of(TALL).default_query
    donor, sharing = np.array(result["attention"]["values"])
    np.testing.assert_array_equal(donor, sharing)
    np.testing.assert_allclose(donor.sum(axis=-1), 1, atol=1e-5)
    assert result["similarity"]["neighbours"]["mean"] == [pytest.approx(1, abs=1e-5)]
