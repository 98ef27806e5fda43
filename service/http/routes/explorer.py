"""GET /: the explorer, a web page served from the static files in service/web.

Its files are public even if the API needs a key: the page then asks its user for one.
"""

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parents[2] / "web"

# The page may only run its own files; images may also be ones that it has drawn itself.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # browsers revalidate a file before each use
}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def explorer() -> Response:
    return FileResponse(WEB / "index.html", headers=_HEADERS)


class Files(StaticFiles):
    """The page's modules, styles and sample images."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
