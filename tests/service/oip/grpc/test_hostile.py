"""Messages that never end, that unpack to many times their bytes, or that fail: bounded memory.

Good requests beside them get the right answers.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub
from tritonclient.grpc import service_pb2 as pb

from models.arrays import Pixels
from tests.conftest import DEEPVIT
from tests.service.oip.grpc.calls import SERVICE, address, image_request, stub_of
from tests.service.oip.grpc.http2 import Call, calling, prefixed
from tests.support.counts import settled_queue_counts
from tests.support.memory import Footprint, bounded_growth
from tests.support.server import LARGEST_BATCH, Server, running_server
from tests.support.waiting import until

LARGE = 4 * 2**20 - 2**10  # bytes of a message; the longest for the small models are 4 MiB
LARGE_ANSWERS = {
    "max_answer_bytes": 27_000_000,
    "max_unsent_bytes": 4 * 27_000_000,
    "max_batch_size": LARGEST_BATCH,
}
ANOTHER_CLIENT = "127.0.0.2"
METHODS = ("ModelInfer", "ModelStreamInfer")
EMPTY_MESSAGES = {"inputs": b"\x2a\0", "outputs": b"\x32\0", "parameters": b"\x22\0"}


@pytest.fixture(scope="module")
def small_budget(repository: Path) -> Iterator[Server]:
    """A server with room for four messages."""
    with running_server(
        repository,
        grpc_port=0,
        max_upload_bytes=4 * 2**20,
        max_inflight_bytes=16 * 2**20,
        max_batch_size=LARGEST_BATCH,
    ) as running:
        yield running


@pytest.fixture(scope="module")
def keyed(tiny_repository: Path) -> Iterator[Server]:
    with running_server(
        tiny_repository, grpc_port=0, api_keys="secret", max_batch_size=LARGEST_BATCH
    ) as running:
        yield running


@contextmanager
def answered_beside(server: Server, pixels: Pixels) -> Iterator[None]:
    """Another client gets right answers for as long as the block takes."""
    over = threading.Event()
    failures: list[Exception] = []
    answers: list[Any] = []

    def ask() -> None:
        with stub_of(address(server)) as stub:
            try:
                expected = stub.ModelInfer(image_request(pixels)).raw_output_contents
                while not over.is_set() or not answers:
                    answers.append(stub.ModelInfer(image_request(pixels)))
                    assert answers[-1].raw_output_contents == expected
            except (AssertionError, grpc.RpcError) as exc:
                failures.append(exc)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert not failures
    assert answers


def stalled(calls: list[Call]) -> None:
    """On each call all of a message but its last byte, as far as the server takes it in."""
    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(lambda call: call.send(prefixed(bytes(LARGE))[:-1]), calls))


def outcomes(server: Server, method: str, messages: list[bytes]) -> set[Any]:
    """The status or the error of each message, in a call of its own or all in one stream."""

    def status(call: Callable[[], Any]) -> StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        code: StatusCode = caught.value.code()
        return code

    with grpc.insecure_channel(address(server)) as channel:
        if method == "ModelInfer":
            ask = channel.unary_unary(f"/{SERVICE}/{method}")
            return {status(lambda message=message: ask(message)) for message in messages}  # type: ignore[misc]
        parse = pb.ModelStreamInferResponse.FromString
        stream = channel.stream_stream(f"/{SERVICE}/{method}", response_deserializer=parse)
        return {response.error_message for response in stream(iter(messages))}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_read_before_the_key_is_checked(keyed: Server, method: str) -> None:
    with ExitStack() as stack:
        calls = [stack.enter_context(calling(address(keyed), method)) for _ in range(12)]
        with bounded_growth(keyed.process.pid, 16):
            stalled(calls)
            assert all(call.ended for call in calls)


@pytest.mark.parametrize("method", METHODS)
def test_messages_that_never_end_give_way(
    small_budget: Server, pixels: Pixels, method: str
) -> None:
    with (
        ExitStack() as stack,
        bounded_growth(small_budget.process.pid, 40),
        answered_beside(small_budget, pixels),
    ):
        stalled(
            [
                stack.enter_context(calling(address(small_budget), method, ANOTHER_CLIENT))
                for _ in range(24)
            ]
        )


def test_streams_that_are_idle_give_way(small_budget: Server, pixels: Pixels) -> None:
    over = threading.Event()

    def idle() -> Iterator[Any]:
        yield image_request(pixels)
        over.wait()

    with stub_of(address(small_budget)) as stub:
        streams = [stub.ModelStreamInfer(idle()) for _ in range(4)]
        for stream in streams:
            assert next(stream).infer_response.raw_output_contents
        assert stub.ModelInfer(image_request(pixels)).raw_output_contents
        with small_budget.client() as client:
            assert client.get("/models").status_code == 200
        over.set()
        codes = []
        for stream in streams:
            try:
                codes.append(next(stream, StatusCode.OK))
            except grpc.RpcError as exc:
                codes.append(exc.code())
    assert sorted(code.name for code in codes) == ["OK"] * 3 + ["RESOURCE_EXHAUSTED"]


def test_a_message_that_stalls_ends_in_time(repository: Path, pixels: Pixels) -> None:
    with (
        running_server(repository, grpc_port=0, request_timeout_s=1) as server,
        calling(address(server), "ModelInfer") as call,
    ):
        call.send(prefixed(image_request(pixels).SerializeToString())[:-1])
        while not call.ended:
            call.receive()


@pytest.mark.parametrize("field", EMPTY_MESSAGES)
@pytest.mark.parametrize("method", METHODS)
def test_a_message_of_empty_messages_is_not_unpacked(
    server: Server, pixels: Pixels, method: str, field: str
) -> None:
    message = EMPTY_MESSAGES[field] * (LARGE // 2)
    inside = pb.ModelInferRequest(model_name=DEEPVIT).SerializeToString() + b"\x2a"
    nested = inside + b"\xfe\xff\xff\x01" + EMPTY_MESSAGES["parameters"] * (2**21 - 1)
    with bounded_growth(server.process.pid, 48), answered_beside(server, pixels):
        for one in (message, nested[:LARGE]):
            with grpc.insecure_channel(address(server)) as channel:
                ask = channel.stream_stream(f"/{SERVICE}/{method}")
                with pytest.raises(grpc.RpcError) as caught:
                    next(ask(iter([one])))
            assert caught.value.code() == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("method", METHODS)
def test_messages_that_fail_are_not_kept(server: Server, pixels: Pixels, method: str) -> None:
    raw = [bytes(LARGE - 1000)]
    bad = [
        image_request(pixels, raw_input_contents=raw),
        image_request(pixels, raw_input_contents=raw, model_name="none"),
        image_request(pixels, raw_input_contents=raw, model_version="x"),
    ]
    messages = [message.SerializeToString() for message in bad] * 16
    with bounded_growth(server.process.pid, 80):
        found = outcomes(server, method, messages)
    assert len(found) == (2 if method == "ModelInfer" else 3)


def test_numbers_that_unpack_to_many_bytes_wait_for_room(
    small_budget: Server, pixels: Pixels
) -> None:
    """Zeros of an int64 take a byte each on the wire and eight in memory."""
    wide = image_request(pixels)
    wide.inputs[0].contents.int64_contents.extend(bytes(3 * 2**20))
    with stub_of(address(small_budget)) as stub:
        with bounded_growth(small_budget.process.pid, 40):
            for _ in range(4):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.ModelInfer(wide)
                assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
                assert "retry-after" in dict(caught.value.trailing_metadata())
        assert stub.ModelInfer(image_request(pixels)).raw_output_contents


def test_large_answers_that_nobody_reads_are_bounded(repository: Path, pixels: Pixels) -> None:
    """Each has 26 MB, of which a client that reads nothing takes the first 64 KiB."""
    images = 8
    maps = [
        f"{stage}.map.{block:02}" for stage in ("softmax", "reattention") for block in range(16)
    ]
    request = image_request(
        pixels,
        inputs=[{"name": "images", "datatype": "UINT8", "shape": [images, 32, 32, 3]}],
        raw_input_contents=[pixels.tobytes() * images],
        outputs=[{"name": name} for name in maps],
    )
    with (
        running_server(repository, grpc_port=0, **LARGE_ANSWERS) as server,
        ExitStack() as stack,
    ):
        with stub_of(address(server)) as stub:
            stub.ModelInfer(image_request(pixels))
        calls = [stack.enter_context(calling(address(server), "ModelInfer")) for _ in range(16)]
        before = Footprint.of(server.process.pid).resident_bytes
        with server.client() as client:
            for count, call in enumerate(calls, 1):
                call.send(prefixed(request.SerializeToString()))
                until(lambda due=count * images: explained(client) == due)  # type: ignore[misc]
        until(lambda: sum("RESOURCE_EXHAUSTED" in line for line in server.log) == 12)
        assert Footprint.of(server.process.pid).resident_bytes - before < 700 * 2**20
        with stub_of(address(server)) as stub:
            assert stub.ModelInfer(image_request(pixels)).raw_output_contents


def explained(client: httpx.Client) -> int:
    """Images that the explain graph was run for."""
    return settled_queue_counts(client)[DEEPVIT, "1", "explain"]["answered"]


def test_watching_is_bounded_and_needs_no_key(keyed: Server) -> None:
    with grpc.insecure_channel(address(keyed)) as channel:
        watching = [HealthStub(channel).Watch(HealthCheckRequest()) for _ in range(64)]
        assert {next(one).status for one in watching} == {1}
        with pytest.raises(grpc.RpcError) as caught:
            next(HealthStub(channel).Watch(HealthCheckRequest()))
        assert caught.value.code() == StatusCode.RESOURCE_EXHAUSTED
        watching.pop().cancel()
        until(lambda: _can_watch(channel))


def _can_watch(channel: grpc.Channel) -> bool:
    try:
        next(HealthStub(channel).Watch(HealthCheckRequest()))
    except grpc.RpcError:
        return False
    return True
