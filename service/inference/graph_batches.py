"""Batches of a few fixed sizes, in buffers on the device that keep their addresses.

A captured CUDA graph can be replayed on nothing else. Knows sessions and arrays, not models.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from models.arrays import Float32Array, Pixels


class _GraphBatch(NamedTuple):
    binding: Any  # ONNX Runtime has no types
    host_images: Pixels  # [size, height, width, 3], copied to the device before each run
    images: Any  # [size, height, width, 3] on the device
    logits: Any  # [size, classes] on the device


class GraphBatches:
    """Runs a classifier on padded batches of 1, 2, 3, 4, 6, 8, 12 .. images, up to the largest.

    Each size has a CUDA graph of its own. For use by one thread, as CUDA graphs are.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        max_batch_size: int,
        image_shape: tuple[int, ...],  # [height, width, 3]
        classes: int,
        device: str,
    ) -> None:
        self._session = session
        self.sizes = _sizes(max_batch_size)
        self._batches = {
            size: _bind(session, size, image_shape, classes, device) for size in self.sizes
        }

    def run(self, images: Sequence[Pixels]) -> Float32Array:
        """Images [height, width, 3] to logits [B, classes]."""
        size = next(size for size in self.sizes if size >= len(images))
        batch = self._batches[size]
        # The padding is whatever an earlier batch has left in the buffer.
        np.stack(images, out=batch.host_images[: len(images)])
        batch.images.update_inplace(batch.host_images)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        self._session.run_with_iobinding(batch.binding, options)
        logits: Float32Array = batch.logits.numpy()
        return logits[: len(images)]


def _sizes(max_batch_size: int) -> list[int]:
    """Powers of two and the steps halfway between them, up to the largest batch."""
    powers = [2**power for power in range(max_batch_size.bit_length())]
    steps = {*powers, *(power + power // 2 for power in powers), max_batch_size}
    return sorted(size for size in steps if size <= max_batch_size)


def _bind(
    session: ort.InferenceSession,
    size: int,
    image_shape: tuple[int, ...],
    classes: int,
    device: str,
) -> _GraphBatch:
    allocate = ort.OrtValue.ortvalue_from_shape_and_type
    batch = _GraphBatch(
        session.io_binding(),
        host_images=np.zeros((size, *image_shape), np.uint8),
        images=allocate((size, *image_shape), np.uint8, device, 0),
        logits=allocate((size, classes), np.float32, device, 0),
    )
    batch.binding.bind_ortvalue_input("images", batch.images)
    batch.binding.bind_ortvalue_output("logits", batch.logits)
    return batch
