"""The graphs of one exported version, held in memory with their weights."""

import mmap
from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from service.errors import StartupError

EXPLAIN = "explain"
_WEIGHTS = "weights.bin"
_REQUIRED = {"fp32": "model.onnx", EXPLAIN: "explain.onnx"}
_OPTIONAL = {"fp16": "model.fp16.onnx", "int8": "model.int8.onnx"}


class Graphs:
    """Classifiers by precision, and the explain graph.

    They are held because sessions for explanations open later, when the folder may have been
    removed.
    """

    def __init__(self, folder: Path) -> None:
        """Raises `StartupError`."""
        self.folder = folder
        files = _REQUIRED | {
            precision: file for precision, file in _OPTIONAL.items() if (folder / file).exists()
        }
        try:
            with (folder / _WEIGHTS).open("rb") as weights:
                self._weights = mmap.mmap(weights.fileno(), 0, access=mmap.ACCESS_READ)
            self._graphs = {name: (folder / file).read_bytes() for name, file in files.items()}
        except (OSError, ValueError) as exc:
            raise StartupError(f"{folder} cannot be read: {exc}") from exc

    def __getitem__(self, name: str) -> bytes:
        return self._graphs[name]

    @property
    def precisions(self) -> set[str]:
        return self._graphs.keys() - {EXPLAIN}

    def add_weights(self, options: ort.SessionOptions) -> None:
        """Let a session that is about to open find the weights."""
        if (self.folder / _WEIGHTS).exists():
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self.folder)
            )
        else:  # ONNX Runtime copies them first, which takes memory
            options.add_external_initializers_from_files_in_memory(
                [_WEIGHTS], [self._weights], [len(self._weights)]
            )


def subgraph(graph: bytes, outputs: Sequence[str]) -> bytes:
    """The part of a graph that leads to some of its outputs; weights stay in their file."""
    import onnx  # only explanations need it

    model: onnx.ModelProto = onnx.load_model_from_string(graph)
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
    content: bytes = model.SerializeToString()
    return content
