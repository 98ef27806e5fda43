"""/v2/repository: the model repository extension of the Open Inference Protocol."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from service.errors import LoadFailed, MalformedUpload, Stopped, UnknownModel, UploadTooLarge
from service.http.bodies import read_body
from service.http.dependencies import RuntimeDep, WorkingDep
from service.http.problems import oip_problems
from service.http.routes.v2 import TAG
from service.oip import metadata
from service.oip.schemas import PREFIX, IndexEntry

_MAX_BODY_BYTES = 64 * 1024

router = APIRouter(prefix=f"{PREFIX}/repository", tags=[TAG])


async def _read_object(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """The JSON object in the body; the body may be missing."""
    body = await read_body(request, _MAX_BODY_BYTES, runtime.upload_limits.timeout_s)
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as exc:
        raise MalformedUpload(f"not JSON: {exc.msg} at byte {exc.pos}") from exc
    if not isinstance(found, dict):
        raise MalformedUpload("the body is not a JSON object")
    return found


Body = Annotated[dict[str, Any], Depends(_read_object)]


@router.post(
    "/index",
    response_model_exclude_defaults=True,  # as Triton leaves out what is empty
    responses=oip_problems(MalformedUpload, UploadTooLarge),
)
async def index(runtime: RuntimeDep, body: Body) -> list[IndexEntry]:
    """Every served version and, unless `ready` is true, the models that are not served."""
    return await metadata.index(runtime.pipeline.models, ready=body.get("ready") is True)


@router.post(
    "/models/{model}/load",
    response_class=Response,
    responses=oip_problems(UnknownModel, LoadFailed, MalformedUpload, UploadTooLarge, Stopped),
)
async def load(runtime: WorkingDep, model: str, body: Body) -> Response:
    """Load the versions that the repository now holds; if that fails, the served ones stay."""
    if body.get("parameters"):
        raise LoadFailed("models are loaded as the repository holds them: send no parameters")
    await runtime.load(model)
    return Response()


@router.post(
    "/models/{model}/unload",
    response_class=Response,
    dependencies=[Depends(_read_object)],
    responses=oip_problems(UnknownModel, MalformedUpload, UploadTooLarge, Stopped),
)
async def unload(runtime: WorkingDep, model: str) -> Response:
    """Stop serving a model; requests that use it are answered first."""
    await runtime.unload(model)
    return Response()
