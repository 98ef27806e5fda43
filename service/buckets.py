"""Batches padded to a few sizes, in buffers on the device that stay where they are.

What a captured CUDA graph can be replayed on. Knows sessions and arrays, not models.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


class _Bucket(NamedTuple):
    binding: Any  # ONNX Runtime has no types
    images: Any  # [size, S, S, 3] on the device
    logits: Any  # [size, classes] on the device


class Buckets:
    """Runs a classifier on powers of two of images, up to the largest batch, each with a graph
    of its own. For one thread, as CUDA graphs are."""

    def __init__(
        self,
        session: ort.InferenceSession,
        max_batch_size: int,
        image: tuple[int, ...],  # [S, S, 3]
        classes: int,
        device: str,
    ) -> None:
        self._session = session
        powers = (2**power for power in range(max_batch_size.bit_length()))
        self.sizes = sorted({*powers, max_batch_size})
        new = ort.OrtValue.ortvalue_from_shape_and_type
        self._buckets: dict[int, _Bucket] = {}
        for size in self.sizes:
            bucket = _Bucket(
                session.io_binding(),
                images=new((size, *image), np.uint8, device, 0),
                logits=new((size, classes), np.float32, device, 0),
            )
            bucket.binding.bind_ortvalue_input("images", bucket.images)
            bucket.binding.bind_ortvalue_output("logits", bucket.logits)
            self._buckets[size] = bucket

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[B, S, S, 3] to logits [B, classes]."""
        batch = len(images)
        size = next(size for size in self.sizes if size >= batch)
        bucket = self._buckets[size]
        padding = [(0, size - batch), *[(0, 0)] * (images.ndim - 1)]
        bucket.images.update_inplace(np.pad(images, padding))
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        self._session.run_with_iobinding(bucket.binding, options)
        logits: npt.NDArray[np.float32] = bucket.logits.numpy()
        return logits[:batch]
