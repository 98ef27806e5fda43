"""Batches padded to a few sizes, in buffers on the device that stay where they are.

What a captured CUDA graph can be replayed on. Knows sessions and arrays, not models.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


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
        self._inputs: dict[int, Any] = {}
        self._outputs: dict[int, Any] = {}
        self._bindings: dict[int, Any] = {}
        for size in self.sizes:
            new = ort.OrtValue.ortvalue_from_shape_and_type
            self._inputs[size] = new((size, *image), np.uint8, device, 0)
            self._outputs[size] = new((size, classes), np.float32, device, 0)
            self._bindings[size] = session.io_binding()
            self._bindings[size].bind_ortvalue_input("images", self._inputs[size])
            self._bindings[size].bind_ortvalue_output("logits", self._outputs[size])

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """[B, S, S, 3] to logits [B, classes]."""
        batch = len(images)
        size = next(size for size in self.sizes if size >= batch)
        padding = [(0, size - batch), *[(0, 0)] * (images.ndim - 1)]
        self._inputs[size].update_inplace(np.pad(images, padding))
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(size))
        self._session.run_with_iobinding(self._bindings[size], options)
        logits: npt.NDArray[np.float32] = self._outputs[size].numpy()
        return logits[:batch]
