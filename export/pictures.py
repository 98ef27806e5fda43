"""The pictures of a folder, one after the other. Knows files and Pillow, not networks."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageOps

from models.preprocess import READER_ERRORS

_NAMED = 20  # unreadable files whose names are kept
_UNREADABLE = (*READER_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning)


class Picture(NamedTuple):
    path: Path  # below the folder
    image: Image.Image  # RGB


@dataclass
class Pictures:
    """Every file below a folder, or `limit` of them evenly spread over their sorted paths.

    Hidden files are left out. Counts while it is iterated; keeps neither paths nor pictures.
    """

    folder: Path
    limit: int | None = None
    found: int = 0
    read: int = 0
    unreadable: int = 0
    named: list[str] = field(default_factory=list)  # the first of the unreadable

    def __post_init__(self) -> None:
        """Raises `NotADirectoryError`, or `FileNotFoundError` for a folder without files."""
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is not a folder")
        self.found = sum(1 for _ in self._paths())
        if not self.found:
            raise FileNotFoundError(f"{self.folder} has no files")

    @property
    def chosen(self) -> int:
        """Files that are tried."""
        return self.found if self.limit is None else min(self.limit, self.found)

    def __iter__(self) -> Iterator[Picture]:
        """Raises `FileNotFoundError` at the end if not one file was a picture."""
        self.read = self.unreadable = tried = 0
        self.named.clear()
        for index, path in enumerate(self._paths()):
            if tried * self.found > index * self.chosen:  # evenly: every found / chosen-th
                continue
            tried += 1
            below = path.relative_to(self.folder)
            try:
                image = _read(path)
            except _UNREADABLE:
                self.unreadable += 1
                if len(self.named) < _NAMED:
                    self.named.append(str(below))
                continue
            self.read += 1
            yield Picture(below, image)
        if not self.read:
            raise FileNotFoundError(f"none of {self.chosen} files in {self.folder} is a picture")

    def _paths(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file():
                    yield path


def _read(path: Path) -> Image.Image:
    """The first frame, upright, transparency over white, RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
    if image.mode == "F" or image.mode.startswith("I"):
        raise ValueError("more than 8 bits a channel")  # whose range Pillow would cut off
    if image.has_transparency_data:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        image = canvas
    return image.convert("RGB")
