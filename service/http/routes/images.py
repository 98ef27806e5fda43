"""GET /images/{id}: exactly what the model saw of an image classified before."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from service.errors import ExpiredImage, Stopped, StoreUnavailable, UnknownImage
from service.http.dependencies import WorkingDep
from service.http.problems import problems
from service.imaging import encode_png

router = APIRouter(prefix="/images", tags=["look inside"])

_PNG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get(
    "/{id}",
    response_class=Response,
    responses=_PNG | problems(UnknownImage, ExpiredImage, Stopped, StoreUnavailable),
)
async def show_image(
    runtime: WorkingDep,
    id: Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="from /classify")],
) -> Response:
    """The resized and cropped pixels that went into the network, as a lossless PNG."""
    pixels = await runtime.pipeline.store.get(id)
    loop = asyncio.get_running_loop()
    png = await loop.run_in_executor(runtime.pipeline.pool, encode_png, pixels)
    return Response(png, media_type="image/png")
