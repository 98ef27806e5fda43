"""What is packed is unpacked bit for bit."""

import numpy as np
import pytest

from models.size import Size
from service.cluster import wire

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [Size.of(8), Size(4, 10)])
def test_images(size: Size) -> None:
    images = list(RANDOM.integers(0, 256, (3, *size, 3), dtype=np.uint8))
    packed = wire.pack_images(images)
    assert len(packed) == 3 * size.area * 3
    for one, other in zip(images, wire.unpack_images(packed, size), strict=True):
        assert np.array_equal(one, other)


def test_logits_of_a_view_that_is_not_contiguous() -> None:
    logits = RANDOM.normal(size=(5, 6)).astype(np.float32)
    found = wire.unpack_logits(wire.pack_logits(list(logits.T)), classes=5)
    assert np.array_equal(found, logits.T)


def test_outputs_of_any_shape_by_name() -> None:
    outputs = [
        {
            "maps": RANDOM.normal(size=(2, 3, 3)).astype(np.float32),
            "entropy": np.array(RANDOM.normal(), np.float32),
        }
        for _ in range(4)
    ]
    found = wire.unpack_outputs(wire.pack_outputs(outputs), 4)
    for one, other in zip(outputs, found, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert np.array_equal(value, other[name])
            assert value.shape == other[name].shape
