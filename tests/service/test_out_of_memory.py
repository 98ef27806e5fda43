"""A server that really runs out of memory says so, lives on, and is right again afterwards.

What stands between a request and the memory it needs is the address space of the running process.
"""

import io
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import DEEPVIT
from tests.right_answer import balanced_books, right_answer
from tests.server import Server, running_server
from tests.service.test_neighbours import photos

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process's memory")


@contextmanager
def only_more(server: Server, megabytes: int) -> Iterator[None]:
    """The server cannot take more than this beyond what it has, until the block ends."""
    pid = server.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + megabytes * 2**20
    _, hard = before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_an_image_there_is_no_memory_for_is_not_called_damaged(
    repository: Path, photo: bytes
) -> None:
    """It takes 200 MB and more to decode, and some 100 are there."""
    buffer = io.BytesIO()
    Image.new("RGB", (7900, 8000)).save(buffer, "PNG")
    large = {"image": buffer.getvalue()}
    with running_server(repository, decode_threads=1) as server, server.client() as client:
        before = right_answer(client, photo)
        with only_more(server, 100):
            for _ in range(3):
                refused = client.post("/classify", files=large)
                assert (refused.status_code, refused.json()["code"]) == (503, "out-of-memory")
                assert refused.headers["retry-after"] == "1"
                assert right_answer(client, photo) == before
        assert client.post("/classify", files=large).status_code == 200
        assert right_answer(client, photo) == before
        balanced_books(client)
    assert "Traceback" not in "".join(server.log)


def test_a_batch_there_is_no_memory_for_is_answered_image_by_image(
    repository: Path, photo: bytes
) -> None:
    url = f"/classify?model={DEEPVIT}&similarity=true"
    images = [("image", image) for image in photos(photo, 8)]
    with running_server(repository) as server, server.client() as client:
        before = right_answer(client, photo)
        assert client.post(url, files=images[:1]).status_code == 200  # memory for one is kept
        with only_more(server, 20):
            singly = client.post(url, files=images)
            assert singly.status_code == 200
            assert right_answer(client, photo) == before
        assert any("a batch of 8 failed" in line for line in server.log)
        failures = len(server.log)
        together = client.post(url, files=images)
        assert not any("failed" in line for line in server.log[failures:])
        for one, other in zip(singly.json()["results"], together.json()["results"], strict=True):
            assert one["id"] == other["id"]
            assert [p["index"] for p in one["predictions"]] == [
                p["index"] for p in other["predictions"]
            ]
        assert right_answer(client, photo) == before
        assert balanced_books(client)["failed"] == 0
