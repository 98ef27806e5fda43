"""Processes of this machine: by their command line, by their parent, and where they listen."""

from collections.abc import Iterator
from contextlib import suppress

import psutil


def pids(command: str) -> set[int]:
    """Ids of the processes whose command line begins so; Ray names its workers that way."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if " ".join(process.info["cmdline"] or ()).startswith(command)
    }


def family(leader: int) -> list[psutil.Process]:
    """A process and all that it has started, directly or not."""
    first = psutil.Process(leader)
    return [first, *first.children(recursive=True)]


def words(processes: list[psutil.Process]) -> Iterator[str]:
    """Of the command lines of these processes."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            yield from process.cmdline()


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Addresses and ports at which these processes listen for TCP connections."""
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    return found
