"""What a picture of maps or measures costs, and how long other requests wait while one is drawn.

A picture takes turns with the same values as JSON: the difference is the drawing. Then one client
classifies in a closed loop while nothing else happens, while values are asked for a few times a
second, and while pictures of them are.
"""

import json
import statistics
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.bench import models
from tests.bench.client import Load, closed_loop, open_loop
from tests.bench.lineup import SERVICE
from tests.bench.photos import photos
from tests.bench.record import Record, table
from tests.bench.servers import running

_PICTURES = {
    "maps of all blocks, mean of heads": "/attention-maps?",
    "over the image": "/attention-maps?overlay=true&",
    "one map": "/attention-maps?layer=1&head=0&",
    "maps of all blocks and heads": "/attention-maps?head=all&",
    "similarity": "/similarity?",
}
_FORMATS = ("json", "png")
_BESIDE = (None, *_FORMATS)
_PER_S = 3  # requests for values or pictures beside the classifications
_ROUNDS, _SECONDS = 4, 3.0


def run(name: str, rounds: int = _ROUNDS, seconds: float = _SECONDS) -> None:
    """Print and record the time of each picture, and the latency of classifications beside it."""
    folder = models.exported(name)
    jpegs = photos(models.manifest(folder).preprocessing.size.side)
    classifications = [SERVICE.request(jpeg) for jpeg in jpegs]
    record = Record("pictures", name)
    costs: list[list[object]] = []
    effects: list[list[object]] = []
    with running(folder, [SERVICE]) as [server], server.awake():
        port = server.port
        image_id = _classified(port, classifications[0])

        def request(what: str, form: str) -> bytes:
            path = f"{_PICTURES[what]}id={image_id}&format={form}"
            return f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode()

        for what in _PICTURES:
            ms = _medians_ms(
                port, {form: request(what, form) for form in _FORMATS}, rounds, seconds
            )
            costs.append([what, ms["json"], ms["png"], round(ms["png"] / ms["json"], 2)])
            record.add(what=what, json_ms=ms["json"], png_ms=ms["png"])
        for what in _PICTURES:
            found: dict[str | None, list[Load]] = {beside: [] for beside in _BESIDE}
            for _ in range(rounds):
                for beside, loads in found.items():
                    others = [] if beside is None else [request(what, beside)]
                    with _sent(port, others, seconds):
                        loads.append(closed_loop(port, classifications, 1, seconds))
            for beside, loads in found.items():
                figures = _figures(loads, found[None])
                record.add(what=what, beside=beside or "nothing", **figures)
                effects.append([what, beside or "nothing", *figures.values()])
    print(*table(["", "ms as JSON", "ms as PNG", "times"], costs), "", sep="\n")
    headings = ["", "beside", "answers/s", "of those beside nothing", "p50 ms", "p99 ms"]
    print(*table(headings, effects), sep="\n", flush=True)


def _medians_ms(
    port: int, requests: dict[str, bytes], rounds: int, seconds: float
) -> dict[str, float]:
    """Median milliseconds of each request, which take turns."""
    found: dict[str, list[float]] = {form: [] for form in requests}
    for _ in range(rounds):
        for form, times in found.items():
            times.append(closed_loop(port, [requests[form]], 1, seconds / 2).percentile_ms(50))
    return {form: round(statistics.median(times), 2) for form, times in found.items()}


def _classified(port: int, request: bytes) -> str:
    """The id of an image that the server has classified."""
    body = request.partition(b"\r\n\r\n")[2]
    sent = urllib.request.Request(
        f"http://127.0.0.1:{port}/classify", body, {"Content-Type": "image/jpeg"}
    )
    with urllib.request.urlopen(sent) as answer:
        found: str = json.load(answer)["results"][0]["id"]
        return found


@contextmanager
def _sent(port: int, requests: list[bytes], seconds: float) -> Iterator[None]:
    """Meanwhile requests arrive at random times; waits until all are answered."""
    with ThreadPoolExecutor(1) as pool:
        if requests:
            load = pool.submit(open_loop, port, requests, _PER_S, seconds + 1)
        yield
    if requests and load.result().failed:
        raise SystemExit(f"a request failed: {requests}")


def _figures(loads: list[Load], alone: list[Load]) -> dict[str, float]:
    ratios = [load.per_s / other.per_s for load, other in zip(loads, alone, strict=True)]
    return {
        "per_s": round(statistics.median(load.per_s for load in loads), 1),
        "ratio": round(statistics.median(ratios), 3),
        "p50_ms": round(statistics.median(load.percentile_ms(50) for load in loads), 2),
        "p99_ms": round(statistics.median(load.percentile_ms(99) for load in loads), 2),
    }
