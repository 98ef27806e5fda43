"""Images made to cost a server gigabytes, minutes or its life cost their own request alone.

Beside them, photographs are answered right and probes are answered.
"""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import httpx
import pytest

from tests.service.imaging.encoded import noise
from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.hostile import (
    bmp_of_line_ends,
    codestream,
    jpeg_of_scans,
    precincts,
    tiff_of_strips,
)
from tests.support.memory import processes_under, processor_s, resident_bytes
from tests.support.server import LARGEST_BATCH, Server, running_server

RAW = {"Content-Type": "application/octet-stream"}
SLOW = bmp_of_line_ends(60 * 10**6)
BETWEEN_S = 0.1  # a client that asks without a pause takes the processor from what it watches
MAX_PIXELS = 64 * 10**6
MOST_BYTES = 2 * (128 * 2**20 + 24 * MAX_PIXELS)  # of both processes that decode


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with running_server(
        repository,
        decode_threads=2,
        image_formats="all",
        max_batch_size=LARGEST_BATCH,
        max_image_pixels=MAX_PIXELS,
        max_decode_s=1,
    ) as running:
        yield running


def post(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post("/classify", content=body, headers=RAW | headers)


ATTACKS = {
    "10,000 scans": (jpeg_of_scans(800, 10_000), {"image-too-costly"}),
    "8 million strips": (tiff_of_strips(8_000_000), {"image-too-costly"}),
    "16,384 components": (codestream((20, 10), 16_384), {"image-too-costly"}),
    "precincts": (precincts(1000), {"image-too-costly", "corrupt-image"}),
    "line ends": (SLOW, {"image-too-costly"}),
    "comments": (b"P2\n1000 1000\n255\n" + b"#\n" * 500_000, {"image-too-costly"}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_its_own_request_alone(name: str, server: Server, photo: bytes) -> None:
    body, codes = ATTACKS[name]
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        before = answers_of_both_models(client, photo)
        grown_from = resident_bytes(server.process.pid)
        attack = pool.submit(post, client, body)
        most = 0
        while not wait([attack], BETWEEN_S).done:
            assert client.get("/livez").status_code == 200
            assert answers_of_both_models(client, photo) == before
            most = max(most, sum(map(resident_bytes, processes_under(server.process.pid))))
        assert attack.result().json()["code"] in codes
        assert most < MOST_BYTES
        assert resident_bytes(server.process.pid) - grown_from < 200 * 2**20
        settled_counts(client)
    assert "Traceback" not in "".join(server.log)


def test_a_deadline_holds_while_an_image_is_decoded(server: Server, photo: bytes) -> None:
    with server.client() as client:
        before = answers_of_both_models(client, photo)
        late = post(client, SLOW, **{"X-Request-Timeout-Ms": "300"})
        assert (late.status_code, late.json()["code"]) == (504, "deadline-exceeded")
        assert answers_of_both_models(client, photo) == before


def test_a_decoder_that_the_system_ends_is_not_a_damaged_image(
    server: Server, photo: bytes
) -> None:
    """The system does so when the machine has no memory left."""
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        before = answers_of_both_models(client, photo)
        asked = pool.submit(post, client, SLOW)
        os.kill(busy_decoder(server), signal.SIGKILL)
        refused = asked.result()
        assert (refused.status_code, refused.json()["code"]) == (503, "out-of-memory")
        assert refused.headers["retry-after"] == "1"
        assert answers_of_both_models(client, photo) == before
        assert post(client, noise("GIF")).status_code == 200


def test_a_shutdown_does_not_wait_for_an_image(repository: Path) -> None:
    """It would take a minute."""
    settings = {"drain_delay_s": 0, "drain_timeout_s": 1, "max_decode_s": 300}
    with (
        running_server(repository, image_formats="all", **settings) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(post, client, b"P2\n1000 1000\n255\n" + b"#\n" * 4_000_000)
        decoder = busy_decoder(server)
        assert server.terminate() == 0
        assert isinstance(asked.exception(), httpx.RemoteProtocolError) or (
            asked.result().status_code in (503, 504)
        )
        with pytest.raises(ProcessLookupError):
            os.kill(decoder, 0)


def busy_decoder(server: Server) -> int:
    """The process that is at an image, once it has used processor time for it."""
    used: dict[int, float] = {}
    while True:
        for pid in processes_under(server.process.pid):
            if processor_s(pid) > used.setdefault(pid, processor_s(pid)) + 0.2:
                return pid
