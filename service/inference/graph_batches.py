"""Batches padded to a few sizes, in buffers on the device that stay where they are.

What a captured CUDA graph can be replayed on. Knows sessions and arrays, not models.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from models.arrays import Float32Array, Pixels


class _Bucket(NamedTuple):
    binding: Any  # ONNX Runtime has no types
    batch: Pixels  # [size, S, S, 3], what is copied to the device
    images: Any  # [size, S, S, 3] on the device
    logits: Any  # [size, classes] on the device


class Buckets:
    """Runs a classifier on batches of 1, 2, 3, 4, 6, 8, 12 .. images, up to the largest batch,
    each with a graph of its own. For one thread, as CUDA graphs are."""

    def __init__(
        self,
        session: ort.InferenceSession,
        max_batch_size: int,
        image: tuple[int, ...],  # [S, S, 3]
        classes: int,
        device: str,
    ) -> None:
        self._session = session
        powers = [2**power for power in range(max_batch_size.bit_length())]
        steps = {*powers, *(power + power // 2 for power in powers), max_batch_size}
        self.sizes = sorted(size for size in steps if size <= max_batch_size)
        new = ort.OrtValue.ortvalue_from_shape_and_type
        self._buckets: dict[int, _Bucket] = {}
        for size in self.sizes:
            bucket = _Bucket(
                session.io_binding(),
                batch=np.zeros((size, *image), np.uint8),
                images=new((size, *image), np.uint8, device, 0),
                logits=new((size, classes), np.float32, device, 0),
            )
            bucket.binding.bind_ortvalue_input("images", bucket.images)
            bucket.binding.bind_ortvalue_output("logits", bucket.logits)
            self._buckets[size] = bucket

    def run(self, images: Sequence[Pixels]) -> Float32Array:
        """[S, S, 3] each to logits [B, classes]."""
        size = next(size for size in self.sizes if size >= len(images))
        bucket = self._buckets[size]
        np.stack(images, out=bucket.batch[: len(images)])  # behind them, what was there before
        bucket.images.update_inplace(bucket.batch)
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        self._session.run_with_iobinding(bucket.binding, options)
        logits: Float32Array = bucket.logits.numpy()
        return logits[: len(images)]
