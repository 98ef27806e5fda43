"""Debian's Chromium in front of a real server; an error in its console fails the test."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.server import Server

CHROMIUM = "/usr/bin/chromium"
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


# No longer than these tests: while it is there, no other event loop runs in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)
        yield running
        running.close()


@pytest.fixture
def wrong() -> list[str]:
    """What a page should not have done: errors in its console, requests to other servers."""
    return []


@pytest.fixture
def page(browser: Browser, server: Server, wrong: list[str]) -> Iterator[Page]:
    """The explorer, with nothing chosen yet."""

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    def watch(request: Request) -> None:
        if not request.url.startswith((server.url, "data:", "blob:", "about:")):
            wrong.append(request.url)

    context = browser.new_context(base_url=server.url, viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.on("console", listen)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", watch)
    opened.goto("/")
    yield opened
    context.close()
    assert wrong == []
