"""FastAPI and ONNX Runtime in an async handler: inference blocks the event loop.

Set up as `fastapi_onnx`. FastAPI's documentation advises against it for what blocks; it is here
because many write it, and because nothing is faster for one client.
"""

from typing import Any

from fastapi import FastAPI, Request

from tests.bench.peers.answer import Model
from tests.bench.peers.fastapi_onnx import serve
from tests.bench.peers.given import given


def create_app() -> FastAPI:
    model = Model(given())
    app = FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return model.classify(await request.body())

    return app


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_async_onnx")
