"""/v2/repository: the model repository extension of the Open Inference Protocol."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from service.errors import (
    CrossOrigin,
    LoadFailed,
    MalformedUpload,
    ModelControlOff,
    Stopped,
    UnknownModel,
    UploadsFull,
    UploadTooLarge,
)
from service.http.bodies import read_body, receiving
from service.http.dependencies import RuntimeDep
from service.http.problems import oip_problems
from service.http.routes.v2 import TAG
from service.oip import metadata
from service.oip.schemas import PREFIX, IndexEntry

_MAX_BODY_BYTES = 64 * 1024

_PREFIX = f"{PREFIX}/repository"


async def _check_control(runtime: RuntimeDep) -> None:
    runtime.check_model_control()


router = APIRouter(prefix=_PREFIX, tags=[TAG])
# Loads and unloads models. Refusals come before the body is read.
control = APIRouter(prefix=_PREFIX, tags=[TAG], dependencies=[Depends(_check_control)])


async def _read_object(request: Request, runtime: RuntimeDep) -> dict[str, Any]:
    """The JSON object in the body; the body may be missing."""
    with receiving(request, _MAX_BODY_BYTES) as upload:
        timeout_s = runtime.upload_limits.timeout_s
        body = await read_body(request, upload, _MAX_BODY_BYTES, timeout_s)
    try:
        found = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as exc:
        raise MalformedUpload(f"not JSON: {exc.msg} at byte {exc.pos}") from exc
    if not isinstance(found, dict):
        raise MalformedUpload("the body is not a JSON object")
    return found


Body = Annotated[dict[str, Any], Depends(_read_object)]
_CONTROL_ERRORS = (
    CrossOrigin,
    ModelControlOff,
    UnknownModel,
    MalformedUpload,
    UploadTooLarge,
    UploadsFull,
    Stopped,
)


@router.post(
    "/index",
    response_model_exclude_defaults=True,  # as Triton leaves out what is empty
    responses=oip_problems(CrossOrigin, MalformedUpload, UploadTooLarge, UploadsFull),
)
async def index(runtime: RuntimeDep, body: Body) -> list[IndexEntry]:
    """Every served version and, unless `ready` is true, the models that are not served."""
    return await metadata.index(runtime.pipeline.models, ready=body.get("ready") is True)


@control.post(
    "/models/{model}/load",
    response_class=Response,
    responses=oip_problems(LoadFailed, *_CONTROL_ERRORS),
)
async def load(runtime: RuntimeDep, model: str, body: Body) -> Response:
    """Load the versions that the repository now holds; if that fails, the served ones stay."""
    if body.get("parameters"):
        raise LoadFailed("models are loaded as the repository holds them: send no parameters")
    await runtime.load(model)
    return Response()


@control.post(
    "/models/{model}/unload",
    response_class=Response,
    dependencies=[Depends(_read_object)],
    responses=oip_problems(*_CONTROL_ERRORS),
)
async def unload(runtime: RuntimeDep, model: str) -> Response:
    """Stop serving a model; requests that use it are answered first."""
    await runtime.unload(model)
    return Response()
