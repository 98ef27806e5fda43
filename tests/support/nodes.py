"""Two nodes of a Ray cluster on one machine: the second has a network of its own.

Needs Linux, root and `ip`.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.cluster import ingress_files

HEAD, SECOND = "10.77.0.1", "10.77.0.2"
_NAMESPACE = "deepvit-node"
_OUTSIDE, _INSIDE = "deepvit-0", "deepvit-1"


@contextmanager
def two_nodes(folder: Path) -> Iterator[str]:
    """The cluster's address. `folder` keeps what the second node's ingress writes."""
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        stack.enter_context(_network())
        with socket.socket() as free:
            free.bind((HEAD, 0))
            port = free.getsockname()[1]
        stack.enter_context(
            _node([], ["--head", "--include-dashboard=false", f"--port={port}"], HEAD, {})
        )
        inside = ["ip", "netns", "exec", _NAMESPACE]
        stack.enter_context(
            _node(inside, [f"--address={HEAD}:{port}"], SECOND, ingress_files(folder))
        )
        yield f"{HEAD}:{port}"


def kill_second_node() -> None:
    """All of its processes at once, as if its power had gone."""
    found = subprocess.run(
        ["ip", "netns", "pids", _NAMESPACE], capture_output=True, text=True, check=True
    )
    for pid in map(int, found.stdout.split()):
        os.kill(pid, signal.SIGKILL)


@contextmanager
def _network() -> Iterator[None]:
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("a second network needs root and ip")
    inside = f"ip netns exec {_NAMESPACE}"
    try:
        for command in (
            f"ip netns add {_NAMESPACE}",
            f"ip link add {_OUTSIDE} type veth peer name {_INSIDE}",
            f"ip link set {_INSIDE} netns {_NAMESPACE}",
            f"ip addr add {HEAD}/24 dev {_OUTSIDE}",
            f"ip link set {_OUTSIDE} up",
            f"{inside} ip addr add {SECOND}/24 dev {_INSIDE}",
            f"{inside} ip link set {_INSIDE} up",
            f"{inside} ip link set lo up",
        ):
            subprocess.run(command.split(), check=True)
        yield
    finally:
        subprocess.run(["ip", "netns", "del", _NAMESPACE], check=False)
        subprocess.run(["ip", "link", "del", _OUTSIDE], check=False, stderr=subprocess.DEVNULL)


@contextmanager
def _node(
    before: list[str], options: list[str], address: str, environment: dict[str, str]
) -> Iterator[None]:
    import service.cluster  # noqa: F401  sets what Ray reads when it starts

    ray = str(Path(sys.executable).with_name("ray"))
    process = subprocess.Popen(
        [*before, ray, "start", "--block", "--num-cpus=2", "--disable-usage-stats",
         f"--node-ip-address={address}", *options],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    log = []
    try:
        for line in process.stdout:
            log.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RuntimeError("the node did not start:\n" + "".join(log))
        yield
    finally:
        process.terminate()
        process.stdout.close()
        process.wait()
