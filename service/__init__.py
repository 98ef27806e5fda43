"""From image bytes to answers: ONNX Runtime behind FastAPI, never torch."""
