"""Processes of this machine: by their command line, by their parent, and where they listen."""

import os
from ipaddress import ip_address
from pathlib import Path

_LISTEN = "0A"  # a state of sockets in /proc/net/tcp


def pids(command: str) -> set[int]:
    """Ids of the processes whose command line begins so; Ray names its workers that way."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if text.startswith(command.encode()):
            found.add(int(path.parent.name))
    return found


def listening(pids: set[int]) -> set[str]:
    """Addresses at which these processes listen for TCP connections, as IP:PORT."""
    inodes = set()
    for pid in pids:
        for path in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(path.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == _LISTEN and rest[5] in inodes:
                address, _, port = local.partition(":")
                found.add(f"{_ip(address)}:{int(port, 16)}")
    return found


def family(leader: int) -> set[int]:
    """Ids of a process and of all that it has started, directly or not."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents[int(path.parent.name)] = int(text.rpartition(")")[2].split()[1])
    found = {leader}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def _ip(hexadecimal: str) -> str:
    """As the kernel writes it: each four bytes in the order of the machine."""
    words = [bytes.fromhex(hexadecimal[i : i + 8])[::-1] for i in range(0, len(hexadecimal), 8)]
    return str(ip_address(b"".join(words)))


def command(pid: int) -> list[str]:
    """The command line of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has taken; 0 once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
