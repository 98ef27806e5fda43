"""The Open Inference Protocol: its requests and responses, as REST JSON and as gRPC messages."""
