"""/v2: the Open Inference Protocol (KServe, Triton), served from the same queues as /classify."""

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from models.arrays import Float32Array
from service.errors import (
    AnswersUnread,
    AnswerTooLarge,
    CrossOrigin,
    DeadlineExceeded,
    EngineUnavailable,
    InferenceFailed,
    InvalidInference,
    InvalidRequest,
    MalformedUpload,
    NotReady,
    QueueFull,
    Stopped,
    UnknownModel,
    UnsupportedEncoding,
    UploadsFull,
    UploadTooLarge,
)
from service.http.bodies import read_body, receiving
from service.http.dependencies import RuntimeDep, WorkingDep, runtime_of, use_model
from service.http.disconnects import while_connected
from service.http.parameters import DeadlineParameters, documented, read_parameters
from service.http.problems import oip_problems
from service.http.schemas import BINARY
from service.http.specification import reference
from service.http.stages import note_inference
from service.http.unsent import expect_answer
from service.inference.served import ServedModel
from service.limits.inflight import Upload
from service.oip import compression, metadata, rest
from service.oip.inference import InferRequest, version_number
from service.oip.schemas import (
    PREFIX,
    InferRequestBody,
    InferResponse,
    ModelMetadata,
    ModelReady,
    ServerMetadata,
    StatisticsResponse,
)
from service.runtime import UploadLimits

TAG = "open inference protocol"
LENGTH_HEADER = "Inference-Header-Content-Length"
_MIN_COMPRESSED_BYTES = 1024  # smaller answers fit one packet uncompressed
_REQUEST = {
    "required": True,
    "content": {
        "application/json": {"schema": reference(InferRequestBody)},
        "application/octet-stream": BINARY,
    },
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/octet-stream": BINARY},
        "headers": {
            LENGTH_HEADER: {
                "description": "bytes of JSON before the binary tensors",
                "schema": {"type": "integer"},
            }
        },
    }
}


async def _served(request: Request, model: Annotated[str, Path()]) -> AsyncIterator[ServedModel]:
    """The version that the path names; it stays loaded until the request is answered."""
    version: str | None = request.path_params.get("version")
    number = None if version is None else version_number(model, version)
    with use_model(request, model, number) as served:
        yield served


async def _version(version: Annotated[str, Path()]) -> None:
    """Declares the version in a path to OpenAPI; `_served` reads it."""


Served = Annotated[ServedModel, Depends(_served)]


router = APIRouter(prefix=PREFIX, tags=[TAG])
_of_model = APIRouter()  # included twice below: without a version in the path and with one


@router.get("", responses=oip_problems())
async def server_metadata() -> ServerMetadata:
    """Name, version and the supported extensions of the protocol."""
    return metadata.server("binary_tensor_data")


@router.get("/models/stats", responses=oip_problems())
async def all_statistics(runtime: RuntimeDep) -> StatisticsResponse:
    """Statistics of every model."""
    models = runtime.pipeline.models
    return StatisticsResponse(model_stats=[metadata.statistics(served) for served in models])


@_of_model.get("", responses=oip_problems(UnknownModel))
async def model_metadata(runtime: RuntimeDep, served: Served) -> ModelMetadata:
    """The input, and the output of a request that names none; the configuration has all."""
    versions = runtime.pipeline.models.served_versions(served.manifest.name)
    return metadata.model(served, versions)


@_of_model.get("/ready", responses=oip_problems(UnknownModel, NotReady))
async def model_ready(runtime: RuntimeDep, served: Served) -> ModelReady:
    """Whether the model answers requests."""
    if runtime.draining or not served.alive:
        raise NotReady(f"{served.manifest.name} takes no requests")
    return ModelReady(name=served.manifest.name, ready=True)


@_of_model.get("/config", responses=oip_problems(UnknownModel))
async def model_config(runtime: RuntimeDep, served: Served) -> dict[str, Any]:
    """Triton's model configuration, with every output that may be requested."""
    return metadata.config(served, runtime.pipeline.models, runtime.upload_limits.max_images)


@_of_model.get("/stats", responses=oip_problems(UnknownModel))
async def model_statistics(served: Served) -> StatisticsResponse:
    """Statistics of one model."""
    return StatisticsResponse(model_stats=[metadata.statistics(served)])


@_of_model.post(
    "/infer",
    response_model=InferResponse,
    openapi_extra={"requestBody": _REQUEST} | documented(DeadlineParameters),
    responses=_ANSWER
    | oip_problems(
        CrossOrigin,
        UnknownModel,
        InvalidInference,
        MalformedUpload,
        UploadTooLarge,
        UnsupportedEncoding,
        AnswerTooLarge,
        QueueFull,
        UploadsFull,
        AnswersUnread,
        InferenceFailed,
        EngineUnavailable,
        Stopped,
        DeadlineExceeded,
        InvalidRequest,
    ),
)
async def infer(request: Request, runtime: WorkingDep, served: Served) -> Response:
    """Tensors in, tensors out; JSON or binary, gzip or deflate."""
    deadline = runtime.deadline(read_parameters(request, DeadlineParameters).timeout_s)
    limits = runtime.upload_limits
    contract = metadata.contract(served, limits.max_images)
    pipeline = runtime.pipeline
    pipeline.check_room(served)  # only the body says which queue the request needs
    with receiving(request, limits.max_bytes) as upload:
        content = await _read_content(request, upload, limits, deadline)
        decode = partial(rest.decode, content, request.headers.get(LENGTH_HEADER), contract)
        wanted = await pipeline.in_pool(deadline, decode)
        del content, decode
        upload.keep(wanted.images.nbytes)
        wanted.check_response_size(contract, runtime.max_answer_bytes)
        expect_answer(request, wanted.response_bytes(contract))
        with pipeline.admit(served, deadline, wanted.explain_outputs) as ticket:
            done = await while_connected(request, pipeline.infer(ticket, wanted.images))
    note_inference(request, done)
    answers = [one.value for one in done]
    build = partial(_answer, request, served, wanted, answers)
    return await pipeline.in_pool(deadline, build)


async def _read_content(
    request: Request, upload: Upload, limits: UploadLimits, deadline: float
) -> bytes:
    """The body without its content encoding."""
    body = await read_body(request, upload, limits.max_bytes, limits.timeout_s)
    encoding = request.headers.get("content-encoding", "")
    if not encoding:
        return body
    decompress = partial(compression.decompress, body, encoding, limits.max_bytes)
    content = await runtime_of(request).pipeline.in_pool(deadline, decompress)
    upload.keep(0)
    upload.grow(len(content))
    return content


def _answer(
    request: Request,
    served: ServedModel,
    wanted: InferRequest,
    answers: Sequence[Mapping[str, Float32Array]],
) -> Response:
    manifest = served.manifest
    encoded = rest.encode(
        wanted, answers, model=manifest.name, version=manifest.version, labels=manifest.labels
    )
    body, headers, media_type = encoded.body, {"Vary": "Accept-Encoding"}, "application/json"
    if encoded.json_length is not None:
        headers[LENGTH_HEADER] = str(encoded.json_length)
        media_type = "application/octet-stream"
    chosen = compression.choose(request.headers.get("accept-encoding", ""))
    if chosen and len(body) >= _MIN_COMPRESSED_BYTES:
        body = compression.compress(body, chosen)
        headers["Content-Encoding"] = chosen
    return Response(body, headers=headers, media_type=media_type)


router.include_router(_of_model, prefix="/models/{model}")
router.include_router(
    _of_model,
    prefix="/models/{model}/versions/{version}",
    dependencies=[Depends(_version)],
)
