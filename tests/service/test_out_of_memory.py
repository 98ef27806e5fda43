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

from tests.support.answers import answers_of_both_models
from tests.support.counts import settled_counts
from tests.support.server import Server, running_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits another process's memory")


@contextmanager
def only_more(server: Server, megabytes: int) -> Iterator[None]:
    """Until the block ends, the server can allocate only this much more memory."""
    pid = server.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + megabytes * 2**20
    _, hard = before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (allowed, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def test_running_out_of_memory_is_not_called_a_damaged_image(
    repository: Path, photo: bytes
) -> None:
    """Decoding takes more than 200 MB, of which only some 100 are available."""
    buffer = io.BytesIO()
    Image.new("RGB", (7900, 8000)).save(buffer, "PNG")
    large = {"image": buffer.getvalue()}
    with running_server(repository, decode_threads=1) as server, server.client() as client:
        before = answers_of_both_models(client, photo)
        with only_more(server, 100):
            for _ in range(3):
                refused = client.post("/classify", files=large)
                assert (refused.status_code, refused.json()["code"]) == (503, "out-of-memory")
                assert refused.headers["retry-after"] == "1"
                assert answers_of_both_models(client, photo) == before
        assert client.post("/classify", files=large).status_code == 200
        assert answers_of_both_models(client, photo) == before
        settled_counts(client)
    assert "Traceback" not in "".join(server.log)
