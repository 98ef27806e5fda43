"""Behind an nginx that is set up as most are: every address holds, and every refusal arrives."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.nginx import PREFIXES, running_nginx
from tests.support.server import Server

LARGE = 20 * 2**20  # bytes; more than the buffers of a connection hold
TOO_LARGE = 40 * 2**20
REPEATED = 5  # a reset destroys only some of the answers

prefixes = pytest.mark.parametrize("prefix", PREFIXES)


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_nginx(server, tmp_path_factory.mktemp("nginx")) as running:
        yield running


@pytest.fixture
def below(proxy: str, prefix: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy + prefix, timeout=60) as client:
        yield client


@prefixes
def test_links_and_redirects_stay_below_the_prefix(
    proxy: str, below: httpx.Client, prefix: str, photo: bytes
) -> None:
    answer = below.post("/classify", files={"image": photo}).json()
    links = list(answer["results"][0]["links"].values())
    links += [model["url"] for model in below.get("/models").json()["models"]]
    links += [server["url"] + "/livez" for server in below.get("/openapi.json").json()["servers"]]
    for link in links:
        assert link.startswith(f"{prefix}/")
        assert httpx.get(proxy + link).status_code == 200
    redirected = below.get("/models/?top", follow_redirects=True)
    assert str(redirected.url) == f"{proxy}{prefix}/models?top"
    assert redirected.json().keys() == {"models"}
    home = httpx.get(proxy + prefix, follow_redirects=True)
    assert str(home.url) == f"{proxy}{prefix}/"
    assert "<title>" in home.text


@prefixes
@pytest.mark.parametrize(
    ("path", "kind", "size", "status"),
    [
        ("/classify?model=none", "image/jpeg", LARGE, 404),
        ("/classify?top_k=0", "image/jpeg", LARGE, 422),
        ("/classify", "text/csv", LARGE, 415),
        ("/classify", "image/jpeg", TOO_LARGE, 413),
    ],
)
def test_a_refusal_arrives(
    below: httpx.Client, path: str, kind: str, size: int, status: int
) -> None:
    for _ in range(REPEATED):
        answer = below.post(path, content=bytes(size), headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


@prefixes
@pytest.mark.parametrize("offered", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_ignored(below: httpx.Client, photo: bytes, offered: str) -> None:
    offer = {"Connection": "Upgrade", "Upgrade": offered}
    for _ in range(2):
        answer = below.post("/classify", files={"image": photo}, headers=offer)
        assert answer.status_code == 200
        assert len(answer.json()["results"]) == 1
