"""ONNX Runtime on the CPU, as exported graphs are measured with it."""

from pathlib import Path

import onnxruntime as ort


def cpu_session(graph: Path | bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Threads that spin between runs would take the CPU from whatever runs in between.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised as well, and reported by the caller
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
