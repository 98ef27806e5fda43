"""From a network to a verified, folded ONNX model in a model repository."""

import os

# Read when ONNX Runtime loads: its official builds report usage to Microsoft otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
