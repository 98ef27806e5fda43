"""GET /: the explorer, whose files go out as they lie in service/web.

They are public even where the API asks for a key: the page then asks the person for one.
"""

from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

WEB = Path(__file__).parents[2] / "web"

# The page runs its own files only; pictures may also come from what it draws itself.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # asks each time whether a file has changed
}

router = APIRouter()


@router.get("/", include_in_schema=False)
async def explorer() -> Response:
    return FileResponse(WEB / "index.html", headers=_HEADERS)


class Files(StaticFiles):
    """The page's modules, style and samples."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response
