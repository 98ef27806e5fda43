"""Models, their queues and the ONNX Runtime sessions that run them. Knows nothing of protocols."""
