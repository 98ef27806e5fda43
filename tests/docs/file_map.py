"""`python -m tests.docs.file_map`: renews the map in docs/architecture.md from docstrings."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.server import ROOT

PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- map of the files -->", "<!-- end of the map -->"
ROOMS = ("models", "export", "service")


def main() -> None:
    before, _, rest = PAGE.read_text().partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{file_map()}{END}{after}")


def file_map() -> str:
    """A table for each folder: its modules, each with the first paragraph of its docstring."""
    return "".join(f"{line}\n" for room in ROOMS for line in _tables(ROOT / room))


def _tables(room: Path) -> Iterator[str]:
    folders = sorted({path.parent for path in room.rglob("*.py")})
    for folder in folders:
        name = folder.relative_to(ROOT).as_posix()
        yield f"\n### {name}\n"
        if purpose := _purpose(folder / "__init__.py"):
            yield f"{purpose}\n"
        yield "| file | what it is for |"
        yield "|---|---|"
        for path in sorted(folder.glob("*.py")):
            if path.name != "__init__.py":
                yield f"| [`{path.name}`](../{name}/{path.name}) | {_purpose(path)} |"


def _purpose(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ")


if __name__ == "__main__":
    main()
