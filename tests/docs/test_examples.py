"""Every code block in README and docs does what the page says it does."""

import json
import math
import re
import shlex
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.__main__ import main as export
from models.training.__main__ import main as training
from tests.docs.conftest import run
from tests.docs.markdown import ADDRESS, PAGES, Block, blocks
from tests.support.nginx import running_nginx
from tests.support.server import ROOT, Server

CONSOLE = [block for block in blocks("console") if block.not_run is None]
SERVES = re.compile(r"make serve|python -m service(?! ?\.)")
THIS_RUN = "make test"  # the command that runs this test
# These import PyTorch, which takes seconds, and share what they have traced.
IN_PROCESS = re.compile(r"\.venv/bin/python -m (export|models\.training) (?!inspect)(.*)")
RUN_IN_PLACE = re.compile(r"make |.*-m pytest ")  # these need the project's own configuration
VOLATILE = ("timings_ms", "request_id")
SHOWN_ID = "e9a3b5634d201ff6380184628b19e8ff"  # in place of one that no other process would give


@pytest.fixture(scope="module")
def run_before() -> set[str]:
    """Commands that have succeeded: several pages show the same one."""
    return set()


@pytest.mark.parametrize("block", blocks("sh"), ids=str)
def test_requests_answer_what_is_shown(
    block: Block, server: Server, photo: bytes, checkout: Path, environment: dict[str, str]
) -> None:
    image_id = classify_first(server, photo)
    found = run(block.code.replace(ADDRESS, server.url), checkout, environment | {"ID": image_id})
    if block.shown is not None:
        assert same(json.loads(found), json.loads(block.shown.replace(SHOWN_ID, image_id)))


def test_the_id_that_the_pages_ask_with_is_what_they_read_from_an_answer(
    server: Server, photo: bytes, checkout: Path, environment: dict[str, str]
) -> None:
    (block,) = (block for block in blocks("sh") if block.code.startswith("ID="))
    code = block.code.replace(ADDRESS, server.url) + "echo $ID"
    assert run(code, checkout, environment).strip() == classify_first(server, photo)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_programs_print_what_is_shown(
    block: Block, server: Server, checkout: Path, environment: dict[str, str]
) -> None:
    (checkout / "example.py").write_text(block.code.replace(ADDRESS, server.url))
    assert run(".venv/bin/python example.py", checkout, environment) == block.shown


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_commands_run(
    block: Block,
    checkout: Path,
    environment: dict[str, str],
    run_before: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert block.commands
    for shown in block.commands:
        command = re.sub(r"\s+# .*", "", shown)
        if command.startswith(THIS_RUN) or command in run_before:
            continue
        folder = ROOT if RUN_IN_PLACE.match(command) else checkout
        if SERVES.search(command):
            serve(command, folder, environment)
        elif found := IN_PROCESS.fullmatch(command):
            monkeypatch.chdir(folder)
            program = {"export": export, "models.training": training}[found[1]]
            assert program(shlex.split(found[2])) == 0
        else:
            run(command, folder, environment)
        run_before.add(command)


@pytest.mark.parametrize("block", blocks("nginx"), ids=str)
def test_nginx_publishes_the_service(
    block: Block, server: Server, photo: bytes, tmp_path: Path
) -> None:
    locations = block.code.replace(ADDRESS, "UPSTREAM")
    found = re.search(r"^location (/.*/) \{", locations)
    assert found
    with running_nginx(server, tmp_path, locations) as address:
        answer = httpx.post(f"{address}{found[1]}classify", files={"image": photo})
        links = answer.json()["results"][0]["links"]
        assert links["similarity"].startswith(found[1])
        assert httpx.get(address + links["similarity"]).status_code == 200


def test_only_what_needs_docker_or_a_gpu_or_a_cluster_or_triton_is_not_run() -> None:
    allowed = re.compile(
        r"(DEEPVIT_\w+=.* )?docker |nvidia-|kubectl |make cluster|serve |"
        r".*(tests\.triton|tritonserver) |.*service\.bulk .* --ray "
    )
    skipped = [block for block in blocks("console") if block.not_run is not None]
    assert skipped
    for block in skipped:
        assert all(map(allowed.match, block.commands)), block


def test_every_block_is_of_a_known_language() -> None:
    fences = sum(page.read_text().count("\n```") for page in PAGES) // 2
    known = [len(blocks(name)) for name in ("sh", "python", "console", "json", "text", "nginx")]
    assert sum(known) == fences
    assert all(known)


def classify_first(server: Server, photo: bytes) -> str:
    """The id of the image that the pages ask about."""
    with server.client() as client:
        answer = client.post("/classify", files={"image": photo})
    image_id: str = answer.json()["results"][0]["id"]
    return image_id


def serve(command: str, folder: Path, environment: dict[str, str]) -> None:
    """Start a server as the page says, see that it is ready, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        command = command.replace("8001", str(free.getsockname()[1]))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=folder,
        env=environment | {"DEEPVIT_DRAIN_DELAY_S": "0"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    try:
        addresses = (re.search(r"running on (http://\S+)", line) for line in process.stderr)
        url = next((found[1].rstrip('"') for found in addresses if found), None)
        assert url is not None, command
        assert httpx.get(f"{url}/readyz").json()["status"] == "ready"
    finally:
        subprocess.run(["pkill", "-TERM", "-s", str(process.pid)], check=False)
        process.wait(timeout=30)
        process.stderr.close()
    assert process.returncode in (
        0,
        -signal.SIGTERM,
        2,
    )  # make says 2 of a target it was stopped in


def same(found: Any, shown: Any) -> bool:
    """Equal, numbers to a thousandth; times and request ids only by their keys."""
    if isinstance(shown, dict):
        return found.keys() == shown.keys() and all(
            found[key].keys() == shown[key].keys()
            if key == "timings_ms"
            else key in VOLATILE or same(found[key], shown[key])
            for key in shown
        )
    if isinstance(shown, list):
        return len(found) == len(shown) and all(map(same, found, shown))
    if isinstance(shown, float):
        return math.isclose(found, shown, abs_tol=1e-3)
    return bool(found == shown)
