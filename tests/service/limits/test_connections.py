"""More connections than there may be: those of whoever has the most end."""

import socket
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.limits.connections import Connections
from tests.support.server import Server, running_server
from tests.support.sockets import connected

ASKING = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass(eq=False)
class Connection:
    owner: str
    waiting: bool = True
    ended: bool = False

    def end(self) -> None:
        self.ended = True


def opened(connections: Connections, *owners: str) -> list[Connection]:
    found = [Connection(owner) for owner in owners]
    for one in found:
        connections.add(one)
    return found


def test_the_oldest_of_the_client_with_the_most_ends() -> None:
    first, *others = opened(Connections(4), "many", "few", "many", "many", "few")
    assert first.ended
    assert not any(one.ended for one in others)


def test_who_has_the_most_gets_more_only_in_place_of_its_own() -> None:
    connections = Connections(3)
    few, many, *_ = opened(connections, "few", "many", "many")
    opened(connections, "many")
    assert (few.ended, many.ended) == (False, True)


def test_connections_that_are_being_answered_stay() -> None:
    connections = Connections(2)
    busy, waiting = opened(connections, "many", "many")
    busy.waiting = False
    opened(connections, "few")
    assert (busy.ended, waiting.ended) == (False, True)


def test_the_newest_ends_where_nothing_waits() -> None:
    connections = Connections(1)
    (busy,) = opened(connections, "one")
    busy.waiting = False
    (newest,) = opened(connections, "other")
    assert (busy.ended, newest.ended) == (False, True)


def test_closed_connections_make_room() -> None:
    connections = Connections(1)
    (first,) = opened(connections, "one")
    connections.remove(first)
    (second,) = opened(connections, "one")
    assert not second.ended


def asked(connection: socket.socket) -> bytes:
    """The answer; nothing if the connection has ended."""
    answer = b""
    with suppress(ConnectionError):
        connection.sendall(ASKING)
        while not answer.endswith(b"}") and (piece := connection.recv(4096)):
            answer += piece
    return answer


def test_a_flood_of_connections_takes_them_from_nobody_else(
    tiny_repository: Path, photo: bytes
) -> None:
    with (
        running_server(tiny_repository, max_connections=50, keep_alive_s=60) as server,
        server.client() as client,
        ExitStack() as stack,
    ):
        kept = stack.enter_context(connected(server))
        assert asked(kept).startswith(b"HTTP/1.1 200")
        flood = [stack.enter_context(from_elsewhere(server)) for _ in range(200)]
        for _ in range(5):
            assert client.post("/classify", files={"image": photo}).status_code == 200
        assert asked(kept).startswith(b"HTTP/1.1 200")
        answered = [asked(one).startswith(b"HTTP/1.1 200") for one in flood]
        assert 40 < sum(answered) < 50
        assert answered == sorted(answered)  # the oldest have ended
    assert "Traceback" not in "".join(server.log)


def from_elsewhere(server: Server) -> socket.socket:
    """A connection from another address of this machine."""
    address = urlsplit(server.url)
    assert address.port
    try:
        return socket.create_connection(
            (address.hostname, address.port), 60, source_address=("127.0.0.2", 0)
        )
    except OSError:  # only Linux has all of 127.0.0.0/8
        pytest.skip("this machine has no second address")
