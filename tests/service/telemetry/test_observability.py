"""Observability: metrics that add up, logs that parse, timings in response headers."""

import json
import re
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.metrics import IMAGE_OUTCOMES, REASONS, STAGES
from tests.conftest import DEEPVIT, VIT
from tests.support.redis_server import RedisServer
from tests.support.server import running_server

Samples = dict[tuple[str, ...], float]


def scrape(client: httpx.Client) -> Samples:
    """Every sample, by its name and label values sorted by label name."""
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_count_what_happened_and_the_counts_add_up(repository: Path, photo: bytes) -> None:
    with running_server(repository) as server, server.client() as client:
        client.post("/classify", files=[("image", photo)] * 3)
        found = client.post(f"/classify?model={VIT}", files={"image": photo}).json()
        client.get("/similarity", params={"id": found["results"][0]["id"]})
        client.post("/classify", files={"image": b"no image"})
        late = {"X-Request-Timeout-Ms": "1"}
        client.post("/classify", files=[("image", photo)] * 32, headers=late)
        client.get("/nothing/of/this/name")
        client.get(f"/v2/models/{VIT}/versions/1/ready")
        samples = scrape(client)

    assert samples["deepvit_requests_total", "/classify", "200"] == 2
    assert samples["deepvit_requests_total", "/classify", "415"] == 1
    assert samples["deepvit_requests_total", "/classify", "504"] == 1
    assert samples["deepvit_requests_total", "/similarity", "200"] == 1
    assert samples["deepvit_requests_total", "other", "404"] == 1
    nested = "/v2/models/{model}/versions/{version}/ready"
    assert samples["deepvit_requests_total", nested, "200"] == 1
    assert samples["deepvit_rejects_total", "unsupported-media"] == 1
    for model, queue, answered in [
        (DEEPVIT, "classify", 3),
        (DEEPVIT, "explain", 1),
        (VIT, "classify", 1),
        (VIT, "explain", 0),
    ]:
        images = {
            outcome: samples["deepvit_images_total", outcome, model, queue, "1"]
            for outcome in IMAGE_OUTCOMES
        }
        assert images["answered"] == answered
        finished = ("answered", "failed", "cancelled", "expired")
        assert images["accepted"] == sum(images[outcome] for outcome in finished)
        assert samples["deepvit_batch_size_sum", model, queue, "1"] == answered
        assert samples["deepvit_queue_depth", model, queue, "1"] == 0
        assert samples["deepvit_model_info", "fused", model, "fp32", "cpu", "1"] == 1
    assert samples["deepvit_rejects_total", "deadline-exceeded"] == 1
    for stage in STAGES:
        runs = 3 if stage in ("queue", "inference") else 2  # /similarity has these two stages too
        assert samples["deepvit_stage_seconds_count", stage] == runs


def test_every_reason_is_counted_from_0(client: httpx.Client) -> None:
    reasons = {labels[0] for name, *labels in scrape(client) if name == "deepvit_rejects_total"}
    assert reasons == set(REASONS)


def test_reasons_are_the_error_codes_of_responses(tiny_repository: Path, photo: bytes) -> None:
    with (
        running_server(tiny_repository, api_keys="key", max_queue_images=2) as server,
        server.client() as client,
    ):
        key = {"X-API-Key": "key"}
        answers = [
            client.post("/classify", files={"image": photo}),
            client.get("/nothing", headers=key),
            client.get("/classify", headers=key),
            client.post("/classify", headers=key, content=photo),
            client.post("/classify?top_k=0", headers=key),
            client.post("/classify", headers=key, files=[("image", photo)] * 3),
        ]
        client.post("/v2/models/none/infer", headers=key, content=b"{}")
        samples = scrape(client)
    codes = [answer.json()["code"] for answer in answers]
    assert len(set(codes)) == len(codes)
    counted = {key[1]: n for key, n in samples.items() if key[0] == "deepvit_rejects_total"}
    assert {reason: n for reason, n in counted.items() if n} == dict.fromkeys(
        [*codes, "unknown-model"], 1
    )


def test_lookups_and_stored_bytes_are_counted(repository: Path, photo: bytes) -> None:
    with running_server(repository) as server, server.client() as client:
        assert scrape(client)["deepvit_store_lookups_total", "hit"] == 0
        found = client.post("/classify", files={"image": photo}).json()
        for image_id in (found["results"][0]["id"], found["results"][0]["id"], "0" * 32):
            client.get("/similarity", params={"id": image_id})
        samples = scrape(client)
    assert samples["deepvit_store_lookups_total", "hit"] == 2
    assert samples["deepvit_store_lookups_total", "unknown-image"] == 1
    assert samples["deepvit_store_lookups_total", "expired-image"] == 0
    assert samples["deepvit_store_bytes",] == 32 * 32 * 3
    assert samples["deepvit_store_available", "memory"] == 1


def test_metrics_show_when_redis_is_unavailable(
    repository: Path, redis_server: RedisServer
) -> None:
    with (
        running_server(repository, store_url=redis_server.url) as server,
        server.client() as client,
    ):
        samples = scrape(client)
        assert samples["deepvit_store_available", "redis"] == 1
        assert not any(name == "deepvit_store_bytes" for name, *_ in samples)
        redis_server.kill()
        client.get("/similarity", params={"id": "0" * 32})
        samples = scrape(client)
    assert samples["deepvit_store_available", "redis"] == 0
    assert samples["deepvit_store_lookups_total", "store-unavailable"] == 1


def test_the_stages_of_a_request_are_in_its_header(client: httpx.Client, photo: bytes) -> None:
    response = client.post("/classify", files={"image": photo})
    timings = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    assert tuple(timings) == STAGES
    assert float(timings["inference"]) > 0
    assert "server-timing" not in client.get("/livez").headers


def test_logs_are_one_json_object_a_line_with_the_id_and_without_probes(
    tiny_repository: Path, photo: bytes
) -> None:
    with running_server(tiny_repository) as server:
        with server.client() as client:
            client.get("/livez")
            client.get("/metrics")
            client.post("/classify", files={"image": photo}, headers={"X-Request-Id": "one"})
            client.get("/nothing%0a%7B%22level%22:1", headers={"X-Request-Id": "two"})
            client.get("/classify\u2028x", headers={"X-Request-Id": "three"})
            client.head("/models", headers={"X-Request-Id": "four"})
        server.terminate()
        lines = [json.loads(line) for line in server.log]
    requests = [line for line in lines if line["logger"] == "service.access"]
    assert [line["request_id"] for line in requests] == ["one", "two", "three", "four"]
    assert [line["status"] for line in requests] == [200, 404, 404, 200]
    assert requests[0]["route"] == "/classify"
    assert requests[0]["duration_ms"] > 0
    for request in requests[1:3]:
        assert request["message"].startswith("GET /")
        assert "\n" not in request["message"]
    assert (requests[3]["message"], requests[3]["route"]) == ("HEAD /models 200", "/models")


def test_text_logs_for_a_terminal(tiny_repository: Path, photo: bytes) -> None:
    with running_server(tiny_repository, log_format="text") as server:
        with server.client() as client:
            client.post("/classify", files={"image": photo})
        server.terminate()
    assert any(re.search(r"INFO POST /classify 200$", line) for line in server.log)
