"""Logs with request and trace ids: one JSON object per line, or plain text for a terminal."""

import logging
import logging.config
import random
import re
from contextvars import ContextVar
from typing import Literal

LogFormat = Literal["json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_access = logging.getLogger("service.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
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


def configure(format: LogFormat, stream: str = "sys.stderr") -> None:
    """Log everything to `stream`; `service.access` replaces uvicorn's access log."""
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
            "handlers": {
                "stderr": {
                    "class": "logging.StreamHandler",
                    "stream": f"ext://{stream}",
                    "formatter": format,
                    "filters": ["ids"],
                }
            },
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        }
    )
