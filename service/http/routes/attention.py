"""GET /attention-maps: any part of the maps of an image classified before."""

import io
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from models.arrays import Float32Array, Pixels
from service.errors import AnswerTooLarge, InvalidSelection
from service.explain.selection import Direction, Selection
from service.http import answers, pictures
from service.http.conditional import caching, not_modified, tagged
from service.http.dependencies import WorkingDep, use_model
from service.http.look_inside import ERRORS, TAG, LookInsideParameters, answer_tag, explain
from service.http.parameters import documented, read_parameters
from service.http.pools import in_pool
from service.http.problems import problems
from service.http.schemas import BINARY, AttentionMapsAnswer
from service.http.unsent import expect_answer
from service.json_arrays import BYTES_PER_NUMBER

router = APIRouter(tags=[TAG])

Format = Literal["json", "npy", "npz", "png"]

FACTS_HEADER = "X-Attention-Maps"
_BYTES_PER_VALUE = {"json": BYTES_PER_NUMBER, "npy": 4, "npz": 4, "png": 4}
_OTHER_FORMATS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"application/x-npy": BINARY, "application/x-npz": BINARY, "image/png": BINARY},
        "headers": {
            FACTS_HEADER: {
                "description": "the JSON answer without its values; sent with the other formats",
                "schema": {"type": "string"},
            }
        },
    }
}


class AttentionMapsParameters(LookInsideParameters):
    layer: str = Field(
        "all", description="a block, several separated by commas, all, or rollout (softmax stage)"
    )
    head: str = Field(
        "mean", description="a head, several separated by commas, all, or mean, max, max_abs, rms"
    )
    query: str | None = Field(
        None,
        description="the token that asks: cls, a patch as row,column, or all; by default cls, or "
        "the patch in the middle where there is no class token",
    )
    direction: Direction = Field(
        "from", description="from: what the query attends to; to: what attends to the query"
    )
    format: Format = Field("json", description="json, NumPy's npy or npz, or a picture")
    overlay: bool = Field(False, description="draw over the model's input (png, one query)")
    scale: Literal["map", "block", "all"] = Field(
        "all",
        description="what has its own colour scale (png): each map, each block, or all together",
    )


@router.get(
    "/attention-maps",
    response_model=AttentionMapsAnswer,
    openapi_extra=documented(AttentionMapsParameters),
    responses=tagged(_OTHER_FORMATS) | problems(*ERRORS, InvalidSelection, AnswerTooLarge),
)
async def attention_maps(request: Request, runtime: WorkingDep) -> Response:
    """Attention maps by layer, head, query and stage."""
    params = read_parameters(request, AttentionMapsParameters)
    deadline = runtime.deadline(params.timeout_s)
    with use_model(request, params.model, params.version) as served:
        selection = Selection.parse(
            served.manifest,
            stage=params.stage,
            layer=params.layer,
            head=params.head,
            query=params.query,
            direction=params.direction,
        )
        size = _checked_size(selection, params, runtime.max_answer_bytes)
        pixels = await runtime.pipeline.input(served, params.id)
        tag = answer_tag(served, params)
        if unchanged := not_modified(request, tag):
            return unchanged
        expect_answer(request, size)
        outputs = await explain(request, served, pixels, selection.outputs, deadline)
    pool = runtime.render_pool if params.format == "png" else runtime.pipeline.pool
    build = partial(_answer, selection, params, outputs, pixels, caching(tag))
    return await in_pool(request, pool, deadline, build)


def _checked_size(
    selection: Selection, params: AttentionMapsParameters, max_answer_bytes: int
) -> int:
    """The bytes of the answer, about. Raises `AnswerTooLarge`."""
    smaller = "ask for fewer layers, heads or queries"
    if params.format == "json":
        smaller += ", or format=npy"
    length = math.prod(selection.shape) * _BYTES_PER_VALUE[params.format]
    AnswerTooLarge.check(length, max_answer_bytes, smaller)
    if params.format == "png":
        pictures.check_attention(selection, params.scale, params.overlay)
    return length


def _answer(
    selection: Selection,
    params: AttentionMapsParameters,
    outputs: Mapping[str, Float32Array],
    pixels: Pixels,
    headers: Mapping[str, str],
) -> Response:
    """The selected values of the explain outputs for one input, in the format asked for."""
    manifest = selection.manifest
    maps = selection.cut(outputs)
    if params.format == "json":
        return answers.json_response(answers.attention(maps, manifest, params.id), headers)
    facts = orjson.dumps(answers.attention_facts(maps, manifest, params.id)).decode()
    headers = {FACTS_HEADER: facts, **headers}
    if params.format == "png":
        background = pixels if params.overlay else None
        png = pictures.attention(maps, manifest, params.id, params.scale, background)
        return Response(png, media_type="image/png", headers=headers)
    body = io.BytesIO()
    if params.format == "npy":
        np.save(body, maps.values)
    else:
        np.savez(body, maps=maps.values, input=pixels, facts=np.array(facts))
    return Response(body.getvalue(), media_type=f"application/x-{params.format}", headers=headers)
