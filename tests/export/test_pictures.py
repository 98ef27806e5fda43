"""Folders as people have them: nested, mixed, damaged, large."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.pictures import Pictures


def save(path: Path, grey: int = 0, mode: str = "L") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (4, 6), grey).save(path)


def greys(pictures: Pictures) -> list[int]:
    return [int(np.asarray(picture.image)[0, 0, 0]) for picture in pictures]


def test_every_folder_is_searched_in_the_order_of_paths(tmp_path: Path) -> None:
    for grey, name in enumerate(("a.png", "b/c.png", "b/d/e.png", "f/g.png")):
        save(tmp_path / name, grey)
    save(tmp_path / ".hidden.png", 100)
    save(tmp_path / ".hidden" / "picture.png", 100)
    assert greys(Pictures(tmp_path)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [0]), (3, [0, 4, 7]), (5, [0, 2, 4, 6, 8]), (10, [*range(10)]), (99, [*range(10)])],
)
def test_a_limit_takes_pictures_from_everywhere(
    tmp_path: Path, limit: int, expected: list[int]
) -> None:
    for grey in range(10):
        save(tmp_path / f"{grey}.png", grey)
    pictures = Pictures(tmp_path, limit)
    assert greys(pictures) == expected
    assert pictures.read == pictures.chosen == len(expected)


def test_what_is_no_picture_is_counted_and_named(tmp_path: Path, photo: bytes) -> None:
    save(tmp_path / "good.png")
    (tmp_path / "cut.jpg").write_bytes(photo[: len(photo) // 2])
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.txt").write_text("not a picture")
    save(tmp_path / "deep.png", mode="I;16")
    pictures = Pictures(tmp_path)
    assert len(list(pictures)) == pictures.read == 1
    assert pictures.unreadable == 4
    assert pictures.named == ["cut.jpg", "deep.png", "empty.png", "notes.txt"]


def test_names_of_unreadable_files_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}.txt").touch()
    pictures = Pictures(tmp_path)
    with pytest.raises(FileNotFoundError, match="none of 30 files"):
        list(pictures)
    assert pictures.unreadable == 30
    assert pictures.named[-1] == "19.txt"


def test_pictures_are_upright_rgb_over_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "b.png")
    turned, clear = (picture.image for picture in Pictures(tmp_path))
    assert turned.size == (4, 8)
    assert clear.mode == "RGB"
    assert clear.getpixel((0, 0)) == (255, 255, 255)


def test_a_folder_without_files_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no files"):
        Pictures(tmp_path)
    with pytest.raises(NotADirectoryError, match="is not a folder"):
        Pictures(tmp_path / "missing")
