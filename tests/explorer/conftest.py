"""Debian's Chromium in front of a real server; an error in its console fails the test."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.support.server import Server


class Visit(Protocol):
    def __call__(self, server: Server, **options: Any) -> AbstractContextManager[Page]:
        """The explorer of a server, in a browser context of its own with Playwright's options."""


CHROMIUM = shutil.which("chromium")
_QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


expect.set_options(timeout=30_000)  # milliseconds; machines may be busy


# No longer than these tests: while it is there, no other event loop runs in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield running
        running.close()


@pytest.fixture
def wrong() -> list[str]:
    """What a page should not have done: errors in its console, requests to other servers."""
    return []


@pytest.fixture
def visit(browser: Browser, wrong: list[str]) -> Visit:
    """Opens the explorer of a server; to be left before the server ends."""

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    @contextmanager
    def visiting(server: Server, **options: Any) -> Iterator[Page]:
        def watch(request: Request) -> None:
            if not request.url.startswith((server.url, "data:", "blob:", "about:")):
                wrong.append(request.url)

        size: ViewportSize = {"width": 1280, "height": 900}
        options = {"viewport": size} | options
        with browser.new_context(base_url=server.url, **options) as context:
            page = context.new_page()
            page.on("console", listen)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("request", watch)
            page.goto("/")
            yield page
        assert wrong == []

    return visiting


@pytest.fixture
def page(visit: Visit, server: Server) -> Iterator[Page]:
    with visit(server) as opened:
        yield opened


def refused(page: Page, wrong: list[str], *statuses: int) -> None:
    """The browser's own words about failed requests are all that stands in its console."""
    for _ in range(200):  # they may come a little later than the answer
        if len(wrong) >= len(statuses):
            break
        page.wait_for_timeout(50)
    assert [str(status) in text for status, text in zip(statuses, wrong, strict=True)] == [
        True for _ in statuses
    ]
    wrong.clear()
