"""The pictures of a folder, one after the other. Knows files, not networks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.arrays import Pixels
from models.imaging import ImageError, Reader
from models.preprocess import Preprocessing, preprocess

_NAMED = 20  # unreadable files whose names are kept


class Picture(NamedTuple):
    path: Path  # relative to the folder
    image: Image.Image  # RGB


class Batch(NamedTuple):
    pictures: list[Picture]
    pixels: Pixels  # [B, height, width, 3]


@dataclass
class Pictures:
    """Every file below a folder, or `limit` of them evenly spread over their sorted paths.

    Hidden files are left out. The counts are those of the last iteration; neither paths nor
    pictures are kept.
    """

    folder: Path
    limit: int | None = None
    found: int = 0
    read: int = 0
    unreadable: int = 0
    named: list[str] = field(default_factory=list)  # the first of the unreadable files

    def __post_init__(self) -> None:
        """Raises `NotADirectoryError`, or `FileNotFoundError` for a folder without files."""
        if not self.folder.is_dir():
            raise NotADirectoryError(f"{self.folder} is not a folder")
        self.found = sum(1 for _ in self._paths())
        if not self.found:
            raise FileNotFoundError(f"{self.folder} has no files")

    @property
    def chosen(self) -> int:
        """How many files are tried."""
        return self.found if self.limit is None else min(self.limit, self.found)

    @property
    def progress(self) -> str:
        return f"{self.read:,} of {self.chosen:,} images"

    def __iter__(self) -> Iterator[Picture]:
        """Raises `FileNotFoundError` at the end if not one file was a picture."""
        self.read = self.unreadable = tried = 0
        self.named.clear()
        reader = Reader()
        for index, path in enumerate(self._paths()):
            if tried * self.found > index * self.chosen:  # take every found / chosen-th
                continue
            tried += 1
            relative = path.relative_to(self.folder)
            try:
                with path.open("rb") as file:
                    image = reader.read(file)
            except (ImageError, OSError):
                self.unreadable += 1
                if len(self.named) < _NAMED:
                    self.named.append(str(relative))
                continue
            self.read += 1
            yield Picture(relative, image)
        if not self.read:
            raise FileNotFoundError(f"none of {self.chosen} files in {self.folder} is a picture")

    def batches(self, size: int, rule: Preprocessing) -> Iterator[Batch]:
        """The pictures as a network takes them, `size` at a time; the last batch may be smaller."""
        waiting: list[Picture] = []
        for picture in self:
            waiting.append(picture)
            if len(waiting) == size:
                yield _batch(waiting, rule)
                waiting = []
        if waiting:
            yield _batch(waiting, rule)

    def _paths(self) -> Iterator[Path]:
        for folder, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = Path(folder, name)
                if not name.startswith(".") and path.is_file():
                    yield path


def _batch(pictures: list[Picture], rule: Preprocessing) -> Batch:
    return Batch(pictures, np.stack([preprocess(picture.image, rule) for picture in pictures]))
