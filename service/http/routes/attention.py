"""GET /attention-maps: any part of the maps of an image classified before."""

import io
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request, Response

from service.errors import (
    AnswerTooLarge,
    DeadlineExceeded,
    ExpiredImage,
    InferenceFailed,
    InputMismatch,
    InvalidSelection,
    QueueFull,
    Stopped,
    StoreUnavailable,
    UnknownImage,
    UnknownModel,
)
from service.explain.render import Scale
from service.explain.selection import Direction, Selection
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
from service.http.routes.classify import StageName
from service.http.schemas import AttentionMapsAnswer

router = APIRouter(tags=["look inside"])

Format = Literal["json", "npy", "npz", "png"]
ImageId = Annotated[str, Query(pattern="^[0-9a-f]{32}$", description="from /classify")]

_FACTS_HEADER = "X-Attention-Maps"
_BYTES_PER_VALUE = {"json": 14, "npy": 4, "npz": 4, "png": 4}


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_OTHER_FORMATS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/x-npy": _BINARY,
            "application/x-npz": _BINARY,
            "image/png": _BINARY,
        },
        "headers": {
            _FACTS_HEADER: {
                "description": "the JSON answer without its values, beside the other formats",
                "schema": {"type": "string"},
            }
        },
    }
}


@router.get(
    "/attention-maps",
    response_model=AttentionMapsAnswer,
    responses=_OTHER_FORMATS
    | problems(
        UnknownModel,
        UnknownImage,
        ExpiredImage,
        InputMismatch,
        InvalidSelection,
        AnswerTooLarge,
        QueueFull,
        InferenceFailed,
        Stopped,
        DeadlineExceeded,
        StoreUnavailable,
    ),
)
async def attention_maps(
    request: Request,
    runtime: WorkingDep,
    deadline: DeadlineDep,
    id: ImageId,
    model: ModelName = None,
    version: ModelVersion = None,
    layer: Annotated[
        str, Query(description="a block, several with commas, all, or rollout (softmax stage)")
    ] = "all",
    head: Annotated[
        str, Query(description="a head, several with commas, all, or mean, max, max_abs, rms")
    ] = "mean",
    query: Annotated[str, Query(description="cls, a patch as row,column, or all")] = "cls",
    direction: Annotated[
        Direction, Query(description="what the query looks at, or what looks at it")
    ] = "from",
    stage: StageName = "reattention",
    format: Annotated[Format, Query(description="json, NumPy's npy or npz, or a picture")] = "json",
    overlay: Annotated[
        bool, Query(description="draw over what the model saw (png, one query)")
    ] = False,
    scale: Annotated[
        Scale, Query(description="what has a scale of its own (png): each map, each block, or all")
    ] = "all",
) -> Response:
    """Attention maps by layer, head, query and stage."""
    pipeline = runtime.pipeline
    with pipeline.models.use(model, version) as served:
        request.state.model = served.labels
        manifest = served.manifest
        selection = Selection.parse(
            manifest, stage=stage, layer=layer, head=head, query=query, direction=direction
        )
        _check_size(selection, format, runtime.max_answer_bytes)
        pixels = await pipeline.input(served, id)
        with pipeline.admit(served, deadline, selection.outputs) as ticket:
            done = await while_connected(request, pipeline.explain(ticket, pixels))
    tell_run(request, [done])
    maps = selection.cut(done.value)
    if format == "json":
        return answers.json_response(answers.attention(maps, manifest, id))
    facts = answers.attention_facts(maps, manifest, id)
    headers = {_FACTS_HEADER: orjson.dumps(facts).decode()}
    if format == "png":
        draw = partial(pictures.attention, maps, manifest, id, scale, pixels if overlay else None)
        png = await pictures.drawn(request, runtime, deadline, draw)
        return Response(png, media_type="image/png", headers=headers)
    body = io.BytesIO()
    if format == "npy":
        np.save(body, maps.values)
    else:
        np.savez(body, maps=maps.values, input=pixels, facts=np.array(headers[_FACTS_HEADER]))
    return Response(body.getvalue(), media_type=f"application/x-{format}", headers=headers)


def _check_size(selection: Selection, format: Format, max_answer_bytes: int) -> None:
    size = int(np.prod(selection.shape)) * _BYTES_PER_VALUE[format]
    if size > max_answer_bytes:
        smaller = ", or format=npy" if format == "json" else ""
        raise AnswerTooLarge(
            f"about {size:,} bytes, and at most {max_answer_bytes:,} are sent; ask for fewer "
            f"layers, heads or queries{smaller}"
        )
