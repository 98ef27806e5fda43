"""POST /classify: images to classes, with attention and similarity on request."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from models.collapse import THRESHOLD
from models.manifest import Manifest, Stage
from service.errors import (
    CorruptImage,
    DeadlineExceeded,
    ImageTooLarge,
    InferenceFailed,
    MalformedUpload,
    NoImage,
    OutOfMemory,
    QueueFull,
    Stopped,
    TooManyImages,
    UnknownModel,
    UnsupportedMedia,
    UploadTooLarge,
)
from service.explain import similarity
from service.explain.selection import Selection
from service.http import answers
from service.http.dependencies import (
    DEADLINE_PARAMETER,
    deadline,
    runtime_of,
    while_connected,
)
from service.http.problems import problems
from service.http.queries import documented, read_query
from service.http.schemas import ClassifyAnswer
from service.http.uploads import BODY, read_images
from service.pipeline import Answer

router = APIRouter(tags=["classify"])

_STAGE = "maps before the mixing of heads, or what multiplies V (after it)"
_THRESHOLD = "a block is similar above this mean cosine"
StageName = Annotated[Stage, Query(description=_STAGE)]
Threshold = Annotated[float, Query(gt=-1, lt=1, description=_THRESHOLD)]


class ClassifyQuery(BaseModel):
    model: str | None = Field(None, description="a served model; the default one if left out")
    version: int | None = Field(
        None, ge=1, description="a served version; the highest one if left out"
    )
    top_k: int = Field(5, ge=1, le=1000, description="classes in the answer")
    attention: bool = Field(False, description="add the class token's maps of every block and head")
    similarity: bool = Field(False, description="add what /similarity answers")
    stage: Stage = Field("reattention", description=_STAGE)
    threshold: float = Field(THRESHOLD, gt=-1, lt=1, description=_THRESHOLD)


@router.post(
    "/classify",
    response_model=ClassifyAnswer,
    openapi_extra={
        "requestBody": BODY,
        "parameters": documented(ClassifyQuery, [DEADLINE_PARAMETER]),
    },
    responses=problems(
        NoImage,
        CorruptImage,
        MalformedUpload,
        UnknownModel,
        UploadTooLarge,
        TooManyImages,
        ImageTooLarge,
        UnsupportedMedia,
        QueueFull,
        InferenceFailed,
        Stopped,
        OutOfMemory,
        DeadlineExceeded,
    ),
)
async def classify(request: Request) -> Response:
    """Classify one image (a raw body) or several (multipart, one part each)."""
    runtime = runtime_of(request)
    runtime.check_working()
    asked = read_query(request, ClassifyQuery)
    late = deadline(request, runtime)
    pipeline = runtime.pipeline
    with pipeline.models.use(asked.model, asked.version) as served:
        request.state.model = served.labels
        extras = _Extras(served.manifest, asked)
        with pipeline.admit(served, late, extras.outputs) as ticket:
            images = await read_images(request, runtime.upload_limits)
            found = await while_connected(request, pipeline.classify(ticket, images))
    results = []
    postprocess_s = 0.0
    for answer in found:
        started = time.perf_counter()
        result = answers.image(answer, served.manifest, asked.top_k) | extras.of(answer)
        spent = time.perf_counter() - started
        postprocess_s += spent
        result["timings_ms"]["postprocess"] = answers.ms(spent)
        results.append(result)
    _tell_stages(request, found, postprocess_s)
    return answers.json_response(
        {"model": served.manifest.name, "version": served.manifest.version, "results": results}
    )


def _tell_stages(request: Request, found: list[Answer], postprocess_s: float) -> None:
    """Where the time went, by the slowest image before the queue and the slowest from there on:
    none is queued before all are prepared."""
    image = max((answer.image for answer in found), key=lambda one: one.decode_s + one.preprocess_s)
    last = max(found, key=lambda answer: answer.queue_s + answer.inference_s)
    request.state.timings_s = {
        "decode": image.decode_s,
        "preprocess": image.preprocess_s,
        "queue": last.queue_s,
        "inference": last.inference_s,
        "postprocess": postprocess_s,
    }
    request.state.ends = {"preprocess": image.ended, "inference": last.ended}


class _Extras:
    """What a request wants besides classes."""

    def __init__(self, manifest: Manifest, asked: ClassifyQuery) -> None:
        self._manifest = manifest
        self._asked = asked
        self._selection = (
            Selection.parse(
                manifest, stage=asked.stage, layer="all", head="all", query="cls", direction="from"
            )
            if asked.attention
            else None
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        names = self._selection.outputs if self._selection else ()
        if self._asked.similarity:
            names += tuple(similarity.outputs(self._manifest, self._asked.stage).values())
        return names

    def of(self, answer: Answer) -> dict[str, object]:
        extras: dict[str, object] = {}
        if self._selection:
            maps = self._selection.cut(answer.outputs)
            extras["attention"] = answers.attention(maps, self._manifest, answer.image.id)
        if self._asked.similarity:
            found = similarity.measure(
                self._manifest, self._asked.stage, self._asked.threshold, answer.outputs
            )
            extras["similarity"] = answers.similarity(found, self._manifest, answer.image.id)
        return extras
