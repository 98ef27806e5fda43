"""From image bytes to answers: ONNX Runtime behind FastAPI, without torch."""

import os

__version__ = "0.2.0"

# ONNX Runtime reads this when it loads; its official builds else report usage to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
