"""LitServe: HTTP processes, and worker processes that decode, batch and run the model.

Set up by https://lightning.ai/docs/litserve/features/batching (batch size and timeout),
https://lightning.ai/docs/litserve/how-tos/parallelism-types (workers of a device) and its
reference: as many HTTP processes as workers, and `fast_queue` for over 100 requests a second.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Depends

from models.arrays import Pixels
from tests.bench.peers.answer import Model
from tests.bench.peers.fastapi_onnx import body
from tests.bench.peers.given import given


class Classify(litserve.LitAPI):
    def setup(self, _: str) -> None:
        self.model = Model(given())

    def decode_request(self, request: Annotated[bytes, Depends(body)]) -> Pixels:
        return self.model.decode(request)

    def batch(self, inputs: Sequence[Pixels]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self.model.logits(x if x.ndim == 4 else x[None])

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return self.model.answer(output[0] if isinstance(output, list) else output)


if __name__ == "__main__":
    setup = given().setup
    wait_s = (setup.wait_ms or 0) / 1000
    api = Classify(max_batch_size=setup.max_batch_size, batch_timeout=wait_s)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=setup.workers, timeout=120, fast_queue=True
    )
    server.run(host="127.0.0.1", port=given().port, log_level="warning", generate_client_file=False)
