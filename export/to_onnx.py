"""Modules to ONNX files that share one file of weights.

Knows tensors and graphs, not networks: graphs.py has the modules that are traced.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir
import torch
from torch import nn

from export import attention, similarity, tracing

WEIGHTS_FILE = "weights.bin"
_ALIGNMENT = 4096  # a page, so that the file can be mapped into memory
_INLINE_BYTES = 1024  # smaller constants stay in the graph


def trace(module: nn.Module, img_size: int, output_names: Sequence[str]) -> ir.Model:
    """Trace a module that takes uint8 `images` [B, S, S, 3], for any batch size."""
    example = torch.zeros((2, img_size, img_size, 3), dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    shapes = {"images": {0: batch}}
    model = tracing.trace(module, (example,), ["images"], output_names, shapes)
    attention.add_functions(model)
    similarity.add_functions(model)
    return model


def save_weights(models: Iterable[ir.Model], folder: Path) -> None:
    """Move the weights of several graphs to one file, where equal ones are stored once."""
    placed: dict[tuple[str, bytes], ir.ExternalTensor] = {}
    with (folder / WEIGHTS_FILE).open("wb") as weights:
        for model in models:
            for name, value in model.graph.initializers.items():
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _INLINE_BYTES:
                    continue
                content = tensor.tobytes()
                key = (f"{tensor.dtype} {tensor.shape}", content)
                if key not in placed:
                    weights.seek(-weights.tell() % _ALIGNMENT, 1)
                    placed[key] = ir.ExternalTensor(
                        WEIGHTS_FILE,
                        weights.tell(),
                        len(content),
                        tensor.dtype,
                        shape=ir.Shape(tensor.shape.numpy()),
                        name=name,
                        base_dir=folder,
                    )
                    weights.write(content)
                value.const_value = placed[key]


def save_graph(model: ir.Model, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a graph to the folder of its weights."""
    model.metadata_props.update(metadata or {})
    ir.save(model, path)
