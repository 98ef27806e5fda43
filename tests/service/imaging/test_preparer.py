"""Images that may cost much are prepared in processes that bound it; the pixels stay the same.

The processes are real, and so is what ends them.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from models.imaging import FORMATS
from models.preprocess import Preprocessing
from models.size import Size
from service.errors import (
    CorruptImage,
    DeadlineExceeded,
    ImageTooCostly,
    NoImage,
    OutOfMemory,
    ServiceError,
    Stopped,
    UnsupportedMedia,
)
from service.imaging.decoder import Decoder
from service.imaging.effort import Effort, effort
from service.imaging.preparation import prepare
from service.imaging.preparer import Preparer
from service.imaging.process import DecodeOptions
from tests.service.imaging.encoded import noise, quarters, save
from tests.support.hostile import bmp_of_line_ends, precincts

RULE = Preprocessing(size=Size.of(48))
WEBP = save(quarters().resize((300, 200)), "WEBP", lossless=True)
# It takes many seconds.
SLOW = bmp_of_line_ends(60 * 10**6)
MAX_PIXELS = 64 * 10**6


@contextmanager
def preparing(
    processes: int = 2, max_s: int = 60, max_bytes: int = 2**31, formats: Sequence[str] = FORMATS
) -> Iterator[Preparer]:
    options = DecodeOptions(MAX_PIXELS, max_bytes, max_s, formats)
    with ThreadPoolExecutor(1) as threads:
        preparer = Preparer(options, threads, processes)
        try:
            yield preparer
        finally:
            preparer.close()


def soon() -> float:
    return time.perf_counter() + 60


async def assert_right(preparer: Preparer, upload: bytes = WEBP) -> None:
    (found,) = await preparer.prepare([upload], RULE, soon())
    expected = prepare(Decoder(MAX_PIXELS), upload, RULE)
    np.testing.assert_array_equal(found.pixels, expected.pixels)


async def one_more(pids: set[int], preparer: Preparer) -> int:
    """The id of the next process that starts, once it has loaded Pillow."""
    while not (new := {process.pid for process in preparer._processes} - pids):
        await asyncio.sleep(0.01)
    (pid,) = new
    while "_imaging" not in Path(f"/proc/{pid}/maps").read_text():
        await asyncio.sleep(0.01)
    return pid


@asynccontextmanager
async def decoding_slowly(preparer: Preparer) -> AsyncIterator[tuple[int, asyncio.Task[object]]]:
    """A process that is busy with the slow image, and the task that waits for it."""
    before = {process.pid for process in preparer._processes}
    task: asyncio.Task[object] = asyncio.create_task(preparer.prepare([SLOW], RULE, soon()))
    yield await one_more(before, preparer), task
    task.cancel()


@pytest.mark.parametrize("format", FORMATS)
def test_the_pixels_are_those_that_are_decoded_here(format: str) -> None:
    with preparing() as preparer:
        asyncio.run(assert_right(preparer, noise(format)))
        here = effort(noise(format)) is Effort.LITTLE
        assert bool(preparer._processes) is not here


@pytest.mark.parametrize("upload", [b"", b"hello", bytes(500), noise("JPEG")[:10]])
def test_what_is_no_picture_waits_for_no_process(upload: bytes) -> None:
    async def scenario(preparer: Preparer) -> None:
        with pytest.raises(ServiceError):
            await preparer.prepare([upload], RULE, soon())
        assert not preparer._processes

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


def test_a_process_prepares_many_images() -> None:
    async def scenario(preparer: Preparer) -> None:
        uploads = [noise("GIF"), WEBP, noise("WEBP", lossless=True)] * 5
        found = await preparer.prepare(uploads, RULE, soon())
        for upload, one in zip(uploads, found, strict=True):
            expected = prepare(Decoder(MAX_PIXELS), upload, RULE)
            np.testing.assert_array_equal(one.pixels, expected.pixels)
        assert len(preparer._processes) <= 2

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


@pytest.mark.parametrize(
    ("upload", "error"),
    [
        (noise("GIF")[:3000], CorruptImage),
        (noise("TIFF"), UnsupportedMedia),
        (b"hello", UnsupportedMedia),
        (b"", NoImage),
    ],
)
def test_errors_are_the_same_and_say_which_image(upload: bytes, error: type[ServiceError]) -> None:
    async def scenario(preparer: Preparer) -> None:
        with pytest.raises(error):
            await preparer.prepare([upload], RULE, soon())
        with pytest.raises(error) as raised:
            await preparer.prepare([WEBP, upload, WEBP], RULE, soon())
        assert raised.value.detail.startswith("image 2 of 3: ")
        await assert_right(preparer)

    with preparing(formats=("JPEG", "GIF", "WEBP")) as preparer:
        asyncio.run(scenario(preparer))


def test_an_image_that_takes_too_much_time_ends_its_process_alone() -> None:
    async def scenario(preparer: Preparer) -> None:
        slow, _ = await asyncio.gather(
            preparer.prepare([SLOW], RULE, soon()), assert_right(preparer), return_exceptions=True
        )
        assert isinstance(slow, ImageTooCostly)
        assert "1 s of processor time" in slow.detail
        for _ in range(3):
            await assert_right(preparer)

    with preparing(max_s=1) as preparer:
        asyncio.run(scenario(preparer))


def test_an_image_that_takes_too_much_memory_is_refused() -> None:
    """Some 180 MB for 300 x 300 pixels."""

    async def scenario(preparer: Preparer) -> None:
        for _ in range(2):
            with pytest.raises((ImageTooCostly, CorruptImage)):
                await preparer.prepare([precincts(1000)], RULE, soon())
            await assert_right(preparer)
        (process,) = preparer._processes
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        (peak_kb,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM"))
        assert peak_kb < 250 * 1024

    with preparing(processes=1, max_bytes=150 * 2**20) as preparer:
        asyncio.run(scenario(preparer))


def test_the_deadline_holds_while_decoding_and_the_process_is_free_again() -> None:
    async def scenario(preparer: Preparer) -> None:
        async with decoding_slowly(preparer) as (pid, _):
            with pytest.raises(DeadlineExceeded):  # it waits for the only process
                await preparer.prepare([WEBP], RULE, time.perf_counter() + 0.1)
        await assert_right(preparer)
        assert pid not in {process.pid for process in preparer._processes}
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(DeadlineExceeded):
            await preparer.prepare([SLOW], RULE, time.perf_counter() + 0.5)
        await assert_right(preparer)

    with preparing(processes=1) as preparer:
        asyncio.run(scenario(preparer))


@pytest.mark.parametrize(
    ("sent", "error"), [(signal.SIGKILL, OutOfMemory), (signal.SIGSEGV, CorruptImage)]
)
def test_a_process_that_is_ended_is_replaced(
    sent: signal.Signals, error: type[ServiceError]
) -> None:
    """As the system does that lacks memory, or a decoder that breaks."""

    async def scenario(preparer: Preparer) -> None:
        async with decoding_slowly(preparer) as (pid, task):
            os.kill(pid, sent)
            with pytest.raises(error):
                await task
        await assert_right(preparer)
        (process,) = preparer._processes
        os.kill(process.pid, sent)  # while it does nothing
        while process.usable:
            await asyncio.sleep(0.01)
        await assert_right(preparer)

    with preparing(processes=1) as preparer:
        asyncio.run(scenario(preparer))


def test_images_of_unknown_effort_leave_a_process_to_the_others() -> None:
    async def scenario(preparer: Preparer) -> None:
        async with decoding_slowly(preparer) as (_, first):
            second = asyncio.create_task(preparer.prepare([SLOW], RULE, soon()))
            await assert_right(preparer)
            assert not first.done()
            assert not second.done()
            second.cancel()

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


def test_nothing_is_begun_for_a_client_that_has_left() -> None:
    async def scenario(preparer: Preparer) -> None:
        async with decoding_slowly(preparer):
            waiting = [
                asyncio.create_task(preparer.prepare([SLOW], RULE, soon())) for _ in range(5)
            ]
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            assert all(
                isinstance(one, asyncio.CancelledError)
                for one in await asyncio.gather(*waiting, return_exceptions=True)
            )
        await assert_right(preparer)  # at once, and not after five slow ones

    with preparing(processes=1) as preparer:
        asyncio.run(scenario(preparer))


def test_a_process_knows_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPVIT_API_KEYS", "hush")

    async def scenario(preparer: Preparer) -> None:
        await assert_right(preparer)
        (process,) = preparer._processes
        assert b"hush" not in Path(f"/proc/{process.pid}/environ").read_bytes()
        opened = {str(one.readlink()) for one in Path(f"/proc/{process.pid}/fd").iterdir()}
        assert {name for name in opened if not name.startswith("socket:")} == {"/dev/null"}

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


TAKEN_OVER = """#!{python}
import signal, socket, struct, sys
connection = socket.socket(fileno=int(sys.argv[3]))
connection.recv(1)
{reply}
connection.close()
signal.pause()
"""
REPLIES = {
    "nothing": "",
    "no end": "connection.sendall(struct.pack('<II', 2**31, 0) + bytes(1000))",
    "no JSON": "connection.sendall(struct.pack('<II', 4, 0) + b'here')",
    "not facts": "connection.sendall(struct.pack('<II', 2, 0) + b'{}')",
    "a list": "connection.sendall(struct.pack('<II', 2, 0) + b'[]')",
    "other pixels": "connection.sendall(struct.pack('<II', 2, 12) + b'{}' + bytes(12))",
    "no times": "connection.sendall(struct.pack('<II', 2, 6912) + b'{}' + bytes(6912))",
}


@pytest.mark.parametrize("reply", REPLIES)
def test_what_an_image_writes_that_took_over_is_not_believed(
    reply: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(TAKEN_OVER.format(python=sys.executable, reply=REPLIES[reply]))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr("service.imaging.process._END_S", 0.1)

    async def scenario(preparer: Preparer) -> None:
        asked = asyncio.create_task(preparer.prepare([WEBP], RULE, soon()))
        while not preparer._processes:
            await asyncio.sleep(0)
        (taken_over,) = preparer._processes
        with pytest.raises(CorruptImage):
            await asked
        assert not preparer._processes
        with pytest.raises(ProcessLookupError):
            os.kill(taken_over.pid, 0)

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


def test_a_process_gives_way_to_the_service() -> None:
    async def scenario(preparer: Preparer) -> None:
        await assert_right(preparer)
        (process,) = preparer._processes
        assert os.getpriority(os.PRIO_PROCESS, process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        assert Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "1000"

    with preparing() as preparer:
        asyncio.run(scenario(preparer))


def test_after_its_end_nothing_is_left() -> None:
    async def scenario(preparer: Preparer) -> int:
        async with decoding_slowly(preparer) as (pid, task):
            preparer.close()
            with pytest.raises(Stopped):
                await task
            with pytest.raises(Stopped):
                await preparer.prepare([WEBP], RULE, soon())
        return pid

    with preparing() as preparer, pytest.raises(ProcessLookupError):
        os.kill(asyncio.run(scenario(preparer)), 0)
