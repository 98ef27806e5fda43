"""POST /classify: images to classes, with attention and similarity on request."""

import time
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from models.manifest import Manifest, Stage
from service import similarity
from service.attention import Selection
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
from service.pipeline import Answer
from service.routes import answers
from service.routes.dependencies import (
    DeadlineDep,
    ModelName,
    ModelVersion,
    WorkingDep,
    problems,
    while_connected,
)
from service.routes.uploads import BODY, read_images
from service.schemas import ClassifyAnswer

router = APIRouter(tags=["classify"])

StageName = Annotated[
    Stage,
    Query(description="maps before the mixing of heads, or what multiplies V (after it)"),
]
Threshold = Annotated[
    float, Query(gt=-1, lt=1, description="a block is similar above this mean cosine")
]


@router.post(
    "/classify",
    response_model=ClassifyAnswer,
    openapi_extra={"requestBody": BODY},
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
async def classify(
    request: Request,
    runtime: WorkingDep,
    deadline: DeadlineDep,
    model: ModelName = None,
    version: ModelVersion = None,
    top_k: Annotated[int, Query(ge=1, le=1000, description="classes in the answer")] = 5,
    attention: Annotated[
        bool, Query(description="add the class token's maps of every block and head")
    ] = False,
    similarity: Annotated[bool, Query(description="add what /similarity answers")] = False,
    stage: StageName = "reattention",
    threshold: Threshold = 0.9,
) -> Response:
    """Classify one image (a raw body) or several (multipart, one part each)."""
    pipeline = runtime.pipeline
    with pipeline.models.use(model, version) as served:
        request.state.model = served.labels
        extras = _Extras(served.manifest, stage, threshold, attention, similarity)
        with pipeline.admit(served, deadline, extras.outputs) as ticket:
            images = await read_images(request, runtime.upload_limits)
            found = await while_connected(request, pipeline.classify(ticket, images))
    results = []
    postprocess_s = 0.0
    for answer in found:
        started = time.perf_counter()
        result = answers.image(answer, served.manifest, top_k) | extras.of(answer)
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

    def __init__(
        self,
        manifest: Manifest,
        stage: Stage,
        threshold: float,
        attention: bool,
        similar: bool,
    ) -> None:
        self._manifest = manifest
        self._stage = stage
        self._threshold = threshold
        self._similar = similar
        self._selection = (
            Selection.parse(
                manifest, stage=stage, layer="all", head="all", query="cls", direction="from"
            )
            if attention
            else None
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        names = self._selection.outputs if self._selection else ()
        if self._similar:
            names += tuple(similarity.outputs(self._manifest, self._stage).values())
        return names

    def of(self, answer: Answer) -> dict[str, object]:
        extras: dict[str, object] = {}
        if self._selection:
            maps = self._selection.cut(answer.outputs)
            extras["attention"] = answers.attention(maps, self._manifest, answer.image.id)
        if self._similar:
            found = similarity.measure(self._manifest, self._stage, self._threshold, answer.outputs)
            extras["similarity"] = answers.similarity(found, self._manifest, answer.image.id)
        return extras
