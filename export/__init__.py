"""From a network to a verified, folded ONNX model in a model repository."""
