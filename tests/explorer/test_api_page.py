"""The API page in a browser: where keys are set, it takes one and asks with it."""

from pathlib import Path

from playwright.sync_api import Page, Response, expect

from tests.conftest import DEEPVIT
from tests.explorer.conftest import Visit, expect_refusals
from tests.support.server import running_server


def ask_for_models(page: Page) -> Response:
    with page.expect_response("**/models") as answer:
        page.get_by_role("button", name="Execute").click()
    return answer.value


def test_a_person_gives_the_key_on_the_page(
    visit: Visit, problems: list[str], repository: Path
) -> None:
    with (
        running_server(repository, api_keys="the-key") as server,
        visit(server, path="/docs") as page,
    ):
        operation = page.locator("#operations-models-list_models_models_get")
        operation.get_by_role("button").first.click()
        operation.get_by_role("button", name="Try it out").click()
        assert ask_for_models(page).status == 401
        expect_refusals(page, problems, 401)
        page.get_by_role("button", name="Authorize").first.click()
        dialog = page.locator(".auth-container", has_text="APIKeyHeader")
        dialog.get_by_role("textbox").fill("the-key")
        dialog.get_by_role("button", name="Apply credentials").click()
        page.get_by_role("button", name="Close").first.click()
        answer = ask_for_models(page)
        assert answer.status == 200
        assert answer.json()["models"][0]["name"] == DEEPVIT
        expect(operation.locator(".live-responses-table")).to_contain_text(DEEPVIT)
