"""GET /images/{id}: the pixels that the model saw of an image classified before."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from service.errors import DeadlineExceeded, ExpiredImage, Stopped, StoreUnavailable, UnknownImage
from service.http.conditional import caching, entity_tag, not_modified, tagged
from service.http.dependencies import WorkingDep
from service.http.look_inside import TAG, ImageId
from service.http.problems import problems
from service.http.schemas import PNG_RESPONSE
from service.imaging.decoder import encode_png

router = APIRouter(prefix="/images", tags=[TAG])


@router.get(
    "/{id}",
    response_class=Response,
    responses=tagged(PNG_RESPONSE)
    | problems(UnknownImage, ExpiredImage, Stopped, StoreUnavailable, DeadlineExceeded),
)
async def show_image(
    request: Request,
    runtime: WorkingDep,
    id: Annotated[ImageId, Path(description="the id of a classified image, from /classify")],
) -> Response:
    """The resized and cropped pixels that went into the network, as a lossless PNG."""
    pixels = await runtime.pipeline.store.get(id)
    tag = entity_tag("image", id)
    if unchanged := not_modified(request, tag):
        return unchanged
    png = await runtime.pipeline.in_pool(runtime.deadline(), partial(encode_png, pixels))
    return Response(png, headers=caching(tag), media_type="image/png")
