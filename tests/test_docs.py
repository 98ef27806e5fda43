"""What the README shows is what happens: its commands run, its answers and settings are real."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from service.settings import Settings
from tests.support.server import ROOT, Server

README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall(README)
EXAMPLES = [
    (language, code, BLOCKS[index + 1][1])
    for index, (language, code) in enumerate(BLOCKS)
    if language in ("sh", "python")
]
ADDRESS = "http://127.0.0.1:8000"
VOLATILE = ("timings_ms", "request_id")


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


@pytest.mark.parametrize(
    ("language", "code", "shown"), EXAMPLES, ids=[f"block {i}" for i in range(len(EXAMPLES))]
)
def test_examples_answer_what_is_shown(
    server: Server, photo: bytes, tmp_path: Path, language: str, code: str, shown: str
) -> None:
    with server.client() as client:  # the image that the shown id stands for
        assert client.post("/classify", files={"image": photo}).status_code == 200
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}[language]
    found = subprocess.run(
        [*command, code.replace(ADDRESS, server.url)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if language == "python":
        assert found == shown
    else:  # commands before the last one print answers of their own, without line ends
        assert same(json.loads(found[found.rindex(shown_start(shown)) :]), json.loads(shown))


def shown_start(shown: str) -> str:
    """How the shown answer begins on the wire."""
    return json.dumps(json.loads(shown), separators=(",", ":"))[:12]


def test_there_are_examples_of_each_kind() -> None:
    assert [language for language, _, _ in EXAMPLES] == ["sh", "sh", "python", "python"]


def test_the_table_of_settings_is_complete_and_true() -> None:
    rows = re.findall(r"^\| `(DEEPVIT_\w+)` \| (.*?) \| (.*?) \|$", README, re.MULTILINE)
    expected = [
        (
            f"DEEPVIT_{name.upper()}",
            "processors granted"
            if field.default is PydanticUndefined
            else "none"
            if field.default is None
            else f"`{field.default}`",
            field.description,
        )
        for name, field in Settings.model_fields.items()
    ]
    assert rows == expected


def test_linked_files_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"make (\w+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
