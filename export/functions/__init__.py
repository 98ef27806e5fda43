"""Operators of our own, which an ONNX file defines as functions of plain operators.

Any runtime can run them so; the service replaces them by its own kernels (service/native).
"""

from collections.abc import Iterable

import onnx
import onnx_ir as ir

DOMAIN = "deepvit"
VERSION = 1
_IMPORTS = f'<domain: "{DOMAIN}", opset_import: ["": 20, "{DOMAIN}": {VERSION}]>'


def define(model: ir.Model, definitions: Iterable[str]) -> None:
    """Add functions in the textual syntax of ONNX, from their names on."""
    for definition in definitions:
        parsed = onnx.parser.parse_function(f"{_IMPORTS} {definition}")
        function = ir.serde.deserialize_function(parsed)
        model.functions[function.identifier()] = function
        model.opset_imports[DOMAIN] = VERSION
