"""The section "Monitor": its verdicts, charts and lists, and how it asks the server."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, Route, expect

from models.drift import LEAST_IN_WINDOW
from tests.conftest import DEEPVIT, VIT
from tests.explorer.checks import expect_no_overflow, violations
from tests.explorer.conftest import Visit, expect_refusals
from tests.explorer.monitored import THRESHOLD, answer, without_reference
from tests.explorer.steps import card, choose_sample, state
from tests.support.server import Server, running_server

EVERY_MS = 5000
OFF = {"sample": 0, "models": []}

# Playwright cannot hide a page: this is what a browser tells it when its tab goes to the back.
SET_VISIBILITY = """(value) => {
  Object.defineProperty(document, "visibilityState", { value, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture
def page(new_page: Page) -> Page:
    """One that has opened nothing yet, so that answers can be made up first."""
    return new_page


def show(page: Page, found: dict[str, Any], fragment: str = "") -> list[str]:
    """Open the section on an answer of the server; returns the requests for it as they come."""
    asked = reply(page, found)
    page.goto("about:blank")
    page.goto(f"/#section=monitor{fragment}")
    expect(verdict(page)).not_to_contain_text("Loading")
    return asked


def reply(page: Page, found: dict[str, Any]) -> list[str]:
    """Answer in the server's place from now on; returns the requests as they come."""
    asked: list[str] = []

    def fulfill(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(json=found)

    page.route("**/monitor?**", fulfill)
    return asked


def verdict(page: Page) -> Locator:
    return page.locator(".verdict")


def test_an_alarm_leads_to_what_deviates_most(page: Page) -> None:
    show(page, answer(drift=7.3))
    expect(verdict(page)).to_contain_text(f"Drifted Drift is 7.3, and the threshold {THRESHOLD}")
    expect(page.locator("#live")).to_have_text("Monitor: Drifted")
    strongest = card(page, "Strongest deviations").get_by_role("button")
    expect(strongest).to_have_count(5)
    expect(strongest.first).to_have_text("Entropy of attention, softmax, block 7\u22127.3")
    strongest.first.click()
    expect(strongest.first).to_have_attribute("aria-current", "true")
    page.wait_for_url(re.compile("measure=entropy"))
    chosen = state(page)
    assert (chosen["measure"], chosen["stage"], chosen["layer"]) == ("entropy", "softmax", "7")
    blocks = card(page, "Each block")
    for reading in blocks.locator(".readout").all():
        expect(reading).to_have_text(re.compile(r"^Block 7: window .*, deviation \u22127\.3$"))
    expect(blocks.locator(".dot.over")).to_have_count(2)  # block 7, in both charts
    expect(blocks.get_by_role("combobox", name="Measure")).to_have_value("entropy")


def test_the_keyboard_reads_charts_and_chooses_measures(page: Page) -> None:
    show(page, answer(drift=7.3))
    history = page.get_by_role("slider", name=re.compile("^Drift over time"))
    reading = card(page, "Drift over time").locator(".readout")
    newest = reading.inner_text()
    history.press("ArrowLeft")
    expect(reading).not_to_have_text(newest)
    history.press("ArrowRight")
    expect(reading).to_have_text(newest)
    expect(history).to_have_attribute("aria-valuetext", newest)
    card(page, "Strongest deviations").get_by_role("button").nth(1).press("Enter")
    page.wait_for_url(re.compile("measure=entropy"))
    expect(page.locator("input[name=monitored-stage][value=reattention]")).to_be_disabled()
    blocks = card(page, "Each block")
    blocks.get_by_role("combobox", name="Measure").select_option("confidence")
    expect(blocks.locator(".readout").first).to_contain_text("reference 0.7 ±")
    expect(blocks.get_by_role("group", name="Stage")).to_be_hidden()


def test_a_link_to_a_measure_needs_no_picture(page: Page) -> None:
    show(page, answer(), f"&id={'0' * 32}&measure=similarity.row&stage=softmax&layer=7")
    blocks = card(page, "Each block")
    expect(blocks.locator(".readout").first).to_contain_text("Block 7: window")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(blocks.locator("path.band")).to_have_count(2)  # where the reference is
    expect(blocks.locator(".key")).to_have_text(
        [
            "mean of the window",
            "reference: mean ± 2 spreads of single images",
            "means that are no alarm",
        ]
    )
    drift = card(page, "Drift over time")
    expect(drift.locator(".limit")).to_have_count(1)
    expect(drift.locator("text", has_text=f"threshold {THRESHOLD}")).to_be_visible()
    expect(drift.locator(".dot.over")).to_have_count(0)


def test_classes_repeated_blocks_and_samples_are_listed_and_can_be_downloaded(
    page: Page,
) -> None:
    show(page, answer())
    classes = card(page, "Answered classes")
    expect(classes).to_contain_text("31% of the answers")
    expect(classes.get_by_role("row")).to_have_count(11)
    expect(classes.get_by_role("row", name=re.compile("^airplane"))).to_contain_text("18.2%10%")
    repeated = card(page, "Repeated blocks")
    expect(repeated.get_by_role("row", name=re.compile("^softmax"))).to_contain_text(
        "4: 12, 13, 14, 151: 13"
    )
    expect(repeated.get_by_role("row", name=re.compile("^re-attention"))).to_contain_text("none")
    samples = card(page, "What was sampled").locator("dd")
    expect(samples).to_have_text(["1%", "607", "3", "17", "0"])
    for kind in ("PNG", "NPZ"):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"{kind} of Each block").click()
        name = f"deepvit-similarity.column-reattention.{kind.lower()}"
        assert download.value.suggested_filename == name
    page.get_by_role("button", name="API call of Drift over time").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"/monitor?model={DEEPVIT}")


FEW = LEAST_IN_WINDOW - 1
# An answer, the verdict's words, the help's, and how many cards are shown.
MISSING: list[tuple[dict[str, Any], str, str | None, int]] = [
    (OFF, "Monitoring is off", "DEEPVIT_MONITOR_SAMPLE=0.01", 0),
    (answer(images=0, drift=None), "Nothing measured yet", "1% of answered images", 0),
    (answer(images=12, drift=None, points=1), "Too few images", None, 6),
    (without_reference(), "No reference", "--reference FOLDER", 4),
    (
        answer(images=FEW, drift=None, points=1),
        f"needs {LEAST_IN_WINDOW} measured images; there are {FEW}.",
        None,
        6,
    ),
    (answer(model="other"), "Not monitored", None, 0),
]


def test_what_is_missing_is_said(page: Page) -> None:
    """Each is met as the next answer of a server that is asked every five seconds."""
    page.clock.install()
    show(page, answer())
    for found, title, help_text, cards in MISSING:
        page.unroute("**/monitor?**")
        reply(page, found)
        page.clock.run_for(EVERY_MS)
        expect(verdict(page)).to_contain_text(title)
        if help_text:
            expect(page.locator(".help")).to_contain_text(help_text)
        else:
            expect(page.locator(".help")).to_be_hidden()
        expect(page.locator("#monitor .cards .card:visible")).to_have_count(cards)


def test_it_asks_every_five_seconds_while_it_is_visible(page: Page) -> None:
    page.clock.install()
    asked = show(page, answer())
    updated = page.locator("#updated")

    def tick() -> None:
        """Let five seconds pass, and wait for what is asked then."""
        before = updated.inner_text()
        page.clock.run_for(EVERY_MS)
        expect(updated).not_to_have_text(before)

    first = len(asked)
    tick()
    assert len(asked) > first
    before = updated.inner_text()
    page.evaluate(SET_VISIBILITY, "hidden")
    page.clock.run_for(10 * EVERY_MS)
    hidden = len(asked)
    page.clock.run_for(10 * EVERY_MS)
    assert len(asked) == hidden
    page.evaluate(SET_VISIBILITY, "visible")
    expect(updated).not_to_have_text(before)  # asked at once
    tick()
    assert len(asked) > hidden + 1
    page.get_by_role("button", name="Look").click()
    expect(page.locator("#monitor")).to_be_hidden()
    left = len(asked)
    page.clock.run_for(10 * EVERY_MS)
    assert len(asked) == left


def test_a_server_that_is_away_leaves_what_was_measured(page: Page, problems: list[str]) -> None:
    page.clock.install()
    show(page, answer())
    page.unroute("**/monitor?**")
    page.route("**/monitor?**", lambda route: route.abort("connectionrefused"))
    page.clock.run_for(EVERY_MS)
    away = page.locator(".away")
    expect(away).to_contain_text("The server cannot be reached")
    expect(away).to_contain_text("Asked again every 5 s. What is shown was measured until")
    expect(verdict(page)).to_contain_text("Ordinary")
    page.unroute("**/monitor?**")
    page.route("**/monitor?**", lambda route: route.fulfill(json=answer(drift=7.3)))
    page.clock.run_for(EVERY_MS)
    expect(verdict(page)).to_contain_text("Drifted")
    expect(away).to_be_hidden()
    assert {text.partition("ERR_CONNECTION")[1] for text in problems} == {"ERR_CONNECTION"}
    problems.clear()


def test_a_key_that_has_ended_is_asked_for_once(page: Page, problems: list[str]) -> None:
    def lock(route: Route) -> None:
        if route.request.headers.get("x-api-key") == "new-key":
            route.fulfill(json=answer())
        else:
            problem = {"title": "A valid API key is required", "code": "unauthorized"}
            route.fulfill(status=401, json=problem)

    page.goto("/")
    page.clock.install()
    page.route("**/monitor?**", lock)
    page.get_by_role("button", name="Monitor").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Authentication required")
    page.get_by_role("button", name="Close").click()
    page.clock.run_for(10 * EVERY_MS)
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Enter the API key").click()
    page.get_by_label("API key").fill("new-key")
    page.get_by_role("button", name="Use this key").click()
    expect(verdict(page)).to_contain_text("Ordinary")
    expect_refusals(page, problems, 401)


def test_a_picture_is_there_again_after_the_monitor(page: Page) -> None:
    page.route("**/monitor?**", lambda route: route.fulfill(json=answer()))
    page.goto("/")
    choose_sample(page)
    page.get_by_role("button", name="Monitor").click()
    expect(verdict(page)).to_contain_text("Ordinary")
    expect(page.locator("#crop")).to_be_hidden()
    page.select_option("#model", VIT)
    expect(verdict(page)).to_contain_text("Not monitored")
    page.get_by_role("button", name="Look").click()
    expect(page.locator("#predictions li")).to_have_count(5)
    expect(page.locator("#map-title")).to_have_text("Block 15, softmax")
    page.wait_for_url(re.compile(f"model={VIT}"))


def test_axe_finds_nothing(visit: Visit, server: Server) -> None:
    with visit(server, path=None, bypass_csp=True) as page:
        for name, found in {"alarm": answer(drift=7.3), "off": OFF}.items():
            show(page, found, "&measure=entropy&stage=softmax&layer=7")
            assert violations(page, name) == {}
            page.unroute("**/monitor?**")


def test_nothing_is_wider_than_a_narrow_screen(page: Page) -> None:
    for found in (answer(drift=7.3), without_reference(), OFF):
        page.set_viewport_size({"width": 320, "height": 800})
        show(page, found)
        expect_no_overflow(page, 320, 390, 768)
        page.unroute("**/monitor?**")


def test_the_same_picture_again_and_again_is_an_alarm(
    repository: Path, visit: Visit, photo: bytes
) -> None:
    with running_server(repository, monitor_sample=1) as server, visit(server) as page:
        page.get_by_role("button", name="Monitor").click()
        expect(verdict(page)).to_contain_text("Nothing measured yet")
        with server.client() as client:
            measure(page, client, photo, 8)
            expect(verdict(page)).to_contain_text("there are 8.")
            for _ in range(6):
                measure(page, client, photo, 8)
            expect(verdict(page)).to_contain_text("Drifted")
            (model,) = client.get("/monitor", params={"model": DEEPVIT}).json()["models"]
        samples = card(page, "What was sampled").locator("dd")
        expect(samples).to_have_text(["100%", "56", "0", "0", "0"])
        expect(verdict(page)).to_contain_text(f"Drift is {model['drift']:.3g}")
        strongest = card(page, "Strongest deviations").get_by_role("button")
        for button, one in zip(strongest.all(), model["strongest"], strict=True):
            expect(button).to_contain_text(f"{abs(one['deviation']):.3g}")
        best = max(model["classes"]["shares"], key=lambda one: float(one["share"]))
        assert best["share"] == 1
        row = card(page, "Answered classes").get_by_role("row", name=re.compile(best["label"]))
        expect(row).to_contain_text("100%")


def measure(page: Page, client: httpx.Client, photo: bytes, count: int) -> None:
    """Classify an image so often, and wait until the server has measured all that it answered."""

    def samples() -> dict[str, int]:
        (model,) = client.get("/monitor", params={"model": DEEPVIT}).json()["models"]
        found: dict[str, int] = model["samples"]
        return found

    wanted = samples()["measured"] + count
    for _ in range(count):
        client.post("/classify", files={"image": photo}).raise_for_status()
    for _ in range(600):
        if samples()["measured"] == wanted:
            return
        page.wait_for_timeout(50)
    raise AssertionError(samples())
