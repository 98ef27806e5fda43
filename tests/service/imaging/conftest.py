"""What each test of the decoder leaves as it was."""

from collections.abc import Iterator

import pytest
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def pillows_own_limit() -> Iterator[None]:
    """A decoder sets it for the whole process."""
    limit = Image.MAX_IMAGE_PIXELS
    yield
    Image.MAX_IMAGE_PIXELS = limit
