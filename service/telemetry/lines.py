"""Lines to a file descriptor, without ever waiting for who reads it.

A pipe whose reader stands still would otherwise stop the whole service. As long as the reader
follows, a line is written before `write` returns; else it waits in memory, and is lost if too many
do. Knows nothing of what is in a line.
"""

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_MAX_WAITING_BYTES = 2**20
_POLL_MS = 200


class LineWriter:
    """`notice` makes the line that says how many lines were lost, once lines are written again."""

    def __init__(self, fd: int, notice: Callable[[int], bytes]) -> None:
        self.lost = 0  # lines, since the start
        self._fd = fd
        self._notice = notice
        self._noticed = 0
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lock = threading.RLock()  # a signal handler may log, too
        self._thread: threading.Thread | None = None

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._waiting_bytes + len(line) > _MAX_WAITING_BYTES:
                self.lost += 1
                return
            self._put(line)
            self._write_ready()
            if self._waiting and self._thread is None:
                self._start_to_follow()

    def flush(self, timeout_s: float) -> None:
        """Write what waits, if the reader takes it in time."""
        deadline = time.monotonic() + timeout_s
        while self._waiting and time.monotonic() < deadline:
            self._wait_and_write()

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _start_to_follow(self) -> None:
        thread = threading.Thread(target=self._follow, name="log", daemon=True)
        with suppress(RuntimeError):  # the process ends, and `flush` comes
            thread.start()
            self._thread = thread

    def _follow(self) -> None:
        """Write what waits, in a thread that ends when nothing does."""
        while True:
            self._wait_and_write()
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return

    def _wait_and_write(self) -> None:
        _is_ready(self._fd, _POLL_MS)
        with self._lock:
            self._write_ready()

    def _write_ready(self) -> None:
        """Write for as long as that does not block."""
        while self._waiting and _is_ready(self._fd):
            line = self._waiting.popleft()
            self._waiting_bytes -= len(line)
            try:
                written = os.write(self._fd, line[: select.PIPE_BUF])
            except OSError:  # nobody reads any more, or the disk is full
                self.lost += 1
                continue
            if rest := line[written:]:
                self._waiting.appendleft(rest)
                self._waiting_bytes += len(rest)
            elif not self._waiting and self.lost > self._noticed:
                lost, self._noticed = self.lost - self._noticed, self.lost
                self._put(self._notice(lost))


def _is_ready(fd: int, timeout_ms: int = 0) -> bool:
    """Whether `select.PIPE_BUF` bytes can be written without blocking, or writing fails at once."""
    polling = select.poll()
    polling.register(fd, select.POLLOUT)
    return bool(polling.poll(timeout_ms))
