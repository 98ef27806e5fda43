"""PyTorch modules to ONNX graphs, without the exporter's messages."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import nn

OPSET = 20  # the first with Gelu as one operator


def trace(
    module: nn.Module,
    examples: tuple[Any, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Mapping[str, Any],
) -> ir.Model:
    """Trace a module; `inputs` and `outputs` are names, `dynamic_shapes` as in torch.export."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=dict(dynamic_shapes),
        )
    assert program is not None
    model = program.model
    for node in model.graph:  # paths of the machine that exports
        node.metadata_props.clear()
    for value in [*model.graph.inputs, *model.graph.outputs]:
        value.metadata_props.clear()
    return model
