"""A real browser visits a page that means harm to a service on the same machine."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page

from tests.conftest import VIT
from tests.explorer.conftest import CHROMIUM, QUIET
from tests.support.nginx import running_nginx
from tests.support.server import Server, running_server

REBOUND, LAB = "evil.example", "lab.example"
UNLOAD = f"/v2/repository/models/{VIT}/unload"
# A page that sends a form by itself.
FORM = """<form method="post" enctype="multipart/form-data" action="URL">
<input name="image" value="x"></form><script>document.forms[0].submit()</script>"""


class _Elsewhere(BaseHTTPRequestHandler):
    """Another site: an empty page at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where another site listens on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as site:
        thread = Thread(target=site.serve_forever)
        thread.start()
        yield site.server_port
        site.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def open_server(repository: Path) -> Iterator[Server]:
    """Without keys, with the settings that every service begins with."""
    with running_server(repository) as running:
        yield running


@pytest.fixture(scope="module")
def deceived(browser: Browser) -> Iterator[Browser]:
    """A browser for which two names mean this machine."""
    rules = ", ".join(f"MAP {name} 127.0.0.1" for name in (REBOUND, LAB))
    launched = browser.browser_type.launch(
        executable_path=CHROMIUM, args=[*QUIET, f"--host-resolver-rules={rules}"]
    )
    with launched:
        yield launched


@pytest.fixture(params=["http://localhost", "http://127.0.0.1"], ids=["cross-site", "same-site"])
def page(browser: Browser, port: int, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of the other site."""
    with browser.new_context() as context:
        opened = context.new_page()
        opened.goto(f"{request.param}:{port}/")
        yield opened


def refused(server: Server, code: str) -> int:
    """How often requests were refused for this reason."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    counted = f'deepvit_rejects_total{{reason="{code}"}} '
    (found,) = (line.removeprefix(counted) for line in lines if line.startswith(counted))
    return int(float(found))


def ready(server: Server) -> bool:
    with server.client() as client:
        return client.get(f"/v2/models/{VIT}/ready").status_code == 200


def test_a_page_cannot_unload_a_model_by_fetch(open_server: Server, page: Page) -> None:
    before = refused(open_server, "cross-origin")
    for path in (UNLOAD, "/classify"):
        kind = page.evaluate(
            "async url => (await fetch(url, {method: 'POST', mode: 'no-cors', body: 'x'})).type",
            open_server.url + path,
        )
        assert kind == "opaque"  # it was sent, and answered
    assert refused(open_server, "cross-origin") == before + 2
    assert ready(open_server)


def test_a_page_cannot_unload_a_model_by_a_form(open_server: Server, page: Page) -> None:
    before = refused(open_server, "cross-origin")
    for count, path in enumerate((UNLOAD, "/classify"), 1):
        address = page.url
        with page.expect_navigation(url=open_server.url + path) as navigation:
            page.set_content(FORM.replace("URL", open_server.url + path), wait_until="commit")
        assert navigation.value is not None
        assert navigation.value.status == 403
        assert refused(open_server, "cross-origin") == before + count
        page.goto(address)
    assert ready(open_server)


def test_a_page_cannot_send_a_key_or_other_headers(open_server: Server, page: Page) -> None:
    for header in ("X-API-Key", "X-Forwarded-Host"):
        sent = page.evaluate(
            "([url, name]) => fetch(url, {method: 'POST', headers: {[name]: 'x'}})"
            ".then(() => true, () => false)",
            [open_server.url + UNLOAD, header],
        )
        assert not sent
    assert ready(open_server)


@pytest.mark.parametrize(("settings", "status"), [({}, 421), ({"allowed_hosts": "*"}, 200)])
def test_a_name_that_comes_to_mean_this_machine_reaches_nothing(
    repository: Path, deceived: Browser, settings: dict[str, str], status: int
) -> None:
    with (
        running_server(repository, **settings) as server,
        deceived.new_context() as context,
    ):
        page = context.new_page()
        answer = page.goto(server.url.replace("127.0.0.1", REBOUND))
        assert answer is not None
        assert answer.status == status
        unloaded = page.evaluate(
            "async path => (await fetch(path, {method: 'POST'})).status", UNLOAD
        )
        assert unloaded == status
        assert ready(server) == (status == 421)


def test_the_explorer_classifies_behind_a_proxy_with_plain_http(
    deceived: Browser, open_server: Server, tmp_path: Path
) -> None:
    """Where the browser sends no Sec-Fetch-Site, since it does not trust the way there."""
    locations = """
    location / { proxy_pass UPSTREAM/; proxy_set_header X-Forwarded-Host $http_host; }
    """
    before = refused(open_server, "cross-origin")
    with (
        running_nginx(open_server, tmp_path, locations) as proxy,
        deceived.new_context() as context,
    ):
        page = context.new_page()
        page.goto(proxy.replace("127.0.0.1", LAB))
        assert not page.evaluate("isSecureContext")
        page.get_by_role("button", name="cat").click()
        page.locator("#predictions li").nth(4).wait_for()
    assert refused(open_server, "cross-origin") == before
