"""The Open Inference Protocol over gRPC, with the messages of NVIDIA's client. Knows no HTTP."""
