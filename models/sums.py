"""SHA256SUMS: the hash of every file of an exported version, as `sha256sum --check` reads it.

Written by export/ as the last file of a version, and read by service/.
"""

import hashlib
import re
from pathlib import Path
from typing import Literal

SUMS: Literal["SHA256SUMS"] = "SHA256SUMS"  # as the manifest names it
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\0]+)")


def write(folder: Path) -> None:
    """Hash every file that a version's folder holds."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.name != SUMS:
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def parse(text: str) -> dict[str, str]:
    """Hashes by file name. Raises `ValueError`."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        matched = _LINE.fullmatch(line)
        if matched is None or found.setdefault(matched[2], matched[1]) != matched[1]:
            raise ValueError(f"a line of {SUMS} is not a hash and the name of a file")
    return found
