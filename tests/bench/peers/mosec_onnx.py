"""mosec with its batching: a front end in Rust, one worker process that decodes and runs."""

import sys
from typing import Any

import mosec

from models.arrays import Pixels
from tests.bench.peers.answer import Model, options

given = options()


class Classify(mosec.Worker):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model(given.folder, given.threads)
        self.model.warm_up()

    def deserialize(self, data: bytes) -> Pixels:
        return self.model.decode(data)

    def forward(self, data: list[Pixels]) -> list[dict[str, Any]]:
        return [self.model.answer(logits) for logits in self.model.logits(data)]


if __name__ == "__main__":
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(given.port), "--timeout", "120000"]
    server = mosec.Server()
    server.append_worker(
        Classify,
        num=1,
        max_batch_size=given.max_batch_size,
        max_wait_time=given.batch_timeout_ms,
        timeout=120,
        start_method="fork",
        route="/predict",
    )
    server.run()
