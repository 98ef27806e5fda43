"""GET /similarity: the paper's measures of an image classified before."""

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from models.collapse import THRESHOLD
from service.errors import (
    DeadlineExceeded,
    ExpiredImage,
    InferenceFailed,
    InputMismatch,
    QueueFull,
    Stopped,
    StoreUnavailable,
    UnknownImage,
    UnknownModel,
)
from service.explain import similarity as measures
from service.http import answers, pictures
from service.http.dependencies import (
    DeadlineDep,
    ModelName,
    ModelVersion,
    WorkingDep,
    tell_run,
    while_connected,
)
from service.http.problems import problems
from service.http.routes.attention import ImageId
from service.http.routes.classify import StageName, Threshold
from service.http.schemas import SimilarityAnswer

router = APIRouter(tags=["look inside"])

Variant = Literal["column", "row", "centred", "all"]

_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get(
    "/similarity",
    response_model=SimilarityAnswer,
    responses=_PICTURE
    | problems(
        UnknownModel,
        UnknownImage,
        ExpiredImage,
        InputMismatch,
        QueueFull,
        InferenceFailed,
        Stopped,
        DeadlineExceeded,
        StoreUnavailable,
    ),
)
async def similarity(
    request: Request,
    runtime: WorkingDep,
    deadline: DeadlineDep,
    id: ImageId,
    model: ModelName = None,
    version: ModelVersion = None,
    stage: StageName = "reattention",
    threshold: Threshold = THRESHOLD,
    format: Annotated[
        Literal["json", "png"], Query(description="numbers, or all of them in one picture")
    ] = "json",
    variant: Annotated[
        Variant, Query(description="the matrix between blocks that is drawn (png)")
    ] = "all",
) -> Response:
    """How alike blocks, heads and features are, with the count of similar blocks."""
    pipeline = runtime.pipeline
    with pipeline.models.use(model, version) as served:
        request.state.model = served.labels
        names = measures.outputs(served.manifest, stage)
        pixels = await pipeline.input(served, id)
        with pipeline.admit(served, deadline, tuple(names.values())) as ticket:
            done = await while_connected(request, pipeline.explain(ticket, pixels))
    tell_run(request, [done])
    found = measures.measure(served.manifest, stage, threshold, done.value)
    if format == "png":
        draw = partial(pictures.similarity, found, served.manifest, id, variant)
        png = await pictures.drawn(request, runtime, deadline, draw)
        return Response(png, media_type="image/png")
    return answers.json_response(answers.similarity(found, served.manifest, id))
