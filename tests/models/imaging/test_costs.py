"""Headers that ask for gigabytes or minutes are refused before anything is opened or decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from models.imaging import CostlyImage, DamagedImage, Reader, UnsupportedImage
from tests.service.imaging.encoded import save
from tests.support.hostile import codestream, jpeg_of_scans, tiff_of_strips
from tests.support.memory import limited_memory

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    "data",
    [
        jpeg_of_scans(64, 101),
        jpeg_of_scans(8000, 40),
        tiff_of_strips(300_000),
        tiff_of_strips(300_000, order=">"),
        tiff_of_strips(300_000, big=True),
        codestream(tiles=(255, 255), components=1),
        codestream(tiles=(20, 10), components=16_384),
        save(PICTURE, "JPEG2000") + codestream(tiles=(255, 255), components=1),
    ],
    ids=[
        "many scans",
        "fewer scans of more pixels",
        "TIFF",
        "TIFF, most significant byte first",
        "BigTIFF",
        "tiles",
        "components",
        "a second codestream",
    ],
)
def test_what_costs_far_more_than_its_pixels_is_refused(data: bytes) -> None:
    with limited_memory(200), pytest.raises(CostlyImage):
        Reader().read(io.BytesIO(data))


@pytest.mark.parametrize(
    "data",
    [
        save(PICTURE, "JPEG", progressive=True),
        save(PICTURE.convert("CMYK"), "JPEG", progressive=True),
        jpeg_of_scans(64, 90),
        save(PICTURE, "TIFF", tiffinfo={278: 1}),
        save(PICTURE, "JPEG2000", tile_size=(64, 64)),
        save(PICTURE, "JPEG2000", no_jp2=True),
    ],
    ids=["progressive", "CMYK", "scans", "a strip a row", "tiles", "bare codestream"],
)
def test_what_programs_write_is_read(data: bytes) -> None:
    assert Reader().read(io.BytesIO(data)).mode == "RGB"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kept", [9, 20, 60])
@pytest.mark.parametrize(
    "data",
    [tiff_of_strips(300_000), tiff_of_strips(300_000, big=True), codestream((9, 9), 1)],
    ids=["TIFF", "BigTIFF", "JPEG 2000"],
)
def test_of_a_cut_header_nothing_is_guessed(data: bytes, kept: int) -> None:
    with pytest.raises((DamagedImage, UnsupportedImage)):
        Reader().read(io.BytesIO(data[:kept]))
