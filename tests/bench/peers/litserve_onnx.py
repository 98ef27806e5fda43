"""LitServe with its batching; one worker process decodes, runs the model and answers."""

from collections.abc import Sequence
from typing import Any

import litserve
import numpy as np
from fastapi import UploadFile

from models.arrays import Pixels
from tests.bench.peers.answer import Model, options

given = options()


class Classify(litserve.LitAPI):
    def setup(self, _: str) -> None:
        self.model = Model(given.folder, given.threads)
        self.model.warm_up()

    def decode_request(self, request: UploadFile) -> Pixels:
        return self.model.decode(request.file.read())

    def batch(self, inputs: Sequence[Pixels]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.model.logits(x if given.max_batch_size > 1 else x[None])

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return self.model.answer(output)


if __name__ == "__main__":
    api = Classify(max_batch_size=given.max_batch_size, batch_timeout=given.batch_timeout_ms / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False)
