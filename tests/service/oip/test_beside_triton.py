"""This service's side of each comparison with NVIDIA Triton (docs/triton.md)."""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.service.oip.grpc.calls import address
from tests.support.server import LARGEST_BATCH, ROOT, running_server
from tests.triton.__main__ import RECORD, ask_all
from tests.triton.rest import MODEL

Key = tuple[str, str]  # protocol and name of a request
RECORDED: dict[Key, dict[str, Any]] = {
    (row["protocol"], row["name"]): row for row in map(json.loads, RECORD.read_text().splitlines())
}


@pytest.fixture(scope="module")
def answers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Key, Any]:
    """From a server that has only just started, as when they were recorded."""
    folder = tmp_path_factory.mktemp("beside_triton")
    shutil.copytree(repository / MODEL, folder / MODEL)
    with running_server(folder, grpc_port=0, max_batch_size=LARGEST_BATCH) as server:
        asked = list(ask_all(server.url.removeprefix("http://"), address(server)))
    found = {(protocol, name): asdict(answer) for protocol, name, answer in asked}
    assert len(found) == len(asked), "two requests have one name"
    return found


def test_every_request_is_recorded(answers: dict[Key, Any]) -> None:
    assert list(answers) == list(RECORDED)


@pytest.mark.parametrize("key", RECORDED, ids=": ".join)
def test_the_answer_is_the_recorded_one(answers: dict[Key, Any], key: Key) -> None:
    assert answers[key] == RECORDED[key]["ours"]


def test_each_difference_is_explained_and_nothing_else() -> None:
    page = (ROOT / "docs" / "triton.md").read_text()
    explained = set()
    for line in page.splitlines():
        if line.startswith(("| REST", "| gRPC")):
            protocols, names = line.split(" | ")[:2]
            explained |= {
                (protocol, name)
                for protocol in protocols.strip("| ").split(", ")
                for name in re.findall("`([^`]+)`", names)
            }
    different = {key for key, row in RECORDED.items() if row["ours"] != row["triton"]}
    assert explained == different
    assert f"{len(RECORDED)} requests" in page
    assert f"{len(RECORDED) - len(different)} are the same" in page
