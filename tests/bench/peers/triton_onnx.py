"""NVIDIA's tritonserver, whose Python backend decodes and runs the model, one process an instance.

The binary that NVIDIA publishes for Python has no backend for ONNX Runtime, so Triton's HTTP server
and batcher are measured, before the same Python as the other peers have. Set up by
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/batcher.html (no delay
first, then some), https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/
model_execution.html (instances), and its binary data extension, by which the body is the JPEG.
"""

import os
from pathlib import Path

from tests.bench.peers.given import Given, given

MODEL = "classifier"
_CONFIG = """
backend: "python"
max_batch_size: {batch}
input [ {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] }} ]
output [ {{ name: "answer" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
{batching}
"""
# The backend's interpreter looks for modules beside the backend, and not where it was started.
_MODEL = """
import os
import sys

sys.path.append(os.getcwd())
from tests.bench.peers.triton_model import TritonPythonModel
"""
_BATCHING = "dynamic_batching {{ max_queue_delay_microseconds: {delay} }}"


def prepare(given: Given) -> None:
    """A model repository with the one model."""
    folder = given.place / MODEL / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(_MODEL)
    setup = given.setup
    batching = _BATCHING.format(delay=round((setup.wait_ms or 0) * 1000))
    config = _CONFIG.format(
        batch=setup.max_batch_size,
        instances=setup.workers,
        batching=batching if setup.max_batch_size > 1 else "",
    )
    (folder.parent / "config.pbtxt").write_text(config)


if __name__ == "__main__":
    install = Path(os.environ["BENCH_TRITON"])
    prepare(given())
    options = {
        "model-repository": given().place,
        "backend-directory": install / "pytriton/tritonserver/backends",
        "http-address": "127.0.0.1",
        "http-port": given().port,
        "allow-grpc": "false",
        "allow-metrics": "false",
        "log-info": "false",
    }
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(install / "nvidia_pytriton.libs"),
    }
    server = str(install / "pytriton/tritonserver/bin/tritonserver")
    arguments = [f"--{name}={value}" for name, value in options.items()]
    os.execve(server, [server, *arguments], environment)
