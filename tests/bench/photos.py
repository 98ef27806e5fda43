"""JPEGs to send: crops of the bundled photographs, at the typical size of each data set."""

import io

from PIL import Image

from tests.support.server import ROOT

_PHOTOS = sorted((ROOT / "service" / "web" / "samples").glob("*.jpg"))
_TURNS = 8
# CIFAR-10; the mean of ImageNet
_OF_DATA_SETS = {32: (32, 32), 224: (500, 375), 384: (500, 375)}


def photos(input_size: int) -> list[bytes]:
    """Different JPEGs for a network of this input size."""
    size = _OF_DATA_SETS.get(input_size, (input_size, input_size))
    encoded = []
    for path in _PHOTOS:
        with Image.open(path) as photo:
            for turn in range(_TURNS):
                box = (turn * 4, turn * 4, photo.width - turn * 4, photo.height - turn * 4)
                jpeg = io.BytesIO()
                photo.convert("RGB").resize(size, box=box).save(jpeg, "JPEG", quality=90)
                encoded.append(jpeg.getvalue())
    return encoded
