"""The explorer in Chromium with a real server; an error in the browser console fails a test."""

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
    def __call__(
        self, server: Server, path: str | None = "/", **options: Any
    ) -> AbstractContextManager[Page]:
        """Open a page of a server, or none yet, in a new browser context with these options."""


# The shell has no window's parts, and takes half of the processor time.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
QUIET = [
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


# For this package only: while Playwright runs, no other event loop can run in this thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def problems() -> list[str]:
    """Errors in the console of a page, and its requests to other servers."""
    return []


@pytest.fixture
def visit(browser: Browser, problems: list[str]) -> Visit:
    """Opens the explorer of a server; must be closed before the server stops."""

    def listen(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            problems.append(message.text)

    @contextmanager
    def visiting(server: Server, path: str | None = "/", **options: Any) -> Iterator[Page]:
        def watch(request: Request) -> None:
            if not request.url.startswith((server.url, "data:", "blob:", "about:")):
                problems.append(request.url)

        size: ViewportSize = {"width": 1280, "height": 900}
        options = {"viewport": size} | options
        with browser.new_context(base_url=server.url, **options) as context:
            page = context.new_page()
            page.on("console", listen)
            page.on("pageerror", lambda error: problems.append(str(error)))
            page.on("request", watch)
            if path is not None:
                page.goto(server.url + path)
            yield page
        assert problems == []

    return visiting


@pytest.fixture
def page(visit: Visit, server: Server) -> Iterator[Page]:
    with visit(server) as opened:
        yield opened


@pytest.fixture
def new_page(visit: Visit, server: Server) -> Iterator[Page]:
    """One that has opened nothing yet."""
    with visit(server, path=None) as opened:
        yield opened


def expect_refusals(page: Page, problems: list[str], *statuses: int) -> None:
    """The console contains nothing but the browser's messages about failed requests."""
    for _ in range(200):  # they may arrive a little after the response
        if len(problems) >= len(statuses):
            break
        page.wait_for_timeout(50)
    assert [str(status) in text for status, text in zip(statuses, problems, strict=True)] == [
        True for _ in statuses
    ]
    problems.clear()
