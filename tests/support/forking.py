"""Processes of the service that begin where its imports end, which takes half as long.

They are forked from one process that has imported the service and does nothing else.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from subprocess import TimeoutExpired

from PIL import Image

_SERVICE = "service.__main__"
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, _SERVICE])
Image.init()  # imports the readers of all formats, as each service does when it starts


class Forked:
    """What `subprocess.Popen` is for a command: a process, and what it writes to standard error."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: os.PathLike[str],
        env: Mapping[str, str],
        module: str = _SERVICE,
    ) -> None:
        reading, writing = _context.Pipe(duplex=False)
        given = (module, list(arguments), os.fspath(cwd), dict(env), writing)
        self._process = _context.Process(target=_run, args=given, daemon=True)
        self._process.start()
        writing.close()
        with reading:
            self.stderr = open(os.dup(reading.fileno()))  # noqa: PTH123, SIM115
        assert self._process.pid is not None
        self.pid = self._process.pid

    def finish(self, timeout: float) -> tuple[int, str]:
        """The exit status, and what was written to standard error."""
        with self.stderr:
            said = self.stderr.read()
        return self.wait(timeout), said

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise TimeoutExpired("forked", timeout or 0)
        return status

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(
    module: str, arguments: list[str], cwd: str, env: dict[str, str], errors: Connection
) -> None:
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    os.dup2(errors.fileno(), sys.stderr.fileno())
    errors.close()
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(import_module(module).main(arguments))
