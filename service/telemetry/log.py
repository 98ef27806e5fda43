"""Logs: one JSON object a line with the ids of request and trace, or plain text for a terminal."""

import logging
import logging.config
import random
import re
from contextvars import ContextVar
from typing import Literal

LogFormat = Literal["json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s %(request_id)s"


class _AddIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        if trace := trace_id.get():
            record.trace_id = trace
        return True


def begin(given: str) -> str:
    """The caller's request id or a new one, in every line of this request from now on."""
    # Ids need not be secret, and random bytes of the system cost a system call.
    chosen = given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
    request_id.set(chosen)
    return chosen


def configure(format: LogFormat) -> None:
    """Everything to standard error; uvicorn's access log gives way to `service.access`."""
    # What no line shows is not looked up for each: callers, threads, processes.
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
                    "formatter": format,
                    "filters": ["ids"],
                }
            },
            "root": {"level": "INFO", "handlers": ["stderr"]},
            "loggers": {"uvicorn.access": {"level": "WARNING"}},
        }
    )
