"""mosec: a front end in Rust that batches, and worker processes that decode and run the model.

Set up by "Performance tuning" and "Configuration" in https://github.com/mosecorg/mosec: batch size,
a wait shorter than an inference (a batch waits 10 ms where none is given, 1 ms at least), the
number of workers, their threads, and decoding in a stage of its own.
"""

import json
import pickle
import sys
from typing import Any

import mosec

from models.arrays import Pixels
from tests.bench.peers.answer import Decoder, Model
from tests.bench.peers.given import given


class Decode(mosec.Worker):
    """The first of two stages."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = Decoder(given().folder)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> Pixels:
        return self.decoder.decode(data)

    def serialize_ipc(self, data: Pixels) -> bytes:
        return pickle.dumps(data, protocol=5)


class Run(mosec.Worker):
    """The second of two stages: pixels to answers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(given())

    def deserialize_ipc(self, data: bytes) -> Any:
        return pickle.loads(data)

    def forward(self, data: Any) -> Any:
        """A list of images if this worker takes batches, or one."""
        images = data if isinstance(data, list) else [data]
        answers = [self.model.answer(logits) for logits in self.model.logits(images)]
        return answers if isinstance(data, list) else answers[0]

    def serialize(self, data: Any) -> bytes:
        return json.dumps(data).encode()


class Classify(Run):
    """Both in one stage."""

    def deserialize(self, data: bytes) -> Pixels:
        return self.model.decode(data)


if __name__ == "__main__":
    setup = given().setup
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(given().port), "--timeout", "120000"]
    sys.argv += ["--log-level", "warning"]
    server = mosec.Server()
    if setup.decoders:
        server.append_worker(Decode, num=setup.decoders, timeout=120, route="/predict")
    server.append_worker(
        Run if setup.decoders else Classify,
        num=setup.workers,
        max_batch_size=setup.max_batch_size,
        max_wait_time=round(setup.wait_ms or 0),
        timeout=120,
        route="/predict",
    )
    server.run()
