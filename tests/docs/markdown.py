"""Markdown pages as the tests see them: their code blocks, in order."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ROOT

ADDRESS = "http://127.0.0.1:8000"  # of the server in every example
_TOP = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [*(ROOT / name for name in _TOP), *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.*?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code, with the output shown behind it if there is any."""

    page: Path
    line: int
    language: str
    code: str
    shown: str | None
    not_run: str | None  # the reason, if its page gives one

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """The lines after each prompt of a console block."""
        return re.findall(r"^\$ (.*)$", self.code, re.MULTILINE)


def blocks(language: str) -> list[Block]:
    """Every block of one language, on every page."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> list[Block]:
    text = page.read_text()
    matches = list(_BLOCK.finditer(text))
    shown = {
        match.start() - 1: match["code"]
        for match in matches
        if match["language"] in ("json", "text")
    }
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            code=match["code"],
            shown=shown.get(match.end()),
            not_run=match["reason"],
        )
        for match in matches
    ]
