"""`python -m tests.service.native.one_operator LIBRARY FOLDER`: run graphs of one operator.

Every FOLDER/NAME.onnx runs on the inputs in FOLDER/NAME.npz, with each copy of the kernels that
this processor has. Prints a line before each graph, so that the last line of a run that crashed
names the graph, and what became of it behind. Imports no more than it needs: it also runs with a
sanitizer, which slows all Python down.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

from service.native.symbols import INSTRUCTION_SETS, allow, chosen_copy


def run(graph: Path, library: Path) -> str:
    """`ran` and the shapes of outputs, or ONNX Runtime's message."""
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = 2
    options.enable_cpu_mem_arena = False  # or a sanitizer would not see where a tensor ends
    options.log_severity_level = 4
    with np.load(graph.with_suffix(".npz")) as given:
        try:
            session = ort.InferenceSession(
                graph.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            found = session.run(None, dict(given))
        except Exception as exc:  # noqa: BLE001 - ONNX Runtime's have no class in common
            return " ".join(str(exc).split())
    return f"ran {[values.shape for values in found]}"


def main(library: Path, folder: Path) -> None:
    for copy in INSTRUCTION_SETS:
        allow(library, copy)
        if chosen_copy(library) == copy:
            for graph in sorted(folder.glob("*.onnx")):
                print(copy, graph.stem, end=" ", flush=True)
                print(run(graph, library), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
