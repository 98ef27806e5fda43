"""The folder of a model repository: which versions of which models it holds, and if they changed.

Knows names and files, not what is in them. The folder may be away, or change, at any moment.
"""

import os
from pathlib import Path
from typing import NamedTuple

from models.manifest import is_model_name, version_folders

Stamp = tuple[tuple[str, int, int, int], ...]


class Found(NamedTuple):
    """A version's folder, and its files as they were at one moment."""

    path: Path
    stamp: Stamp


class Folder:
    """Every method may wait for a disk or a network, and raises `OSError` if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return printable(str(self._path.absolute()))

    def without_path(self, text: str) -> str:
        """A text about what is in the folder, for those whom its place does not concern."""
        return text.replace(f"{self}/", "").replace(f"{self._path}/", "")

    def models(self) -> list[str]:
        """The names of all folders that hold versions, and of those that cannot be read."""
        return sorted(
            folder.name
            for folder in self._path.iterdir()
            if not folder.name.startswith(".") and _holds_versions(folder)
        )

    def versions(self, model: str, most: int) -> dict[int, Found]:
        """The highest versions of a model; none if there is no such model."""
        if not is_model_name(model):
            return {}
        highest = version_folders(self._path / model)[-most:]
        return {int(path.name): Found(path, _stamp(path)) for path in highest}


def printable(name: str) -> str:
    r"""A file's name as one line of text, with what cannot be printed as \xff or \u202e."""
    text = os.fsencode(name).decode(errors="backslashreplace")
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _holds_versions(folder: Path) -> bool:
    """So does a model that cannot be read; `lost+found`, which cannot either, is none."""
    try:
        return bool(version_folders(folder))
    except OSError:
        return is_model_name(folder.name)


def _stamp(version: Path) -> Stamp:
    """Differs once a file has been written, replaced, added or removed; hidden ones are nothing."""
    with os.scandir(version) as entries:
        found = [(one.name, one.stat()) for one in entries if not one.name.startswith(".")]
    return tuple(
        sorted((name, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for name, one in found)
    )
