"""The page's files: those that have changed are read anew, and a part can be asked for."""

import asyncio
from pathlib import Path

import httpx

from service.http.routes.explorer import Files


def get(folder: Path, **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(Files(directory=folder))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/page.js", headers=headers)

    return asyncio.run(ask())


def test_a_file_that_has_changed_is_read_anew(tmp_path: Path) -> None:
    tags = []
    for content in ("first", "second"):
        (tmp_path / "page.js").write_text(content)
        answers = [get(tmp_path), get(tmp_path)]
        assert [answer.text for answer in answers] == [content, content]
        tags.append(answers[0].headers["etag"])
    assert tags[0] != tags[1]


def test_a_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "page.js").write_text("0123456789")
    part = get(tmp_path, Range="bytes=2-4")
    assert (part.status_code, part.text) == (206, "234")
