"""Labelled photographs from tar archives or folders, decoded once and kept in memory as uint8.

A picture's class is the name of the folder it lies in, with spaces for underscores.
"""

import hashlib
import io
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.arrays import Pixels
from models.imaging import FORMATS, ImageError, Reader
from models.preprocess import Preprocessing, preprocess

_SUFFIXES = tuple(
    suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS
)


class PhotographsError(Exception):
    """The photographs cannot be used for training; the message says why."""


@dataclass(frozen=True)
class Files:
    """Encoded pictures in the order in which they were found."""

    names: tuple[str, ...]  # folder/file
    data: tuple[bytes, ...]
    classes: tuple[str, ...]  # sorted
    labels: Tensor  # [n], int64 indices into classes

    def __len__(self) -> int:
        return len(self.names)

    def digest(self) -> str:
        """Of all names and pictures, in their order."""
        found = hashlib.sha256()
        for name, data in zip(self.names, self.data, strict=True):
            found.update(f"{len(name)} {len(data)} {name}".encode())
            found.update(data)
        return found.hexdigest()


@dataclass(frozen=True)
class Photographs:
    """Pictures on square canvases, each in the upper left corner, with its edge repeated around."""

    pixels: Tensor  # [n, 3, side, side], uint8
    sizes: Tensor  # [n, 2], float32: height and width of each picture on its canvas, in pixels
    labels: Tensor  # [n], int64

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> "Photographs":
        return replace(
            self,
            pixels=self.pixels.to(device),
            sizes=self.sizes.to(device),
            labels=self.labels.to(device),
        )


def find(sources: Sequence[Path], only: Collection[str] = ()) -> Files:
    """All pictures in tar archives and folders, or those of some classes.

    Raises `PhotographsError`, also where one of these classes has no pictures.
    """
    found = [
        (name, data)
        for source in sources
        for name, data in (_of_folder(source) if source.is_dir() else _of_tar(source))
        if not only or _class(name) in only
    ]
    if not found:
        raise PhotographsError(f"no pictures in {', '.join(map(str, sources))}")
    classes, labels = np.unique([_class(name) for name, _ in found], return_inverse=True)
    if missing := sorted({*only} - {*classes.tolist()}):
        raise PhotographsError(f"no pictures of {', '.join(missing)}")
    return Files(
        names=tuple(name for name, _ in found),
        data=tuple(data for _, data in found),
        classes=tuple(classes.tolist()),
        labels=torch.from_numpy(labels.astype(np.int64)),
    )


def decode(files: Files, side: int) -> Photographs:
    """Pictures on canvases of `side` pixels: larger ones are shrunk until they fit.

    Memory is n x 3 x side x side bytes.
    """
    pixels = torch.empty((len(files), 3, side, side), dtype=torch.uint8)
    sizes = torch.empty((len(files), 2))

    def place(index: int, picture: Image.Image) -> None:
        if max(picture.size) > side:
            picture.thumbnail((side, side), Image.Resampling.BICUBIC)
        width, height = picture.size
        around = ((0, side - height), (0, side - width), (0, 0))
        canvas = np.pad(np.asarray(picture), around, mode="edge")
        pixels[index] = _tensor(canvas)
        sizes[index] = torch.tensor([height, width])

    _each(files, place)
    return Photographs(pixels, sizes, files.labels)


def as_served(files: Files, rule: Preprocessing) -> Tensor:
    """Pictures as the service's preprocessing makes them: [n, 3, S, S], uint8."""
    pixels = torch.empty((len(files), 3, *rule.size), dtype=torch.uint8)

    def place(index: int, picture: Image.Image) -> None:
        pixels[index] = _tensor(preprocess(picture, rule))

    _each(files, place)
    return pixels


def shorter_sides(files: Files) -> Tensor:
    """The shorter side of each picture as stored, in pixels: [n]."""
    sides = torch.empty(len(files))

    def place(index: int, picture: Image.Image) -> None:
        sides[index] = min(picture.size)

    _each(files, place)
    return sides


def _each(files: Files, place: Callable[[int, Image.Image], None]) -> None:
    reader = Reader()

    def read(index: int) -> None:
        try:
            picture = reader.read(io.BytesIO(files.data[index]))
        except ImageError as exc:
            raise PhotographsError(f"{files.names[index]}: {exc}") from exc
        place(index, picture)

    with ThreadPoolExecutor() as pool:
        list(pool.map(read, range(len(files)), chunksize=64))


def _tensor(picture: Pixels) -> Tensor:
    """[H, W, 3] to [3, H, W]."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def _of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            yield _name(path), path.read_bytes()


def _of_tar(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                inside = Path(member.name)
                if member.isfile() and inside.suffix.lower() in _SUFFIXES:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield _name(inside), file.read()
    except (OSError, tarfile.TarError) as exc:
        raise PhotographsError(f"{path} is neither a folder nor a tar archive: {exc}") from exc


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _class(name: str) -> str:
    return name.split("/")[0].replace("_", " ")
