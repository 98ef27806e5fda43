"""FastAPI and ONNX Runtime without batching, in a plain handler that runs in the thread pool."""

from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, File

from tests.bench.peers.answer import Model, options

given = options()
model = Model(given.folder, given.threads)
model.warm_up()
app = FastAPI()


@app.post("/predict")
def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
    return model.answer(model.logits([model.decode(image)])[0])


uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
