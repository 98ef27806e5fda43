"""/v2/health: the probes of the Open Inference Protocol, which need no API key."""

from fastapi import APIRouter

from service.errors import NotReady
from service.http.dependencies import RuntimeDep
from service.http.problems import oip_problems
from service.http.routes.v2 import TAG
from service.oip.schemas import PREFIX, Live, Ready

router = APIRouter(prefix=f"{PREFIX}/health", tags=[TAG])


@router.get("/live", responses=oip_problems(NotReady, public=True))
async def server_live(runtime: RuntimeDep) -> Live:
    """What /livez says."""
    if not runtime.alive:
        raise NotReady("a batch thread is dead")
    return Live(live=True)


@router.get("/ready", responses=oip_problems(NotReady, public=True))
async def server_ready(runtime: RuntimeDep) -> Ready:
    """What /readyz says."""
    if not runtime.ready:
        raise NotReady("the server is shutting down, serves no model, or a batch thread is dead")
    return Ready(ready=True)
