"""/v2/repository: the model repository in the Open Inference Protocol's extension for it."""

from fastapi import APIRouter

from service.routes.dependencies import RuntimeDep, protocol_errors
from service.routes.v2 import PREFIX, TAG
from service.schemas_v2 import IndexEntry

router = APIRouter(prefix=f"{PREFIX}/repository", tags=[TAG])


@router.post("/index", responses=protocol_errors())
async def index(runtime: RuntimeDep) -> list[IndexEntry]:
    """Every served model; all of them are ready, so a body that asks for these changes nothing."""
    return [
        IndexEntry(name=model.manifest.name, version=str(model.manifest.version), state="READY")
        for model in runtime.pipeline.models
    ]
