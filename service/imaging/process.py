"""One decoding process, as the service sees it."""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from models.preprocess import Preprocessing
from service.errors import (
    CorruptImage,
    ImageTooCostly,
    ImageTooLarge,
    OutOfMemory,
    ServiceError,
    UnsupportedMedia,
)
from service.imaging.messages import LENGTHS, MAX_REPLY_BYTES, before_content
from service.imaging.preparation import Prepared

_logger = logging.getLogger(__name__)
_END_S = 5  # how long the system may take to end a process, and take back its memory
_Buffer = TypeVar("_Buffer", bytearray, memoryview)
_ROOT = Path(__file__).parents[2]
# What Python needs to find itself and its libraries; API keys and passwords are not among it.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
_ERRORS = {
    error.code: error for error in (CorruptImage, ImageTooCostly, ImageTooLarge, UnsupportedMedia)
}


@dataclass(frozen=True)
class DecodeOptions:
    max_pixels: int
    max_bytes: int  # of memory, above what an idle process takes
    max_s: int  # of processor time for one image
    formats: Sequence[str]
    reduced: bool = False


class _Ended(Exception):
    """The process has closed its end of the socket, or writes what it should not."""


class DecodeProcess:
    """Prepares one image at a time, until it has ended."""

    def __init__(self, options: DecodeOptions) -> None:
        """Raises `OutOfMemory` if the system starts no process."""
        self._options = options
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        arguments = ["-m", "service.imaging.worker", str(theirs.fileno())]
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, *arguments, json.dumps(asdict(options))],
                    cwd=_ROOT,
                    env=_environment(),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # where image libraries write of their own accord
                    process_group=0,  # a terminal's Ctrl-C is for the service alone
                )
        except OSError as exc:
            self._connection.close()
            raise OutOfMemory("no process to decode could be started", retry_after_s=1) from exc

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usable(self) -> bool:
        return self._connection.fileno() >= 0 and self._process.poll() is None

    async def prepare(self, upload: bytes, rule: Preprocessing) -> Prepared:
        """Raises an error of the image, or why the process has ended over it."""
        try:
            await self._send(rule.model_dump_json(), upload)
            return await self._receive(rule)
        except (_Ended, OSError, ValueError, KeyError, TypeError) as exc:
            self.close()
            raise await asyncio.to_thread(self._why_it_ended) from exc

    def kill(self) -> None:
        """Tell the system to end the process, whatever it does; `prepare` then raises why."""
        self._process.kill()

    def wait(self) -> int:
        """Wait until the system has ended it and taken back its memory; its exit status."""
        return self._process.wait()

    def close(self) -> None:
        """Its end of the socket, once nothing waits for the other end."""
        self._connection.close()

    async def _send(self, rule: str, upload: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._connection, before_content(rule, len(upload)))
        await loop.sock_sendall(self._connection, upload)

    async def _receive(self, rule: Preprocessing) -> Prepared:
        """Believes nothing that does not fit the question: an image may have taken over there."""
        text_bytes, content_bytes = LENGTHS.unpack(await self._read(bytearray(LENGTHS.size)))
        if text_bytes > MAX_REPLY_BYTES:
            raise _Ended
        facts = json.loads(await self._read(bytearray(text_bytes)))
        if "error" in facts:
            raise _error_of(facts)
        pixels = np.empty((*rule.size, 3), np.uint8)
        if content_bytes != pixels.nbytes:
            raise _Ended
        await self._read(pixels.data.cast("B"))
        return Prepared(
            pixels, float(facts["decode_s"]), float(facts["preprocess_s"]), time.perf_counter()
        )

    async def _read(self, buffer: _Buffer) -> _Buffer:
        """The buffer, filled. Raises `_Ended`."""
        loop = asyncio.get_running_loop()
        rest = memoryview(buffer)
        while rest:
            count = await loop.sock_recv_into(self._connection, rest)
            if not count:
                raise _Ended
            rest = rest[count:]
        return buffer

    def _why_it_ended(self) -> ServiceError:
        try:
            ended_by = -self._process.wait(_END_S)
        except subprocess.TimeoutExpired:  # it has only closed its end of the socket
            self.kill()
            self.wait()
            ended_by = 0
        match ended_by:
            case signal.SIGXCPU:
                return ImageTooCostly(
                    f"decoding takes more than {self._options.max_s} s of processor time"
                )
            case signal.SIGKILL:
                return OutOfMemory(
                    "the system has ended the process that decoded the image", retry_after_s=1
                )
            case number:
                _logger.error("a decoding process has ended over an image: signal %s", number)
                return CorruptImage("the image breaks its decoder")


def _error_of(facts: dict[str, Any]) -> ServiceError:
    code, detail = facts["error"], str(facts["detail"])
    if code not in _ERRORS:
        _logger.error("decoding failed: %s", detail)
        return ServiceError("see the log")
    return _ERRORS[code](detail)


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    # One thread decodes; libraries for linear algebra would start more, and take memory for each.
    return kept | {"OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
