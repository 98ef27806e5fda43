"""Entity tags (RFC 9110, 8.8.3 and 13.1.2): an answer that a client still has is not made again.

An answer about a classified image follows from the image, the model, the parameters and this code
alone, so that its tag is known before anything is computed. Tags are weak: numbers may differ in
their last digits with the batch that an image was in.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import orjson
from fastapi import Request, Response
from starlette.datastructures import Headers

_ROOT = Path(__file__).parents[2]
_OPAQUE = re.compile(r'"([^"]*)"')


def _sources_digest() -> str:
    """Of the code that makes answers, so that an old picture does not outlive a new release."""
    digest = hashlib.sha256()
    for path in sorted([*_ROOT.glob("models/*.py"), *_ROOT.glob("service/**/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_CODE = _sources_digest()


def entity_tag(*facts: Any) -> str:
    """A weak tag for an answer that depends on these facts, which JSON can hold."""
    found = orjson.dumps([_CODE, *facts], option=orjson.OPT_SORT_KEYS)
    return f'W/"{hashlib.sha256(found).hexdigest()[:32]}"'


def caching(tag: str) -> dict[str, str]:
    """Headers of an answer with this tag: for its client alone, who asks again before each use."""
    return {"ETag": tag, "Cache-Control": "private, no-cache"}


def is_known(headers: Headers, tag: str) -> bool:
    """Whether If-None-Match, in a request's headers, names the tag, by the weak comparison."""
    given = ", ".join(headers.getlist("if-none-match")).strip()
    return given == "*" or not set(_OPAQUE.findall(tag)).isdisjoint(_OPAQUE.findall(given))


def not_modified(request: Request, tag: str) -> Response | None:
    """A 304 if the client has the answer with this tag."""
    if not is_known(request.headers, tag):
        return None
    return Response(status_code=304, headers=caching(tag))


def tagged(responses: dict[int | str, dict[str, Any]]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses of a route whose answers have tags."""
    answer = responses.get(200, {})
    tag = {"description": "for If-None-Match", "schema": {"type": "string"}}
    return responses | {
        200: answer | {"headers": answer.get("headers", {}) | {"ETag": tag}},
        304: {"description": "The answer still has the tag that If-None-Match names"},
    }
