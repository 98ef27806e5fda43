"""GET /similarity: the paper's measures of an image classified before."""

from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from models.collapse import THRESHOLD
from service.explain import similarity as measures
from service.http import answers, pictures
from service.http.conditional import caching, not_modified, tagged
from service.http.dependencies import WorkingDep, use_model
from service.http.look_inside import ERRORS, TAG, LookInsideParameters, answer_tag, explain
from service.http.parameters import Threshold, documented, read_parameters
from service.http.problems import problems
from service.http.schemas import PNG_RESPONSE, SimilarityAnswer

router = APIRouter(tags=[TAG])


class SimilarityParameters(LookInsideParameters):
    threshold: Threshold = THRESHOLD
    format: Literal["json", "png"] = Field(
        "json", description="the measures as JSON, or drawn in one picture"
    )
    variant: Literal["column", "row", "centred", "all"] = Field(
        "all", description="which matrix between blocks is drawn (png)"
    )


@router.get(
    "/similarity",
    response_model=SimilarityAnswer,
    openapi_extra=documented(SimilarityParameters),
    responses=tagged(PNG_RESPONSE) | problems(*ERRORS),
)
async def similarity(request: Request, runtime: WorkingDep) -> Response:
    """How similar blocks, heads and features are, and how many blocks are similar."""
    params = read_parameters(request, SimilarityParameters)
    deadline = runtime.deadline(params.timeout_s)
    with use_model(request, params.model, params.version) as served:
        manifest = served.manifest
        names = tuple(measures.outputs(manifest, params.stage).values())
        pixels = await runtime.pipeline.input(served, params.id)
        tag = answer_tag(served, params)
        if unchanged := not_modified(request, tag):
            return unchanged
        outputs = await explain(request, served, pixels, names, deadline)
    found = measures.measure(manifest, params.stage, params.threshold, outputs)
    if params.format == "json":
        return answers.json_response(answers.similarity(found, manifest, params.id), caching(tag))
    draw = partial(pictures.similarity, found, manifest, params.id, params.variant)
    png = await pictures.drawn(request, runtime, deadline, draw)
    return Response(png, headers=caching(tag), media_type="image/png")
