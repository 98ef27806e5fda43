"""Modules to ONNX files that share one file of weights.

Knows tensors and graphs, not networks: graphs.py has the modules that are traced.
"""

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from export.functions import attention, similarity
from export.rewriting import array, constant
from models.size import Size

OPSET = 20  # the first with Gelu as one operator
WEIGHTS_FILE = "weights.bin"
_ALIGNMENT = 4096  # a page, so that the file can be mapped into memory
_INLINE_BYTES = 1024  # smaller constants stay in the graph
_HALVED_BYTES = 2**16  # smaller constants are not worth a cast


def trace(module: nn.Module, img_size: Size, output_names: Sequence[str]) -> ir.Model:
    """Trace a module that takes uint8 `images` [B, height, width, 3], for any batch size."""
    example = torch.zeros((2, *img_size, 3), dtype=torch.uint8)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(output_names),
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
        )
    assert program is not None
    model = program.model
    for node in model.graph:  # paths of the machine that exports
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    _restore_biases(model.graph)
    attention.add(model)
    similarity.add(model)
    return model


def _restore_biases(graph: ir.Graph) -> None:
    """The exporter drops biases of zeros; a Gemm is a layer with a bias to all that follows."""
    for node in graph:
        if node.op_type == "Gemm" and len(node.inputs) == 2:
            width = array(node.inputs[1]).shape[1]
            zeros = constant(graph, f"{node.outputs[0].name}.bias", np.zeros(width, np.float32))
            node.resize_inputs(3)
            node.replace_input_with(2, zeros)


def save_weights(models: Iterable[ir.Model], folder: Path) -> None:
    """Move the weights of several graphs to one file, where equal ones are stored once.

    Those that half precision holds exactly are stored so, and cast when a session opens.
    """
    placed: dict[tuple[str, bytes], ir.ExternalTensor] = {}
    with (folder / WEIGHTS_FILE).open("wb") as weights:
        for model in models:
            for value in list(model.graph.initializers.values()):
                tensor = value.const_value
                if tensor is None or tensor.nbytes < _INLINE_BYTES:
                    continue
                if _is_half(tensor):
                    value = _cast_from_half(model.graph, value)
                    tensor = value.const_value
                    assert tensor is not None
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
                        name=value.name or "",
                        base_dir=folder,
                    )
                    weights.write(content)
                value.const_value = placed[key]


def _is_half(tensor: ir.TensorProtocol) -> bool:
    """Whether half precision holds these numbers exactly, and saves space worth having."""
    if tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < _HALVED_BYTES:
        return False
    values = tensor.numpy()
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(values.dtype), values)


def _cast_from_half(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Replace an initializer by one in half precision and a cast; returns the new one."""
    assert value.const_value is not None
    assert value.name is not None
    half = ir.tensor(value.const_value.numpy().astype(np.float16), name=f"{value.name}.half")
    stored = ir.Value(
        name=half.name, type=ir.TensorType(half.dtype), shape=value.shape, const_value=half
    )
    cast = ir.node("Cast", [stored], {"to": ir.DataType.FLOAT})
    value.replace_all_uses_with(cast.outputs[0])
    cast.outputs[0].name = value.name
    del graph.initializers[value.name]
    graph.register_initializer(stored)
    graph.insert_before(graph[0], cast)
    return stored


def save_graph(model: ir.Model, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a graph to the folder of its weights."""
    model.metadata_props.update(metadata or {})
    ir.save(model, path)
