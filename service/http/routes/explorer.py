"""GET /: the explorer, a web page served from the static files in service/web.

Its files are public even if the API needs a key: the page then asks its user for one.
"""

import os
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.http.conditional import is_known

WEB = Path(__file__).parents[2] / "web"

# The page may only run its own files; images may also be ones that it has drawn itself.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # browsers ask again before each use
}

router = APIRouter()


class Files(StaticFiles):
    """The page, its modules, styles and sample images; a 304 for what a browser still has.

    A visit takes 60 files. They are sent from memory, which takes a third of reading each.
    """

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response

    def file_response(
        self,
        full_path: "os.PathLike[str] | str",
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        if not isinstance(response, FileResponse) or "range" in Headers(scope=scope):
            return response
        content = _content(os.fspath(full_path), stat_result.st_mtime_ns, stat_result.st_size)
        return Response(content, status_code, headers=response.headers)

    def is_not_modified(self, response_headers: Headers, request_headers: Headers) -> bool:
        """By the time of the file's last change where the client names no tag."""
        if "if-none-match" in request_headers:
            return is_known(request_headers, response_headers["etag"])
        return super().is_not_modified(response_headers, request_headers)


@lru_cache(maxsize=128)
def _content(path: str, _changed_ns: int, _size: int) -> bytes:
    """Of a file that was last changed at this time, and has so many bytes."""
    return Path(path).read_bytes()


_files = Files(directory=WEB)


@router.get("/", include_in_schema=False)
async def explorer(request: Request) -> Response:
    return await _files.get_response("index.html", request.scope)
