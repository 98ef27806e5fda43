"""Entity tags: what a client has already is neither sent nor made again."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import DEEPVIT, VIT
from tests.support.redis_server import RedisServer
from tests.support.server import ROOT, running_server
from tests.support.versions import add_version, copied

ID = "{id}"
FILES = ("/", "/web/main.js", "/web/samples/cat.jpg")
ANSWERS = (
    "/images/{id}",
    "/attention-maps?id={id}&layer=3",
    "/attention-maps?id={id}&layer=3&format=npy",
    "/attention-maps?id={id}&layer=3&format=npz",
    "/attention-maps?id={id}&layer=3&format=png",
    "/similarity?id={id}",
    "/similarity?id={id}&format=png",
)


@pytest.fixture(scope="module")
def image_id(client: httpx.Client, photo: bytes) -> str:
    return classified(client, photo)


def classified(client: httpx.Client, photo: bytes) -> str:
    found: str = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    return found


def tag(client: httpx.Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def opaque(tag: str) -> str:
    return tag.removeprefix("W/")


@pytest.mark.parametrize("path", [*FILES, *ANSWERS])
def test_what_the_client_has_is_not_sent_again(
    client: httpx.Client, image_id: str, path: str
) -> None:
    path = path.replace(ID, image_id)
    whole = client.get(path)
    had = whole.headers["etag"]
    for given in (had, opaque(had), f"W/{opaque(had)}", f'"x", "a,b" , {had},"y"', "*"):
        for method in ("GET", "HEAD"):
            answer = client.request(method, path, headers={"If-None-Match": given})
            assert (answer.status_code, answer.content) == (304, b""), given
            for header in ("etag", "cache-control"):
                assert answer.headers[header] == whole.headers[header]
    two = client.get(path, headers=[("If-None-Match", '"x"'), ("If-None-Match", had)])
    assert two.status_code == 304


@pytest.mark.parametrize("path", FILES)
def test_a_file_that_has_not_changed_since_is_not_sent(client: httpx.Client, path: str) -> None:
    changed = client.get(path).headers["last-modified"]
    for since, status in ((changed, 304), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)):
        assert client.get(path, headers={"If-Modified-Since": since}).status_code == status
    both = {"If-Modified-Since": changed, "If-None-Match": '"x"'}
    assert client.get(path, headers=both).status_code == 200  # the tag counts


@pytest.mark.parametrize("path", [*FILES, *ANSWERS])
def test_everything_else_is_sent_whole(client: httpx.Client, image_id: str, path: str) -> None:
    path = path.replace(ID, image_id)
    had = client.get(path).headers["etag"]
    for given in ('"x"', "x", "W/", f'"{opaque(had)[2:]}', opaque(had).strip('"'), '"*"', ""):
        answer = client.get(path, headers={"If-None-Match": given})
        assert answer.status_code == 200, given
        assert answer.content


@pytest.mark.parametrize(("paths", "kept"), [(FILES, "no-cache"), (ANSWERS, "private, no-cache")])
def test_caches_ask_again_and_pictures_of_people_stay_private(
    client: httpx.Client, image_id: str, paths: tuple[str, ...], kept: str
) -> None:
    found = {client.get(path.replace(ID, image_id)).headers["cache-control"] for path in paths}
    assert found == {kept}


def test_a_known_answer_costs_no_inference(client: httpx.Client, image_id: str) -> None:
    def executions() -> int:
        statistics: dict[str, Any] = client.get(f"/v2/models/{DEEPVIT}/stats").json()
        return int(statistics["model_stats"][0]["execution_count"])

    paths = [path.replace(ID, image_id) for path in ANSWERS[1:]]
    tags = [tag(client, path) for path in paths]
    before = executions()
    for path, known in zip(paths, tags, strict=True):
        assert client.get(path, headers={"If-None-Match": known}).status_code == 304
    assert executions() == before
    tag(client, paths[0])
    assert executions() == before + 1


def test_a_tag_stands_for_one_answer(client: httpx.Client, image_id: str) -> None:
    """Equal for the same question however it is asked, different for any other."""
    maps, similarity = f"/attention-maps?id={image_id}", f"/similarity?id={image_id}"
    one = tag(client, maps)
    assert one == tag(client, f"/attention-maps?model={DEEPVIT}&layer=all&version=1&id={image_id}")
    assert one == client.get(maps, headers={"X-Request-Timeout-Ms": "20000"}).headers["etag"]
    others = [
        *(f"{maps}&{query}" for query in ("layer=1", "head=max", "query=0,0", "direction=to")),
        *(f"{maps}&{query}" for query in ("stage=softmax", "format=npy", "format=png")),
        *(f"{maps}&format=png&{query}" for query in ("overlay=true", "scale=map")),
        f"{maps}&model={VIT}",
        *(f"{similarity}{query}" for query in ("", "&stage=softmax", "&threshold=0.5")),
        *(f"{similarity}&format=png{query}" for query in ("", "&variant=row")),
        f"/images/{image_id}",
    ]
    assert len({one, *(tag(client, other) for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/images/{'0' * 32}", 404),
        (f"/similarity?id={'0' * 32}", 404),
        ("/attention-maps?id={id}&layer=99", 422),
        ("/similarity?id={id}&model=x", 404),
    ],
)
def test_an_error_is_told_whatever_the_client_has(
    client: httpx.Client, image_id: str, path: str, status: int
) -> None:
    answer = client.get(path.replace(ID, image_id), headers={"If-None-Match": "*"})
    assert answer.status_code == status
    assert "etag" not in answer.headers


def test_replicas_agree_and_versions_differ(
    repository: Path, tmp_path: Path, redis_server: RedisServer, photo: bytes
) -> None:
    """And without a key, the tag opens nothing."""
    add_version(repository, copied(repository, tmp_path))
    settings = {"api_keys": "key", "served_versions": 2}
    with (
        running_server(repository, store_url=redis_server.url) as first,
        running_server(tmp_path, store_url=redis_server.url, **settings) as replica,
        first.client() as client,
        replica.client() as other,
    ):
        maps = f"/attention-maps?id={classified(client, photo)}&layer=3"
        other.headers["X-API-Key"] = "key"
        assert tag(other, f"{maps}&version=1") == tag(client, maps)
        assert tag(other, f"{maps}&version=2") == tag(other, maps) != tag(client, maps)
        known = {"If-None-Match": tag(other, maps), "X-API-Key": "wrong"}
        assert other.get(maps, headers=known).status_code == 401


def test_tags_change_with_the_code(tmp_path: Path) -> None:
    for folder, pattern in (("models", "*.py"), ("service", "**/*.py")):
        for path in (ROOT / folder).glob(pattern):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)

    def made_in(root: Path) -> str:
        code = "from service.http.conditional import entity_tag; print(entity_tag('x'))"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        ).stdout

    assert made_in(tmp_path) == made_in(ROOT)
    with (tmp_path / "service" / "explain" / "render" / "maps.py").open("a") as code:
        code.write("# drawn in another way\n")
    assert made_in(tmp_path) != made_in(ROOT)
