"""Folders of pictures, and files that are none."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.support.server import ROOT


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 different JPEGs in three folders, to be read only."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as opened:
        photo = opened.convert("RGB").resize((120, 120))
    for number in range(600):
        left, top = number % 40, number // 40
        jpeg = io.BytesIO()
        photo.crop((left, top, left + 80, top + 80)).save(jpeg, "JPEG")
        path = folder / f"{number % 3}" / f"{number:03}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg.getvalue())
    return folder
