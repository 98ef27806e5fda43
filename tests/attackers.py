"""`python -m tests.attackers URL`: what ill-meaning clients do to a server, all of it at once.

Each attack runs on threads of its own, from an address of its own (127.0.0.2 and up), until the
time is over. Meanwhile a probe asks for /livez. Prints what the server answered, by attack, and how
long the probe waited. Load goes to this machine alone.
"""

import argparse
import http.client
import itertools
import json
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

from tests.service.oip.grpc.http2 import calling
from tests.support.hostile import (
    bmp_of_line_ends,
    codestream,
    jpeg_of_scans,
    precincts,
    tiff_of_strips,
)
from tests.support.server import ROOT

PHOTO = (ROOT / "tests" / "data" / "cat.jpg").read_bytes()
IMAGES = (
    jpeg_of_scans(2000, 90),
    jpeg_of_scans(800, 10_000),
    bmp_of_line_ends(60 * 10**6),
    precincts(2000),
    codestream((20, 10), 16_384),
    tiff_of_strips(220_000),
    b"P2\n1000 1000\n255\n" + b"#\n" * 500_000,
)
UPLOAD_BYTES = 2**20  # as much as the server of `make soak` takes
_HELD_S = 5  # how long a connection is held before another takes its place


class Attackers:
    """`seen` counts answers and how connections ended, by attack."""

    def __init__(self, url: str, grpc: str | None = None) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._grpc = grpc
        self._over = threading.Event()
        self.seen: dict[str, Counter[str]] = {}
        self.waits_s: list[float] = []  # of the probe

    def run(self, seconds: float) -> None:
        attacks: list[Callable[[str, Counter[str]], None]] = [
            self._costly_images,
            self._costly_images,
            self._stalled_uploads,
            self._idle_uploads,
            self._unread_answers,
            self._pipelined,
            self._slow_headers,
        ]
        if self._grpc:
            attacks.append(self._stalled_messages)
        threads = [threading.Thread(target=self._probe)]
        for number, attack in enumerate(attacks, 2):
            seen = self.seen.setdefault(attack.__name__.strip("_").replace("_", " "), Counter())
            source = f"127.0.0.{number}"
            threads.append(threading.Thread(target=self._repeat, args=(attack, source, seen)))
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _repeat(
        self,
        attack: Callable[[str, Counter[str]], None],
        source: str,
        seen: Counter[str],
    ) -> None:
        while not self._over.is_set():
            try:
                attack(source, seen)
            except OSError as exc:
                seen[type(exc).__name__] += 1
                self._over.wait(0.1)

    def _probe(self) -> None:
        while not self._over.wait(0.2):
            started = time.perf_counter()
            status, _ = self._request("127.0.0.1", "GET", "/livez")
            self.waits_s.append(time.perf_counter() - started)
            assert status == 200

    def _request(
        self, source: str, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(
            self._host, self._port, timeout=60, source_address=(source, 0)
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/octet-stream"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _costly_images(self, source: str, seen: Counter[str]) -> None:
        for image in IMAGES:
            if self._over.is_set():
                return
            status, answer = self._request(source, "POST", "/classify", image)
            seen[f"{status} {json.loads(answer).get('code', '')}".strip()] += 1

    def _stalled_uploads(self, source: str, seen: Counter[str]) -> None:
        """A hundred bodies, of which nearly all comes."""
        head = self._head("POST /classify", length=UPLOAD_BYTES)
        with self._connections(source, 100) as connections:
            for connection in connections:
                with suppress(ConnectionError):
                    connection.sendall(head + bytes(UPLOAD_BYTES - 1))
            self._over.wait(_HELD_S)
            self._count_ends(connections, seen)

    def _idle_uploads(self, source: str, seen: Counter[str]) -> None:
        head = self._head("POST /classify", length=1000)
        with self._connections(source, 300) as connections:
            for connection in connections:
                with suppress(ConnectionError):
                    connection.sendall(head + b"\xff")
            self._over.wait(_HELD_S)
            self._count_ends(connections, seen)

    def _unread_answers(self, source: str, seen: Counter[str]) -> None:
        status, answer = self._request(source, "POST", "/classify", PHOTO)
        if status != 200:
            seen[f"no id: {status}"] += 1
            return
        image_id = json.loads(answer)["results"][0]["id"]
        head = self._head(f"GET /attention-maps?id={image_id}&head=all&query=all")
        with self._connections(source, 40, receive_bytes=2048) as connections:
            for connection in connections:
                with suppress(ConnectionError):
                    connection.sendall(head)
            self._over.wait(_HELD_S)
            seen["connections held"] += len(connections)

    def _pipelined(self, source: str, seen: Counter[str]) -> None:
        with self._connections(source, 1) as (connection,):
            connection.settimeout(1)
            with suppress(TimeoutError):
                for _ in range(100):
                    connection.sendall(b"GET /x HTTP/1.1\r\n\r\n" * 4000)
            seen["floods"] += 1
            self._over.wait(_HELD_S)

    def _slow_headers(self, source: str, seen: Counter[str]) -> None:
        with self._connections(source, 100) as connections:
            for character in itertools.islice(itertools.cycle(b"GET /livez HTTP/1.1\r\nX: "), 20):
                for connection in connections:
                    with suppress(ConnectionError):
                        connection.sendall(bytes([character]))
                if self._over.wait(0.3):
                    return
            self._count_ends(connections, seen)

    def _stalled_messages(self, source: str, seen: Counter[str]) -> None:
        assert self._grpc
        with ExitStack() as stack:
            calls = [
                stack.enter_context(calling(self._grpc, "ModelInfer", source)) for _ in range(20)
            ]
            for call in calls:
                with suppress(ConnectionError):
                    call.send(b"\0" + (4 * 2**20).to_bytes(4) + bytes(32 * 1024))
            self._over.wait(_HELD_S)
            seen["calls held"] += len(calls)

    @staticmethod
    def _head(request: str, length: int | None = None) -> bytes:
        lines = [f"{request} HTTP/1.1", "Host: localhost", "Content-Type: image/jpeg"]
        lines += [] if length is None else [f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()

    @contextmanager
    def _connections(
        self, source: str, count: int, receive_bytes: int | None = None
    ) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            opened = []
            for _ in range(count):
                connection = stack.enter_context(socket.socket())
                if receive_bytes:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
                connection.bind((source, 0))
                connection.settimeout(10)
                connection.connect((self._host, self._port))
                opened.append(connection)
            yield opened

    @staticmethod
    def _count_ends(connections: list[socket.socket], seen: Counter[str]) -> None:
        """What each connection has been answered by now."""
        for connection in connections:
            connection.setblocking(False)
            try:
                start = connection.recv(64)
                seen[start[9:12].decode("latin-1") or "closed"] += 1
            except BlockingIOError:
                seen["still waiting"] += 1
            except ConnectionError:
                seen["cut off"] += 1


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attackers", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--grpc", help="HOST:PORT of the same server's gRPC")
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    attackers = Attackers(options.url, options.grpc)
    attackers.run(options.seconds)
    for name, seen in attackers.seen.items():
        print(f"{name:>17}  " + ", ".join(f"{count} {what}" for what, count in seen.most_common()))
    waits = sorted(attackers.waits_s)
    print(
        f"/livez: {len(waits)} times, median {statistics.median(waits) * 1e3:.0f} ms, "
        f"95 % within {waits[int(0.95 * len(waits))] * 1e3:.0f} ms, "
        f"longest {waits[-1] * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    main()
