"""Traces of a real server, as an OpenTelemetry collector receives them."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from service.errors import StartupError
from service.settings.server import traces_wanted
from service.telemetry.metrics import STAGES
from tests.conftest import DEEPVIT
from tests.support.collector import Collector, running_collector
from tests.support.server import ROOT, Server, environment, running_server

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SERVER = 2  # the kind of span
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as running:
        yield running


@pytest.fixture(scope="module")
def traced(repository: Path, collector: Collector) -> Iterator[Server]:
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(ENDPOINT, collector.url)
            patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
            server = stack.enter_context(running_server(repository, api_keys="key"))
        yield server


@pytest.fixture
def client(traced: Server, collector: Collector) -> Iterator[httpx.Client]:
    collector.spans.clear()
    with traced.client() as client:
        client.headers["X-API-Key"] = "key"
        yield client


def test_the_span_of_a_request_continues_the_caller_s_trace(
    client: httpx.Client, collector: Collector, photo: bytes
) -> None:
    before = time.time_ns()
    answer = client.post(
        "/classify?top_k=1",
        files=[("image", photo)] * 40,
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "one"},
    )
    assert answer.status_code == 413
    answer = client.post(
        "/classify?top_k=1",
        files=[("image", photo)] * 20,
        headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "two"},
    )
    assert answer.status_code == 200
    refused, span = collector.wait_for("POST /classify", 2)
    for one in (refused, span):
        assert (one.kind, one.trace_id, one.parent_id) == (SERVER, TRACE, PARENT)
        assert one.attributes["http.route"] == "/classify"
        assert one.attributes["deepvit.model"] == DEEPVIT
        assert one.attributes["deepvit.model_version"] == "1"
        assert before < one.started_ns < one.ended_ns
        assert not one.failed
    assert refused.attributes["http.response.status_code"] == 413
    assert refused.attributes["deepvit.problem"] == "too-many-images"
    assert refused.attributes["deepvit.request_id"] == "one"
    assert collector.children(refused) == []
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["deepvit.request_id"] == "two"
    assert "deepvit.problem" not in span.attributes
    assert span.resource["service.name"] == "deepvit-inference"

    stages = collector.children(span)
    assert tuple(stage.name for stage in stages) == STAGES
    assert {stage.trace_id for stage in stages} == {TRACE}
    ends = [span.started_ns, *(stage.ended_ns for stage in stages)]
    begins = [*(stage.started_ns for stage in stages), span.ended_ns]
    for end, begin in zip(ends, begins, strict=True):
        assert end <= begin + 1000  # two clocks, rounded
    timings = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    for stage in stages:
        assert (stage.ended_ns - stage.started_ns) / 1e6 == pytest.approx(
            float(timings[stage.name]), abs=0.006
        )


def test_explanations_have_the_stages_that_they_run(
    client: httpx.Client, collector: Collector, photo: bytes
) -> None:
    found = client.post("/classify", files={"image": photo}).json()
    query = {"id": found["results"][0]["id"]}
    for path in ("/similarity", "/attention-maps"):
        answer = client.get(path, params=query)
        (span,) = collector.wait_for(f"GET {path}")
        assert [stage.name for stage in collector.children(span)] == ["queue", "inference"]
        assert answer.headers["server-timing"].startswith("queue;dur=")
        assert span.parent_id == ""
        assert span.attributes["deepvit.model"] == DEEPVIT


def test_the_caller_decides_on_sampling_and_probes_are_not_traced(
    client: httpx.Client, collector: Collector, photo: bytes
) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
    assert client.post("/classify", files={"image": photo}, headers=unsampled).status_code == 200
    assert client.get("/nothing", headers={"X-API-Key": ""}).status_code == 404
    assert client.get("/models", headers={"X-API-Key": ""}).status_code == 401
    collector.wait_for("GET /models")
    nothing, models = sorted(collector.spans, key=lambda span: span.started_ns)
    assert (nothing.name, nothing.attributes["deepvit.problem"]) == ("GET", "not-found")
    assert models.attributes["deepvit.problem"] == "unauthorized"


def test_spans_are_flushed_on_shutdown_and_the_log_has_their_trace_id(
    tiny_repository: Path, photo: bytes, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.spans.clear()
    monkeypatch.setenv(ENDPOINT, collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    with running_server(tiny_repository, drain_delay_s=0) as server:
        with server.client() as client:
            client.post("/classify", files={"image": photo})
        assert collector.spans == []
        assert server.terminate() == 0
    (span,) = collector.wait_for("POST /classify")
    assert span.resource["service.name"] == "mine"
    assert len(collector.children(span)) == len(STAGES)
    lines = [json.loads(line) for line in server.log]
    (line,) = [line for line in lines if line["logger"] == "service.access"]
    assert line["trace_id"] == span.trace_id


@pytest.mark.parametrize("listening", [False, True], ids=["unreachable", "hanging"])
def test_without_a_collector_the_server_answers_and_stops(
    tiny_repository: Path, photo: bytes, monkeypatch: pytest.MonkeyPatch, listening: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        if not listening:
            silent.close()
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with running_server(tiny_repository, drain_delay_s=0) as server:
            with server.client() as client:
                assert client.post("/classify", files={"image": photo}).status_code == 200
            assert server.terminate() == 0
    assert "Traceback" not in "".join(server.log)


def test_tracing_is_off_by_default(
    tiny_repository: Path, photo: bytes, collector: Collector
) -> None:
    collector.spans.clear()
    code = (
        "import sys, service.__main__ as m; from service.app import build_tracing\n"
        "assert build_tracing() is None\n"
        "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    with running_server(tiny_repository) as server:
        with server.client() as client:
            client.post("/classify", files={"image": photo})
        server.terminate()
    assert not any("trace_id" in line for line in server.log)


def test_without_the_package_the_start_ends_with_one_line(
    tiny_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    code = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from service.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "--model-repository", tiny_repository],
        cwd=ROOT,
        env=environment({"intra_op_threads": 1}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert len(found.stderr.splitlines()) == 1
    assert "'.[otel]'" in found.stderr


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({ENDPOINT: "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({ENDPOINT: "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, True),
        ({ENDPOINT: "grpc://c", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_turn_tracing_on(environment: dict[str, str], wanted: bool) -> None:
    assert traces_wanted(environment) is wanted


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER must be otlp or none, not zip"),
        ({ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf, not grpc"),
        ({ENDPOINT: "collector:4318"}, "must begin with http:// or https://"),
    ],
)
def test_unsupported_variables_stop_the_start(environment: dict[str, str], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        traces_wanted(environment)
