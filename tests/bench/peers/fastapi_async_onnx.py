"""FastAPI and ONNX Runtime in an async handler with a raw body: inference blocks the loop."""

from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from tests.bench.peers.answer import Model, options

given = options()
model = Model(given.folder, given.threads)
model.warm_up()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> dict[str, Any]:
    return model.answer(model.logits([model.decode(await request.body())])[0])


uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")
