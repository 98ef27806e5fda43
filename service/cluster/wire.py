"""Images and results as bytes, because pickled arrays take longer than the way between processes.

Both ends know the input size and the number of classes from the model's manifest.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from models.arrays import Float32Array, Pixels
from models.size import Size

# Outputs of an explain graph by name: the shape for one image, and the values of all images.
PackedOutputs = dict[str, tuple[tuple[int, ...], bytes]]


def pack_images(images: Sequence[Pixels]) -> bytes:
    """Inputs [height, width, 3] of one size, one after the other."""
    return b"".join(image.data for image in images)


def unpack_images(packed: bytes, size: Size) -> list[Pixels]:
    """To inputs [height, width, 3], without a copy."""
    return list(np.frombuffer(packed, np.uint8).reshape(-1, *size, 3))


def pack_logits(logits: Sequence[Float32Array]) -> bytes:
    """Logits [classes], one after the other."""
    return b"".join(np.ascontiguousarray(one).data for one in logits)


def unpack_logits(packed: bytes, classes: int) -> list[Float32Array]:
    return list(np.frombuffer(packed, np.float32).reshape(-1, classes))


def pack_outputs(outputs: Sequence[Mapping[str, Float32Array]]) -> PackedOutputs:
    """Outputs by name for each image."""
    first = outputs[0]
    return {
        name: (
            first[name].shape,
            b"".join(np.ascontiguousarray(one[name]).data for one in outputs),
        )
        for name in first
    }


def unpack_outputs(packed: PackedOutputs, count: int) -> list[dict[str, Float32Array]]:
    """Outputs by name for each of `count` images."""
    values = {
        name: np.frombuffer(data, np.float32).reshape(count, *shape)
        for name, (shape, data) in packed.items()
    }
    return [{name: value[index] for name, value in values.items()} for index in range(count)]
