"""GET /similarity: the paper's measures of an image classified before."""

from collections.abc import Mapping
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field

from models.arrays import Float32Array
from models.collapse import THRESHOLD
from models.manifest import Manifest
from service.explain import similarity as measures
from service.http import answers, pictures
from service.http.conditional import caching, not_modified, tagged
from service.http.dependencies import WorkingDep, use_model
from service.http.look_inside import ERRORS, TAG, LookInsideParameters, answer_tag, explain
from service.http.parameters import Threshold, documented, read_parameters
from service.http.pools import in_pool
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
    pool = runtime.pipeline.pool if params.format == "json" else runtime.render_pool
    build = partial(_answer, manifest, params, outputs, caching(tag))
    return await in_pool(request, pool, deadline, build)


def _answer(
    manifest: Manifest,
    params: SimilarityParameters,
    outputs: Mapping[str, Float32Array],
    headers: Mapping[str, str],
) -> Response:
    found = measures.measure(manifest, params.stage, params.threshold, outputs)
    if params.format == "json":
        return answers.json_response(answers.similarity(found, manifest, params.id), headers)
    png = pictures.similarity(found, manifest, params.id, params.variant)
    return Response(png, headers=dict(headers), media_type="image/png")
