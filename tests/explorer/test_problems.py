"""Messages of the explorer when something goes wrong."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import DEEPVIT
from tests.explorer.conftest import Visit, expect_refusals
from tests.explorer.steps import BOAT, CAT, HOUSES, choose_sample, wait_until_loaded
from tests.support.redis_server import RedisServer
from tests.support.server import Server, running_server


@pytest.fixture(scope="module")
def strict_server(repository: Path) -> Iterator[Server]:
    """Remembers one picture, and takes files of 50,000 bytes."""
    one_image = 32 * 32 * 3
    with running_server(repository, store_max_bytes=one_image, max_upload_bytes=50_000) as running:
        yield running


def test_a_file_that_is_not_an_image(page: Page, problems: list[str]) -> None:
    page.set_input_files(
        "#file", {"name": "notes.png", "mimeType": "image/png", "buffer": b"plain words"}
    )
    expect(page.get_by_role("alert")).to_contain_text("Not an image, or not one that can be read")
    expect(page.locator("#work")).to_be_hidden()
    expect_refusals(page, problems, 415)
    page.set_input_files("#file", CAT)
    expect(page.locator("#predictions li")).to_have_count(5)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_file_that_is_too_large(strict_server: Server, visit: Visit, problems: list[str]) -> None:
    with visit(strict_server) as page:
        page.set_input_files("#file", HOUSES)
        expect(page.get_by_role("alert")).to_contain_text("The upload has too many bytes")
        expect_refusals(page, problems, 413)


def test_a_busy_server_can_be_asked_again(page: Page, problems: list[str]) -> None:
    def busy(route: Route) -> None:
        problem = {"title": "The server is busy", "detail": "256 images wait", "code": "queue-full"}
        route.fulfill(status=429, json=problem, headers={"Retry-After": "1"})

    page.route("**/classify**", busy, times=1)
    page.get_by_role("button", name="cat").click()
    expect(page.get_by_role("alert")).to_contain_text("The server is busy")
    expect(page.get_by_role("alert")).to_contain_text("256 images wait")
    expect(page.get_by_role("alert")).to_contain_text("The server asks to wait 1 s")
    expect_refusals(page, problems, 429)
    page.get_by_role("button", name="Try again", exact=True).click()
    expect(page.locator("#predictions li")).to_have_count(5)


def test_measures_that_come_too_late_can_be_requested_again(
    page: Page, problems: list[str]
) -> None:
    def late(route: Route) -> None:
        problem = {"title": "The answer would have come too late", "code": "deadline-exceeded"}
        route.fulfill(status=504, json=problem)

    choose_sample(page)
    wait_until_loaded(page)
    page.route("**/similarity?**", late)
    page.get_by_role("button", name="Understand").click()
    expect(page.get_by_role("alert")).to_contain_text("The answer would have come too late")
    expect_refusals(page, problems, 504)
    page.unroute("**/similarity?**")
    page.get_by_role("button", name="Try again", exact=True).click()
    expect(page.locator("#similar-count")).to_contain_text("of 15")


def test_a_model_that_is_unloaded_and_a_server_that_ends(
    repository: Path, visit: Visit, problems: list[str]
) -> None:
    with running_server(repository, drain_delay_s=60) as server, visit(server) as page:
        alert = page.get_by_role("alert")
        with server.client() as client:
            client.post(f"/v2/repository/models/{DEEPVIT}/unload").raise_for_status()
            page.get_by_role("button", name="cat").click()
            expect(alert).to_contain_text("No such model")
            expect_refusals(page, problems, 404)
            client.post(f"/v2/repository/models/{DEEPVIT}/load").raise_for_status()
        page.get_by_role("button", name="Try again", exact=True).click()
        expect(page.locator("#predictions li")).to_have_count(5)
        wait_until_loaded(page)
        server.process.send_signal(signal.SIGTERM)
        page.get_by_role("button", name="Understand").click()
        expect(alert).to_contain_text("The server is shutting down")
        expect(alert).to_contain_text("The server asks to wait 1 s")
        expect_refusals(page, problems, 503)
        server.process.kill()
        server.process.wait()
        page.get_by_role("button", name="Try again", exact=True).click()
        expect(alert).to_contain_text("The server cannot be reached")
        assert {text.partition("ERR_CONNECTION")[1] for text in problems} == {"ERR_CONNECTION"}
        problems.clear()


def test_a_store_that_is_unavailable(
    repository: Path, visit: Visit, problems: list[str], redis_server: RedisServer
) -> None:
    settings = {"store_url": redis_server.url}
    with running_server(repository, **settings) as server, visit(server) as page:
        choose_sample(page)
        wait_until_loaded(page)
        redis_server.kill()
        page.get_by_role("button", name="Understand").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("Classified images cannot be looked up now")
        expect_refusals(page, problems, 503)
        redis_server.start()
        with server.client() as client:
            for _ in range(300):
                if client.get("/readyz").json()["store"] == "redis":
                    break
                page.wait_for_timeout(100)
        page.get_by_role("button", name="Try again", exact=True).click()
        expect(page.locator("#similar-count")).to_contain_text("of 15")
        expect_refusals(
            page, problems, 404
        )  # the new store is empty; the page sends the picture again


def test_a_key_is_asked_for_where_one_is_needed(
    repository: Path, visit: Visit, problems: list[str]
) -> None:
    with running_server(repository, api_keys="first-key") as server, visit(server) as page:
        for key in ("wrong-key", "first-key"):
            expect(page.get_by_role("dialog")).to_contain_text("Authentication required")
            page.get_by_label("API key").fill(key)
            page.get_by_role("button", name="Use this key").click()
        page.get_by_role("button", name="cat").click()
        expect(page.locator("#predictions li")).to_have_count(5)
        expect_refusals(page, problems, 401, 401)


@pytest.mark.parametrize("kept", ["file", "link"])
def test_a_picture_that_the_server_forgot_is_sent_again_if_the_page_has_it(
    strict_server: Server, visit: Visit, problems: list[str], kept: str
) -> None:
    with visit(strict_server) as page:
        page.set_input_files("#file", CAT)
        expect(page.locator("#predictions li")).to_have_count(5)
        expect(page.locator("#progress")).to_be_hidden()
        if kept == "link":
            page.wait_for_url("**/#*id=*")
            page.reload()
            expect(page.locator("#predictions li")).to_have_count(5)
            expect(page.locator("#progress")).to_be_hidden()
        with strict_server.client() as client:
            other = client.post("/classify", files={"image": BOAT.read_bytes()})
            assert other.status_code == 200
        page.get_by_role("button", name="Understand").click()
        if kept == "file":
            expect(page.locator("#similar-count")).to_contain_text("of 15")
        else:
            message = "The server no longer has this picture"
            expect(page.get_by_role("alert")).to_contain_text(message)
        expect_refusals(page, problems, 404)
