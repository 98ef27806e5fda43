"""The explorer and the API page below a prefix of a real nginx."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from tests.explorer.conftest import Visit
from tests.explorer.steps import choose_sample, expect_map, maps, wait_until_loaded
from tests.support.nginx import running_nginx
from tests.support.server import Server


@pytest.fixture(scope="module", params=["/taken-off", "/left/on"])
def below(
    server: Server, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    """The server as its clients reach it; `visit` reports whatever a page requests elsewhere."""
    with running_nginx(server, tmp_path_factory.mktemp("nginx")) as address:
        yield replace(server, url=address + request.param)


def test_the_explorer(visit: Visit, below: Server) -> None:
    with visit(below) as page, below.client() as client:
        image_id = choose_sample(page)
        wait_until_loaded(page)
        expect_map(page, maps(client, id=image_id, layer=15))
        page.get_by_role("button", name="Understand").click()
        expect(page.locator("#similar-count")).to_contain_text("of 15")


def test_the_api_page_sends_requests(visit: Visit, below: Server) -> None:
    with visit(below, path="/docs") as page:
        operation = page.locator(".opblock", has_text=re.compile("/readyz"))
        operation.click()
        operation.get_by_role("button", name="Try it out").click()
        operation.get_by_role("button", name="Execute").click()
        expect(operation.locator(".request-url")).to_contain_text(f"{below.url}/readyz")
        expect(operation.locator(".live-responses-table")).to_contain_text('"ready"')
