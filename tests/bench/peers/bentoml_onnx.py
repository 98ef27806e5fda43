"""BentoML, in an environment of its own because it needs other versions of what the project uses.

Set up by https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html (workers,
threads) and https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html. An API that
batches takes lists, so a service that takes one JPEG passes pixels to a second one that batches,
as the latter page draws it. Access logs and metrics are off.
"""

import os
import sys
from pathlib import Path
from typing import Any

import bentoml
import numpy as np

from tests.bench.peers.answer import Decoder, Model
from tests.bench.peers.given import given

_SETUP = given().setup
_THREADS = 2  # images that a worker has in hand, so that one is decoded while another is inferred
_QUIET: dict[str, Any] = {
    "metrics": {"enabled": False},
    "logging": {"access": {"enabled": False}},
    "traffic": {"timeout": 120},
}


@bentoml.service(workers=_SETUP.workers, **_QUIET)
class Run:
    """Pixels to logits, in batches whose size adapts to their latency."""

    def __init__(self) -> None:
        self.model = Model(given())

    @bentoml.api(batchable=True, max_batch_size=max(2, _SETUP.max_batch_size))
    def logits(self, images: np.ndarray) -> np.ndarray:
        return np.stack(self.model.logits(list(images)))


@bentoml.service(workers=max(1, _SETUP.decoders), **_QUIET)
class Front:
    """Takes a JPEG, and passes its pixels to the service that batches."""

    run = bentoml.depends(Run)

    def __init__(self) -> None:
        self.decoder = Decoder(given().folder)

    @bentoml.api
    async def predict(self, image: bytes, /) -> dict[str, Any]:
        pixels = self.decoder.decode(image)
        logits = await self.run.to_async.logits(pixels[None])
        return self.decoder.answer(logits[0])


@bentoml.service(workers=_SETUP.workers, threads=_THREADS, **_QUIET)
class Classify:
    """Takes a JPEG and answers, without batches."""

    def __init__(self) -> None:
        self.model = Model(given())

    @bentoml.api
    def predict(self, image: bytes, /) -> dict[str, Any]:
        return self.model.classify(image)


if __name__ == "__main__":
    service = "Front" if _SETUP.max_batch_size > 1 else "Classify"
    os.environ["BENTOML_DO_NOT_TRACK"] = "True"
    os.environ["BENTOML_HOME"] = str(given().place)
    command = ["serve", f"tests.bench.peers.bentoml_onnx:{service}", "--host", "127.0.0.1"]
    bentoml_command = str(Path(sys.executable).with_name("bentoml"))
    os.execv(bentoml_command, [bentoml_command, *command, "--port", str(given().port)])
