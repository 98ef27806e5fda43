"""FastAPI and ONNX Runtime in a plain handler, which FastAPI runs in its thread pool.

Set up by https://fastapi.tiangolo.com/deployment/server-workers (worker processes, so that several
cores are used) and https://fastapi.tiangolo.com/async (plain handlers for what blocks), with
Uvicorn's `standard` extra (uvloop, httptools).
"""

from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request

from tests.bench.peers.answer import Model
from tests.bench.peers.given import given

_START_S = 120


async def body(request: Request) -> bytes:
    return await request.body()


def create_app() -> FastAPI:
    model = Model(given())
    app = FastAPI()

    @app.post("/predict")
    def predict(image: Annotated[bytes, Depends(body)]) -> dict[str, Any]:
        return model.classify(image)

    return app


def serve(module: str) -> None:
    """Run the application that the module's `create_app` makes, in as many processes as given."""
    uvicorn.run(
        f"{module}:create_app",
        factory=True,
        host="127.0.0.1",
        port=given().port,
        workers=given().setup.workers,
        timeout_worker_healthcheck=_START_S,  # or one that imports PyTorch is started over and over
        log_level="warning",
    )


if __name__ == "__main__":
    serve("tests.bench.peers.fastapi_onnx")
