"""Request bodies to the bytes of one or more images, within the limits."""

from fastapi import Request

from service.errors import NoImage, UnsupportedMedia
from service.http.bodies import body_timeout, limited_chunks, read_body
from service.http.forms import read_form
from service.http.schemas import BINARY
from service.limits.inflight import Upload
from service.runtime import UploadLimits

# The request body in OpenAPI.
BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["image"],
                "properties": {
                    "image": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "one or more image files; the part's name does not matter",
                    }
                },
            }
        },
        "image/*": BINARY,
        "application/octet-stream": BINARY,
    },
}


async def read_images(request: Request, upload: Upload, limits: UploadLimits) -> list[bytes]:
    """The bytes of each image in a request.

    Raises `UploadTooLarge`, `UploadsFull`, `RequestTimeout`, `TooManyImages`, `NoImage`,
    `MalformedUpload` or `UnsupportedMedia`.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        async with body_timeout(limits.timeout_s):
            chunks = limited_chunks(request, upload, limits.max_bytes)
            images = await read_form(request.headers["content-type"], chunks, limits.max_images)
        upload.complete()
        if not images:
            raise NoImage("the form has no file; with curl: -F image=@FILE")
        return images
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        data = await read_body(request, upload, limits.max_bytes, limits.timeout_s)
        if not data:
            raise NoImage("the request body is empty")
        return [data]
    raise UnsupportedMedia(
        f"content type {media_type[:60] or 'missing'}: send multipart/form-data (curl -F "
        "image=@FILE) or the bytes of one image as image/* (curl -H 'Content-Type: image/jpeg' "
        "--data-binary @FILE)"
    )
