"""FastAPI and PyTorch, eager, in a plain handler, as in most tutorials.

Set up as `fastapi_onnx`; the number of threads of an inference is what PyTorch's guide to serving
on processors tunes (https://docs.pytorch.org/tutorials/recipes/recipes/tuning_guide.html).
"""

from typing import Annotated, Any

import torch
from fastapi import Depends, FastAPI

from export.verify import normalize
from tests.bench.contenders import network
from tests.bench.peers.answer import Decoder
from tests.bench.peers.fastapi_onnx import body, serve
from tests.bench.peers.given import given


def create_app() -> FastAPI:
    decoder = Decoder(given().folder)
    torch.set_num_threads(given().setup.threads)
    net = network(decoder.manifest.name)
    app = FastAPI()

    @app.post("/predict")
    def predict(image: Annotated[bytes, Depends(body)]) -> dict[str, Any]:
        pixels = normalize(decoder.decode(image)[None], decoder.manifest.preprocessing)
        with torch.inference_mode():
            return decoder.answer(net(pixels)[0].numpy())

    return app


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_torch")
