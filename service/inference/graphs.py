"""The graphs of one exported version, held in memory with their weights."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from models.manifest import METADATA_KEY, Manifest
from service.errors import StartupError
from service.inference.files import Files
from service.inference.reduced.classifier import ReducedClassifier

EXPLAIN = "explain"
_WEIGHTS = "weights.bin"
_REQUIRED = {"fp32": "model.onnx", EXPLAIN: "explain.onnx"}
_OPTIONAL = {"fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}
_LOGITS = "logits"
FEATURES = "features"  # an output that no graph has as exported: what the head takes, [B, width]


@dataclass(frozen=True)
class Graph:
    """What a session is opened with.

    The weights are those of all sessions, not a copy: they are valid as long as `Graphs` is.
    """

    content: bytes
    weights: dict[str, ort.OrtValue]


class Graphs:
    """Classifiers by precision, and the explain graph.

    They are held because sessions for explanations open later, when the folder may hold something
    else or nothing.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StartupError`."""
        self.folder = folder
        files = Files(folder)
        self.manifest = files.manifest
        names = _REQUIRED | {key: file for key, file in _OPTIONAL.items() if files.has(file)}
        self._graphs = {key: files.read(file) for key, file in names.items()}
        self._external: dict[str, list[_External]] = {}
        self._reduced: dict[str, ReducedClassifier] = {}  # by the graph that each is made of
        self.has_features = False  # whether the head is one linear layer, as exports make it
        for key, file in names.items():
            try:
                model = onnx.load_model_from_string(self._graphs[key])
                _check(model, self.manifest, key)
                self._external[key] = list(_external(model))
                self.has_features |= key == EXPLAIN and _head(model) is not None
            except Exception as exc:  # Protocol Buffers and ONNX have classes of their own
                said = " ".join(str(exc).split())
                raise StartupError(
                    f"{folder / file} is not a graph of its manifest: {said}"
                ) from exc
        ends = [tensor.end for tensors in self._external.values() for tensor in tensors]
        self._weights = files.copy(_WEIGHTS, max(ends, default=0))

    @property
    def precisions(self) -> set[str]:
        """Those that were exported. A classifier in bf16 is made of that in fp32."""
        return self._graphs.keys() - {EXPLAIN}

    def classifier(self, precision: str, threads: int, reduced: bool = False) -> Graph:
        """For a session of so many threads.

        `reduced` stands for operators of the compiled kernels, in which alone there is bf16, and in
        which blocks of an int8 classifier run if they can. Raises `StartupError` if a classifier
        cannot be in bf16.
        """
        if reduced or precision == "bf16":
            try:
                return self._reduced_classifier(precision, threads)
            except ValueError as exc:
                if precision == "bf16":
                    raise StartupError(f"{self.folder} cannot run in bf16: {exc}") from exc
        return self._graph(self._graphs[precision], self._external[precision])

    def _reduced_classifier(self, precision: str, threads: int) -> Graph:
        """Raises `ValueError`."""
        key = "fp32" if precision == "bf16" else precision
        model = onnx.load_model_from_string(self._graphs[key])
        if key not in self._reduced:
            constants = _constants(model, self._external[key], self._weights)
            self._reduced[key] = ReducedClassifier(model.graph, constants.get)
        reduced = self._reduced[key]
        del model.graph.node[:]
        model.graph.node.extend(reduced.nodes(threads))
        for name, array in reduced.constants.items():
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.initializer.append(_declared(name, kind, array.shape))
        _cut(model, [_LOGITS])
        kept = {tensor.name for tensor in model.graph.initializer}
        graph = self._graph(
            model.SerializeToString(), [one for one in self._external[key] if one.name in kept]
        )
        for name, array in reduced.constants.items():
            graph.weights[name] = ort.OrtValue.ortvalue_from_numpy(array)
        return graph

    def explainer(self, outputs: Sequence[str]) -> Graph:
        """The part of the explain graph that leads to some of its outputs, or to the features."""
        model = onnx.load_model_from_string(self._graphs[EXPLAIN])
        if FEATURES in outputs:
            head = _head(model)
            assert head is not None, "a graph is asked for features that it does not have"
            model.graph.node.append(onnx.helper.make_node("Identity", [head.input[0]], [FEATURES]))
            model.graph.output.append(
                onnx.helper.make_tensor_value_info(FEATURES, onnx.TensorProto.FLOAT, None)
            )
        _cut(model, outputs)
        return self._graph(model.SerializeToString(), _external(model))

    def _graph(self, content: bytes, external: "Iterable[_External]") -> Graph:
        return Graph(content, {tensor.name: tensor.value(self._weights) for tensor in external})


@dataclass(frozen=True)
class _External:
    """An initializer whose values are in the file of weights."""

    name: str
    type: int  # as ONNX numbers them
    shape: tuple[int, ...]
    start: int  # in bytes

    @property
    def dtype(self) -> "np.dtype[Any]":
        return onnx.helper.tensor_dtype_to_np_dtype(self.type)

    @property
    def end(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    def array(self, weights: mmap | bytes) -> "np.ndarray[Any, Any]":
        """Without a copy: it is valid as long as `weights` is."""
        values = np.frombuffer(weights, self.dtype, math.prod(self.shape), self.start)
        return values.reshape(self.shape)

    def value(self, weights: mmap | bytes) -> ort.OrtValue:
        """The same for a session."""
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(self.array(weights), self.type)


def _external(model: onnx.ModelProto) -> Iterator[_External]:
    """Raises `ValueError` for values that are elsewhere."""
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        facts = {entry.key: entry.value for entry in tensor.external_data}
        found = _External(
            tensor.name, tensor.data_type, tuple(tensor.dims), int(facts.get("offset", 0))
        )
        if facts.get("location") != _WEIGHTS or found.start < 0 or min(found.shape, default=0) < 0:
            raise ValueError(f"the values of {tensor.name} are not in {_WEIGHTS}")
        yield found


def _head(model: onnx.ModelProto) -> onnx.NodeProto | None:
    """The linear layer whose result are the logits."""
    (node,) = (node for node in model.graph.node if _LOGITS in node.output)
    weights = {tensor.name for tensor in model.graph.initializer}
    return node if node.op_type == "Gemm" and node.input[1] in weights else None


def _declared(name: str, kind: int, shape: Sequence[int]) -> onnx.TensorProto:
    """An initializer whose values a session is given."""
    tensor = onnx.TensorProto(name=name, dims=shape, data_type=kind)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=_WEIGHTS)
    return tensor


def _constants(
    model: onnx.ModelProto, external: "Iterable[_External]", weights: mmap | bytes
) -> Mapping[str, Any]:
    """The arrays of initializers, and of those that are cast from half precision."""
    found: dict[str, Any] = {one.name: one.array(weights) for one in external}
    for tensor in model.graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            found[tensor.name] = onnx.numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]].astype(np.float32)
    return found


def _check(model: onnx.ModelProto, manifest: Manifest, key: str) -> None:
    """Raises `ValueError` if a graph is not that of its manifest."""
    embedded = {entry.key: entry.value for entry in model.metadata_props}.get(METADATA_KEY)
    if embedded is None or Manifest.read(embedded) != manifest:
        raise ValueError("it was exported with another manifest")
    found = {value.name: _shape(value) for value in (*model.graph.input, *model.graph.output)}
    wanted: dict[str, tuple[int, ...]] = {"images": (*manifest.preprocessing.size, 3)}
    wanted[_LOGITS] = (manifest.config.num_classes,)
    if key == EXPLAIN:
        wanted |= {output.name: output.shape for output in manifest.outputs}
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise ValueError(
                f"{name} should be {_in_words(shape)}, not {_in_words(found.get(name))}"
            )


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Without the batch."""
    return tuple(one.dim_value for one in value.type.tensor_type.shape.dim[1:])


def _in_words(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(map(str, ("batch", *shape)))


def _cut(model: onnx.ModelProto, outputs: Sequence[str]) -> None:
    """Leave only what leads to these outputs."""
    whole = model.graph
    needed = set(outputs)
    kept = []
    for node in reversed(whole.node):  # nodes are in topological order
        if not needed.isdisjoint(node.output):
            if node.op_type.startswith("Open"):  # its kernel writes named outputs only
                node.output[:] = [name if name in needed else "" for name in node.output]
            kept.append(node)
            needed.update(node.input)
    trimmed = onnx.helper.make_graph(
        list(reversed(kept)),
        whole.name,
        list(whole.input),
        [value for value in whole.output if value.name in outputs],
        [value for value in whole.initializer if value.name in needed],
    )
    model.graph.CopyFrom(trimmed)
