"""GET /livez and /readyz: whether to restart this process, and whether to send it work."""

from fastapi import APIRouter, Response

from service.http.dependencies import RuntimeDep
from service.http.problems import problems
from service.http.schemas import Health
from service.runtime import Runtime

router = APIRouter(tags=["health"])


@router.get(
    "/livez",
    responses=problems(public=True)
    | {503: {"model": Health, "description": "restart this process"}},
)
async def livez(runtime: RuntimeDep, response: Response) -> Health:
    """Every batch thread is alive."""
    return _health(runtime, response, runtime.alive, "alive", "a batch thread is dead")


@router.get(
    "/readyz",
    responses=problems(public=True)
    | {503: {"model": Health, "description": "send work elsewhere"}},
)
async def readyz(runtime: RuntimeDep, response: Response) -> Health:
    """Models are served, all of them loaded and warm, and the process is not shutting down.

    A broken store is shown in `store` and does not change the status: classifying still works.
    """
    return _health(runtime, response, runtime.ready, "ready", "not ready")


def _health(runtime: Runtime, response: Response, well: bool, yes: str, no: str) -> Health:
    response.status_code = 200 if well else 503
    pipeline = runtime.pipeline
    providers = {model.manifest.name: model.provider for model in pipeline.models}
    return Health(status=yes if well else no, models=providers, store=pipeline.store.state)
