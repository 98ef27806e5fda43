"""FastAPI and PyTorch without batching, as in most tutorials."""

from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, File

from export.verify import normalize
from tests.bench.contenders import network
from tests.bench.peers.answer import Model, options

given = options()
model = Model(given.folder, given.threads)  # for its labels and preprocessing
torch.set_num_threads(given.threads)
net = network(model.manifest.name)
app = FastAPI()


@app.post("/predict")
def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
    pixels = normalize(model.decode(image)[None], model.manifest.preprocessing)
    with torch.inference_mode():
        return model.answer(net(pixels)[0].numpy())


uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
