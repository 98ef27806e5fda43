"""The log: whole lines in ordinary operation, and no wait for a reader that stands still."""

import io
import json
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from service.telemetry.lines import LineWriter
from tests.service.telemetry.test_observability import scrape
from tests.support.memory import bounded_growth
from tests.support.server import ROOT, running_server, start
from tests.support.sockets import accepts, free_port
from tests.support.waiting import until

JPEG = {"Content-Type": "image/jpeg"}
LONG_PATH = "/" + "x" * 2000
PROGRAM = "from service.telemetry import log; import logging; log.configure('json'); "


def run(code: str) -> subprocess.CompletedProcess[str]:
    """A process that logs as the service does."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def read(fd: int) -> bytes:
    """What a pipe holds now."""
    content = b""
    while select.select([fd], [], [], 0)[0] and (chunk := os.read(fd, 2**16)):
        content += chunk
    return content


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def server_into(pipe_end: int, repository: Path) -> Iterator[tuple[Any, httpx.Client]]:
    """A server whose log goes into a pipe, and a client once it answers."""
    port = free_port()
    settings = {"drain_delay_s": 0, "intra_op_threads": 1}
    process = start("service", port, repository, settings, stderr=pipe_end)
    try:
        until(lambda: accepts(port))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield process, client
    finally:
        process.kill()
        process.wait()


def test_a_log_that_nobody_reads_stops_nothing(tiny_repository: Path, photo: bytes) -> None:
    """A pipe holds 64 KiB, and 1 MiB more may wait in memory: some 500 lines of this length."""
    with pipe() as (reading, writing), server_into(writing, tiny_repository) as (process, client):
        with bounded_growth(process.pid, 48):
            for _ in range(800):
                assert client.get(LONG_PATH).status_code == 404
        assert client.post("/classify", files={"image": photo}).status_code == 200
        lost = scrape(client)["deepvit_log_lines_lost_total",]
        assert lost > 0
        received = read(reading)
        while b"were lost" not in received:
            received += read(reading)
        client.get("/nothing", headers={"X-Request-Id": "after"})
        until(lambda: b"after" in read(reading))
        lines = [json.loads(line) for line in received.splitlines()]
        (notice,) = [line["message"] for line in lines if "were lost" in line["message"]]
        assert notice.endswith(f": {lost:.0f}")
        answered = sum(line["logger"] == "service.access" for line in lines)
        assert answered + lost == 801


def test_a_server_whose_log_nobody_reads_still_ends(tiny_repository: Path) -> None:
    with pipe() as (_, writing), server_into(writing, tiny_repository) as (process, client):
        for _ in range(100):
            client.get(LONG_PATH)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_log_whose_reader_has_gone_stops_nothing(tiny_repository: Path, photo: bytes) -> None:
    reading, writing = os.pipe()
    try:
        with server_into(writing, tiny_repository) as (process, client):
            os.close(reading)
            for _ in range(3):
                assert client.post("/classify", files={"image": photo}).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    finally:
        os.close(writing)


def test_no_line_is_lost_at_the_end_of_a_process() -> None:
    many = run("[logging.info('x' * 20_000 + ' %d', number) for number in range(40)]")
    numbers = [int(json.loads(line)["message"].split()[1]) for line in many.stderr.splitlines()]
    assert numbers == list(range(40))
    abrupt = run("import os; logging.warning('last'); os._exit(3)")
    assert (json.loads(abrupt.stderr)["message"], abrupt.returncode) == ("last", 3)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("1 / 0", 1),
        ("import threading; t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join()", 0),
        ("class Bad:\n  def __del__(self): 1 / 0\nBad()", 0),
    ],
    ids=["main", "thread", "finalizer"],
)
def test_what_nothing_catches_is_a_line(code: str, status: int) -> None:
    found = run("\n" + code)
    (line,) = [json.loads(line) for line in found.stderr.splitlines()]
    assert (line["level"], line["message"]) == ("CRITICAL", "uncaught exception")
    assert "ZeroDivisionError" in line["exc_info"]
    assert found.returncode == status


def test_a_line_that_cannot_be_formatted_is_said_to_be_one() -> None:
    found = run("logging.info('%d', 'x')")
    assert "cannot be formatted: TypeError" in json.loads(found.stderr)["message"]


def test_without_standard_error_nothing_is_logged_elsewhere(tmp_path: Path) -> None:
    target = tmp_path / "opened next"
    code = f"import os, sys; fd = os.open({str(target)!r}, os.O_CREAT | os.O_WRONLY); {PROGRAM}"
    code += "logging.info('a line'); sys.exit(fd)"
    command = f'exec "{sys.executable}" -c "$0" 2>&-'
    found = subprocess.run(["bash", "-c", command, code], cwd=ROOT, check=False)
    assert (found.returncode, target.read_bytes()) == (2, b"")


def photo_with_wrong_exif(offset: int) -> bytes:
    """Pillow warns of a field that lies beyond the end, and quotes numbers of the file."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    field = struct.pack("<HHHIII", 1, 0x10E, 1, offset, 26, 0)
    exif = b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + field
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    return file.getvalue()[:2] + segment + file.getvalue()[2:]


def test_warnings_are_lines_and_are_not_repeated(tiny_repository: Path) -> None:
    with running_server(tiny_repository) as server:
        with server.client() as client:
            for offset in range(300):
                image = photo_with_wrong_exif(1000 + offset)
                assert client.post("/classify", content=image, headers=JPEG).status_code == 200
        server.terminate()
        lines = [json.loads(line) for line in server.log]
    warned = [line for line in lines if line["logger"] == "python"]
    assert 1 <= len(warned) <= 3
    assert warned[0]["level"] == "WARNING"
    assert warned[0]["message"].startswith("UserWarning: ")
    assert "TiffImagePlugin.py:" in warned[0]["place"]


def test_new_texts_of_a_warning_take_no_memory() -> None:
    found = run(
        "import warnings\n"
        "for n in range(1000): warnings.warn(f'text {n}')\n"
        "print(len([key for key in __warningregistry__ if key != 'version']))"
    )
    assert found.stdout == "0\n"
    assert json.loads(found.stderr)["message"] == "UserWarning: text 0"


def test_a_pipe_takes_whole_lines_in_order_from_a_slow_reader() -> None:
    with pipe() as (reading, writing):
        writer = LineWriter(writing, lambda lost: b"%d lost\n" % lost)
        sent = [b"%d " % number + b"x" * (number % 9000) + b"\n" for number in range(200)]
        for line in sent:
            writer.write(line)
        assert not writer.lost
        received = b""
        while received.count(b"\n") < len(sent):
            received += os.read(reading, 1000)
        assert received == b"".join(sent)
