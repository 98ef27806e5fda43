"""From image bytes to answers: ONNX Runtime behind FastAPI, never torch."""

import os

__version__ = "0.2.0"

# Read when ONNX Runtime loads: its official builds report usage to Microsoft otherwise.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
