"""/v2/repository: the model repository in the Open Inference Protocol's extension for it."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from service.errors import LoadFailed, MalformedUpload, Stopped, UnknownModel, UploadTooLarge
from service.http.bodies import read_body
from service.http.dependencies import RuntimeDep, WorkingDep
from service.http.problems import protocol_errors
from service.http.routes.v2 import TAG
from service.oip import metadata
from service.oip.schemas import PREFIX, IndexEntry

_MAX_BODY_BYTES = 64 * 1024

router = APIRouter(prefix=f"{PREFIX}/repository", tags=[TAG])


async def _read_object(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """The JSON of a body that may as well be missing."""
    body = await read_body(request, _MAX_BODY_BYTES, runtime.upload_limits.timeout_s)
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as exc:
        raise MalformedUpload(f"not JSON: {exc.msg} at byte {exc.pos}") from exc
    if not isinstance(found, dict):
        raise MalformedUpload("the body is not a JSON object")
    return found


Body = Annotated[dict[str, Any], Depends(_read_object)]


@router.post("/index", responses=protocol_errors(MalformedUpload, UploadTooLarge))
async def index(runtime: RuntimeDep, body: Body) -> list[IndexEntry]:
    """Every served version and, unless only `ready` ones are wanted, what else the folder holds."""
    return metadata.index(runtime.pipeline.models, ready=body.get("ready") is True)


@router.post(
    "/models/{model}/load",
    response_class=Response,
    responses=protocol_errors(UnknownModel, LoadFailed, MalformedUpload, UploadTooLarge, Stopped),
)
async def load(runtime: WorkingDep, model: str, body: Body) -> Response:
    """Serve what the repository now holds of a model; what it serves stays if that fails."""
    if body.get("parameters"):
        raise LoadFailed("models are loaded as the repository holds them: send no parameters")
    await runtime.pipeline.models.load(model)
    return Response()


@router.post(
    "/models/{model}/unload",
    response_class=Response,
    dependencies=[Depends(_read_object)],
    responses=protocol_errors(UnknownModel, MalformedUpload, UploadTooLarge, Stopped),
)
async def unload(runtime: WorkingDep, model: str) -> Response:
    """Serve a model no more; requests that have it are answered first."""
    await runtime.pipeline.models.unload(model)
    return Response()
