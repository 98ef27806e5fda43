"""Logs: one JSON object a line with the ids of request and trace, or plain text for a terminal."""

import logging
import logging.config
import re
import secrets
from contextvars import ContextVar
from typing import Literal

import orjson

LogFormat = Literal["json", "text"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
trace_id: ContextVar[str | None] = ContextVar("trace_id", default=None)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_OF_EVERY_RECORD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _AddIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        if trace := trace_id.get():
            record.trace_id = trace
        return True


class _JsonLines(logging.Formatter):
    """Written by orjson: a line for each request is written on the event loop."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = vars(record).items()
        line |= {name: value for name, value in extra if name not in _OF_EVERY_RECORD}
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack_info"] = record.stack_info
        return orjson.dumps(line, default=str).decode()


def begin(given: str) -> str:
    """The caller's request id or a new one, in every line of this request from now on."""
    chosen = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
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
                "json": {"()": _JsonLines},
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
