"""Logs with request and trace ids: one JSON object per line, or plain text for a terminal."""

import logging
import logging.config
import os
import random
import re
import sys
from contextvars import ContextVar
from typing import Literal

from service.telemetry import uncaught
from service.telemetry.lines import LineWriter

LogFormat = Literal["json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_logger = logging.getLogger(__name__)
_access = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FLUSH_TIMEOUT_S = 1
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s"


class _AddIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        if trace := trace_id.get():
            record.trace_id = trace
        return True


def begin_request(given: str) -> str:
    """Log the caller's request id, or a new one if it is not valid, with this request's lines."""
    # Ids need not be secret, and os.urandom would cost a system call.
    chosen = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    request_id.set(chosen)
    return chosen


def access(call: str, route: str, status: int | str, seconds: float) -> None:
    """The access log line of one request, the same for HTTP and gRPC."""
    _access.info(
        "%s %s",
        call,
        status,
        extra={"status": status, "route": route, "duration_ms": round(seconds * 1e3, 2)},
    )


class _Lines(logging.Handler):
    """Writes to standard error, without ever waiting for who reads it."""

    def __init__(self) -> None:
        super().__init__()
        # Not through sys.stderr: in a cluster, Ray puts something there that looks up callers. It
        # is None if the process was started without one; then 2 may by now be another file.
        fd = sys.__stderr__.fileno() if sys.__stderr__ else os.open(os.devnull, os.O_WRONLY)
        self.writer = LineWriter(fd, self._notice)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception as exc:  # noqa: BLE001  # wrong arguments; logging itself would print this
            record.msg, record.args = "a line that cannot be formatted: %r", (exc,)
            line = self._line(record)
        self.writer.write(line)

    def flush(self) -> None:
        """Called when the process ends."""
        self.writer.flush(_FLUSH_TIMEOUT_S)

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _notice(self, lost: int) -> bytes:
        text = "lines of the log that were lost, because nobody read them: %d"
        record = _logger.makeRecord(__name__, logging.WARNING, "", 0, text, (lost,), None)
        self.filter(record)
        return self._line(record)


def lost_lines() -> int:
    """How many lines were lost since the start, because nobody read the log."""
    handlers = (one for one in logging.getLogger().handlers if isinstance(one, _Lines))
    return sum(handler.writer.lost for handler in handlers)


def configure(format: LogFormat) -> None:
    """Log everything to standard error; `service.access` replaces uvicorn's access log."""
    # Callers, threads and processes are in no format, so do not look them up for each line.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"ids": {"()": _AddIds}},
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.orjson.OrjsonFormatter",
                    "format": _FIELDS,
                    "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
                },
                "text": {"format": "%(asctime)s %(levelname)s %(message)s"},
            },
            "handlers": {"stderr": {"()": _Lines, "formatter": format, "filters": ["ids"]}},
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        }
    )
    uncaught.log_them()
