"""POST /classify: images to classes, with attention and similarity on request."""

import math
import time
from collections.abc import Sequence
from functools import partial

from fastapi import APIRouter, Request, Response
from pydantic import Field

from models.collapse import THRESHOLD
from models.manifest import Manifest
from service.errors import (
    AnswersUnread,
    AnswerTooLarge,
    CorruptImage,
    CrossOrigin,
    DeadlineExceeded,
    EngineUnavailable,
    ImageTooCostly,
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
    UploadsFull,
    UploadTooLarge,
)
from service.explain import similarity
from service.explain.selection import Selection
from service.http import answers
from service.http.bodies import receiving
from service.http.dependencies import use_model, working_runtime_of
from service.http.disconnects import while_connected
from service.http.parameters import (
    DeadlineParameters,
    ModelName,
    ModelVersion,
    StageName,
    Threshold,
    documented,
    read_parameters,
)
from service.http.pools import in_pool
from service.http.problems import problems
from service.http.schemas import ClassifyAnswer
from service.http.stages import note_classification
from service.http.unsent import expect_answer
from service.http.uploads import BODY, read_images
from service.json_arrays import BYTES_PER_NUMBER
from service.pipeline import Classification

router = APIRouter(tags=["classify"])


class ClassifyParameters(DeadlineParameters):
    model: ModelName = None
    version: ModelVersion = None
    top_k: int = Field(5, ge=1, le=1000, description="classes in the answer")
    attention: bool = Field(
        False,
        description="add the maps of every block and head for the class token, or for the patch in "
        "the middle where there is no class token",
    )
    similarity: bool = Field(False, description="add what /similarity answers")
    stage: StageName = "reattention"
    threshold: Threshold = THRESHOLD


@router.post(
    "/classify",
    response_model=ClassifyAnswer,
    openapi_extra={"requestBody": BODY} | documented(ClassifyParameters),
    responses=problems(
        NoImage,
        CorruptImage,
        MalformedUpload,
        CrossOrigin,
        UnknownModel,
        UploadTooLarge,
        TooManyImages,
        ImageTooLarge,
        ImageTooCostly,
        UnsupportedMedia,
        AnswerTooLarge,
        QueueFull,
        UploadsFull,
        AnswersUnread,
        InferenceFailed,
        EngineUnavailable,
        Stopped,
        OutOfMemory,
        DeadlineExceeded,
    ),
)
async def classify(request: Request) -> Response:
    """Classify one image (a raw body) or several (multipart, one part each)."""
    runtime = working_runtime_of(request)  # called directly, which is faster than a dependency
    params = read_parameters(request, ClassifyParameters)
    deadline = runtime.deadline(params.timeout_s)
    pipeline = runtime.pipeline
    with use_model(request, params.model, params.version) as served:
        manifest = served.manifest
        extras = _Extras(manifest, params)
        pipeline.check_room(served, extras.outputs)
        limits = runtime.upload_limits
        with receiving(request, limits.max_bytes) as upload:
            images = await read_images(request, upload, limits)
            expect_answer(request, extras.checked_size(len(images), runtime.max_answer_bytes))

            def forget_upload() -> None:
                images.clear()
                upload.keep(0)

            with pipeline.admit(served, deadline, extras.outputs) as ticket:
                classifying = pipeline.classify(ticket, images, decoded=forget_upload)
                classified = await while_connected(request, classifying)
    root_path = request.scope["root_path"]
    build = partial(_answer, manifest, params, extras, classified, root_path)
    if extras.outputs or len(classified) > 1:
        response, postprocess_s = await in_pool(request, pipeline.pool, deadline, build)
    else:  # handing so little to a thread would take longer
        response, postprocess_s = build()
    note_classification(request, classified, postprocess_s)
    return response


def _answer(
    manifest: Manifest,
    params: ClassifyParameters,
    extras: "_Extras",
    classified: Sequence[Classification],
    root_path: str,
) -> tuple[Response, float]:
    """The answer, and the seconds that its results took."""
    results = []
    postprocess_s = 0.0
    for one in classified:
        started = time.perf_counter()
        result = answers.image(one, manifest, params.top_k, root_path) | extras.fields(one)
        spent_s = time.perf_counter() - started
        postprocess_s += spent_s
        result["timings_ms"]["postprocess"] = answers.ms(spent_s)
        results.append(result)
    content = {
        "model": manifest.name,
        "version": manifest.version,
        "scores": manifest.config.scores,
        "results": results,
    }
    return answers.json_response(content), postprocess_s


class _Extras:
    """The optional parts of the answer for an image: attention maps and similarity."""

    def __init__(self, manifest: Manifest, params: ClassifyParameters) -> None:
        self._manifest = manifest
        self._params = params
        self._selection = (
            Selection.parse(
                manifest, stage=params.stage, layer="all", head="all", query=None, direction="from"
            )
            if params.attention
            else None
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Outputs of the explain graph that these parts are made from."""
        names = self._selection.outputs if self._selection else ()
        if self._params.similarity:
            names += tuple(similarity.outputs(self._manifest, self._params.stage).values())
        return names

    def checked_size(self, images: int, max_bytes: int) -> int:
        """The bytes of these parts, about; without them no answer is large.

        Raises `AnswerTooLarge`.
        """
        numbers = math.prod(self._selection.shape) if self._selection else 0
        if self._params.similarity:
            numbers += similarity.numbers(self._manifest, self._params.stage)
        smaller = "send fewer images in one request, or ask for less about them"
        length = images * numbers * BYTES_PER_NUMBER
        AnswerTooLarge.check(length, max_bytes, smaller)
        return length

    def fields(self, classified: Classification) -> dict[str, object]:
        fields: dict[str, object] = {}
        image_id = classified.id
        if self._selection:
            maps = self._selection.cut(classified.outputs)
            fields["attention"] = answers.attention(maps, self._manifest, image_id)
        if self._params.similarity:
            found = similarity.measure(
                self._manifest, self._params.stage, self._params.threshold, classified.outputs
            )
            fields["similarity"] = answers.similarity(found, self._manifest, image_id)
        return fields
