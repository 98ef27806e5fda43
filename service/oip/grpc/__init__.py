"""The Open Inference Protocol over gRPC, using the messages of NVIDIA's client; no HTTP here."""
