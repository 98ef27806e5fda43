"""Folders as people have them, nested, mixed and damaged, read exactly as the service reads."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from export.pictures import Pictures
from models.imaging import MAX_PIXELS, heif
from models.preprocess import Preprocessing, preprocess
from models.size import Size
from service.errors import UnsupportedMedia
from service.imaging.decoder import Decoder
from tests.support.server import ROOT


@pytest.fixture(scope="module", autouse=True)
def pillows_own_limit() -> Iterator[None]:
    """A reader sets it for the whole process."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit


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
    pictures = Pictures(tmp_path)
    assert len(list(pictures)) == pictures.read == 1
    assert pictures.unreadable == 3
    assert pictures.named == ["cut.jpg", "empty.png", "notes.txt"]


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


def cat(mode: str = "RGB") -> Image.Image:
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as opened:
        return opened.resize((60, 40)).convert(mode)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def deep() -> Image.Image:
    """Sixteen bits a pixel, of which the upper eight differ."""
    return Image.fromarray((np.asarray(cat("L")).astype(np.uint16) << 8) + 77)


def clear() -> Image.Image:
    image = cat("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


@pytest.mark.parametrize(
    ("image", "name", "options"),
    [
        (cat(), "cat.jpg", {}),
        (cat(), "turned.jpg", {"exif": turned()}),
        (cat("CMYK"), "print.jpg", {}),
        (deep(), "deep.png", {}),
        (deep(), "deep.tiff", {}),
        (clear(), "clear.png", {}),
        (cat("P"), "palette.gif", {}),
        (clear(), "clear.webp", {"lossless": True}),
        *([(cat(), "phone.heic", {"quality": 90})] if heif.FORMATS else []),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_has_the_pixels_that_the_service_sees(
    tmp_path: Path, image: Image.Image, name: str, options: dict[str, Any]
) -> None:
    image.save(tmp_path / name, **options)
    (found,) = (picture.image for picture in Pictures(tmp_path))
    served = Decoder(MAX_PIXELS).decode((tmp_path / name).read_bytes())
    np.testing.assert_array_equal(np.asarray(found), np.asarray(served))
    assert np.asarray(found).std() > 10


@pytest.mark.parametrize("name", ["cat.pcx", "cat.tga", "cat.dds"])
def test_formats_that_the_service_refuses_are_unreadable(tmp_path: Path, name: str) -> None:
    cat().save(tmp_path / name)
    cat().save(tmp_path / "cat.png")
    pictures = Pictures(tmp_path)
    assert len(list(pictures)) == 1
    assert pictures.named == [name]
    with pytest.raises(UnsupportedMedia):
        Decoder(MAX_PIXELS).decode((tmp_path / name).read_bytes())


def test_batches_are_full_but_the_last(tmp_path: Path) -> None:
    for grey in range(5):
        save(tmp_path / f"{grey}.png", grey)
    rule = Preprocessing(size=Size.of(4))
    batches = list(Pictures(tmp_path).batches(2, rule))
    assert [len(batch.pictures) for batch in batches] == [2, 2, 1]
    for batch in batches:
        expected = [preprocess(picture.image, rule) for picture in batch.pictures]
        np.testing.assert_array_equal(batch.pixels, expected)
    assert [int(batch.pixels[0, 0, 0, 0]) for batch in batches] == [0, 2, 4]
