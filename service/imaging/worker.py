"""`python -m service.imaging.worker`: a process that decodes images for the service.

It is given a connected socket, no secrets, and bounds that the operating system holds it to. Images
come one after the other. What goes wrong in a decoder costs this process and the image it was at.
"""

import json
import math
import os
import resource
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from models.preprocess import Preprocessing
from service.errors import ImageTooCostly, OutOfMemory, ServiceError
from service.imaging.decoder import Decoder
from service.imaging.messages import LENGTHS, before_content
from service.imaging.preparation import prepare
from service.limits.heap import Heap

_NICENESS = 5
_MOST_DISPENSABLE = "1000"  # what the system ends first when it has no memory left
_parse_rule = lru_cache(16)(Preprocessing.model_validate_json)


def main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    options = json.loads(sys.argv[2])
    warnings.simplefilter("ignore")  # Pillow's, of what it finds odd in a file
    decoder = Decoder(options["max_pixels"], options["reduced"], options["formats"])
    _give_way()
    _limit_memory(options["max_bytes"])
    heap = Heap()
    stream = connection.makefile("rb")
    while lengths := stream.read(LENGTHS.size):
        rule, upload = (stream.read(length) for length in LENGTHS.unpack(lengths))
        _limit_time(options["max_s"])
        try:
            _send(connection, *_answer(decoder, upload, rule.decode()))
        except Exception:
            _send(connection, {"error": ServiceError.code, "detail": traceback.format_exc()})
            raise
        heap.trim()


def _answer(decoder: Decoder, upload: bytes, rule: str) -> tuple[dict[str, Any], bytes]:
    """Facts and the pixels, or an error and none."""
    try:
        found = prepare(decoder, upload, _parse_rule(rule))
    except (MemoryError, OutOfMemory):  # of what this process may take, which is enough for any
        detail = "decoding takes more memory than an image of this size may take"
        return {"error": ImageTooCostly.code, "detail": detail}, b""
    except ServiceError as exc:
        return {"error": exc.code, "detail": exc.detail}, b""
    facts = {"decode_s": found.decode_s, "preprocess_s": found.preprocess_s}
    return facts, found.pixels.tobytes()


def _send(connection: socket.socket, facts: dict[str, Any], pixels: bytes = b"") -> None:
    connection.sendall(before_content(json.dumps(facts), len(pixels)))
    connection.sendall(pixels)


def _give_way() -> None:
    """The service itself, which answers everybody, comes first for processors and for memory."""
    os.nice(_NICENESS)
    with suppress(OSError):  # where there is no /proc
        Path("/proc/self/oom_score_adj").write_text(_MOST_DISPENSABLE)


def _limit_memory(more_bytes: int) -> None:
    """Let this process take only so much more memory, write no files and leave no core dump."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    for limit, value in (
        (resource.RLIMIT_AS, most),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lower, lower))


def _limit_time(more_s: int) -> None:
    """Let the next image take so much processor time; then the system ends this process."""
    used_s = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used_s + more_s), hard))


if __name__ == "__main__":
    main()
