"""Request bodies to the bytes of one or more images, within the limits."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import (
    MalformedUpload,
    NoImage,
    ServiceError,
    TooManyImages,
    UnsupportedMedia,
)
from service.http.bodies import body_timeout, check_declared_length, limited_chunks, read_body
from service.http.schemas import BINARY
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


async def read_images(request: Request, limits: UploadLimits) -> list[bytes]:
    """The bytes of each image in a request.

    Raises `UploadTooLarge`, `RequestTimeout`, `TooManyImages`, `NoImage`, `MalformedUpload` or
    `UnsupportedMedia`.
    """
    check_declared_length(request, limits.max_bytes)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return await _read_parts(request, limits)
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        data = await read_body(request, limits.max_bytes, limits.timeout_s)
        if not data:
            raise NoImage("the request body is empty")
        return [data]
    raise UnsupportedMedia(
        f"content type {media_type[:60] or 'missing'}: send multipart/form-data (curl -F "
        "image=@FILE) or the bytes of one image as image/* (curl -H 'Content-Type: image/jpeg' "
        "--data-binary @FILE)"
    )


async def _read_parts(request: Request, limits: UploadLimits) -> list[bytes]:
    parser = MultiPartParser(
        request.headers,
        limited_chunks(request, limits.max_bytes),
        max_files=limits.max_images,
        max_fields=0,
    )
    parser.spool_max_size = (
        limits.max_bytes
    )  # the body is limited already: keep all of it in memory
    try:
        async with body_timeout(limits.timeout_s):
            form = await parser.parse()
    except MultiPartException as exc:
        raise _translate(exc, limits) from exc
    try:
        files = [part for _, part in form.multi_items() if isinstance(part, UploadFile)]
        images = [await file.read() for file in files]
    finally:
        await form.close()
    if not images:
        raise NoImage("the form has no file; with curl: -F image=@FILE")
    return images


def _translate(error: MultiPartException, limits: UploadLimits) -> ServiceError:
    if "Too many files" in error.message:
        return TooManyImages(f"at most {limits.max_images} images in one request")
    if "Too many fields" in error.message:
        return MalformedUpload("a part of the form is text, not a file; with curl: -F image=@FILE")
    return MalformedUpload(f"the multipart body cannot be parsed: {error.message}")
