"""Accessibility: keyboard, touch, narrow screens, both colour schemes, axe's rules."""

import re
from typing import Any

import httpx
from playwright.sync_api import Locator, Page, expect

from tests.explorer.checks import expect_no_overflow, violations
from tests.explorer.conftest import Visit
from tests.explorer.steps import (
    GRID,
    cell_of,
    choose,
    choose_sample,
    expect_map,
    maps,
    wait_until_loaded,
)
from tests.support.server import Server

VIEWS = [
    *(("view", view) for view in ("heads", "grid", "raw", "theta")),
    *(("section", section) for section in ("monitor", "understand", "compare")),
]


def go(page: Page, group: str, value: str) -> None:
    if group == "view":
        choose(page, group, value)
    else:
        page.locator(f"[data-section={value}]").click()
    page.wait_for_url(re.compile(value if value != "heads" else "id="))
    wait_until_loaded(page)


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"Tab never reaches {wanted}")


def test_everything_works_with_the_keyboard_alone(page: Page, client: httpx.Client) -> None:
    tab_to(page, page.get_by_role("button", name=re.compile("cat$")))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"id=[0-9a-f]{32}"))
    image_id = page.url.partition("id=")[2][:32]
    crop = page.locator("#crop")
    tab_to(page, crop)
    assert crop.evaluate("crop => getComputedStyle(crop).outlineStyle") == "solid"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.locator('#reading [data-name="Query"]')).to_have_text("row 4, column 7")
    page.keyboard.press("[")
    expect(page.locator("#map-title")).to_contain_text("Block 14")
    tab_to(page, page.locator("input[name=stage]:checked"))
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#map-title")).to_contain_text("softmax")
    tab_to(page, page.locator("#head"))
    page.keyboard.type("root")
    expect(page.locator("#map-what")).to_contain_text("root mean square")
    tab_to(page, page.get_by_role("radio", name=re.compile("^block 14,")))
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#map-title")).to_contain_text("Block 13")
    wait_until_loaded(page)
    query = {"id": image_id, "layer": 13, "head": "rms", "stage": "softmax", "query": "4,7"}
    expect_map(page, maps(client, **query))
    page.wait_for_url(re.compile("layer=13"))
    page.reload()  # resets the focus and keeps the choices
    expect(page.locator("#map-title")).to_contain_text("Block 13")
    tab_to(page, page.get_by_role("button", name="Understand"))
    page.keyboard.press("Space")
    threshold = page.locator("#threshold")
    tab_to(page, threshold)
    page.keyboard.press("End")
    expect(page.locator("#similar-count")).to_contain_text("of 15")
    expect(threshold).to_have_value("0.995")
    wait_until_loaded(page)


def test_nothing_is_wider_than_a_narrow_screen(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 800})
    choose_sample(page)
    for group, value in VIEWS:
        go(page, group, value)
        expect_no_overflow(page, 768, 320)


def test_every_control_works_by_touch_on_a_phone(
    visit: Visit, server: Server, client: httpx.Client
) -> None:
    phone: dict[str, Any] = {
        "viewport": {"width": 390, "height": 844},
        "has_touch": True,
        "is_mobile": True,
    }
    with visit(server, **phone) as page:
        image_id = choose_sample(page)
        crop = page.locator("#crop")
        crop.scroll_into_view_if_needed()
        crop.tap(position=cell_of(crop, 1, 6, GRID))
        expect(page.locator('#reading [data-name="Query"]')).to_have_text("row 1, column 6")
        page.locator("label", has=page.locator("input[name=direction][value=to]")).tap()
        expect(page.locator("#map-what")).to_contain_text("what attends to patch 1,6")
        wait_until_loaded(page)
        expect_map(page, maps(client, id=image_id, layer=15, query="1,6", direction="to"))
        for group, value in VIEWS:
            go(page, group, value)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 390, value
            for control in page.locator("button:visible, select:visible").all():
                if control.evaluate("control => control.closest('#samples') !== null"):
                    continue  # they scroll sideways in a row of their own
                box = control.bounding_box()
                assert box is not None
                assert box["x"] >= 0, control
                assert box["x"] + box["width"] <= 390, control
                assert box["height"] >= 24, control


def test_axe_finds_nothing_in_any_view(visit: Visit, server: Server) -> None:
    with visit(server, bypass_csp=True) as page:
        found = violations(page, "start")
        choose_sample(page)
        for group, value in VIEWS:
            go(page, group, value)
            found |= violations(page, value)
        page.get_by_role("button", name=re.compile("^API call of Maps")).click()
        found |= violations(page, "dialog")
        assert found == {}


def test_a_chosen_colour_scheme_is_kept(page: Page) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Switch to dark colours").click()
    dark = page.evaluate(paper)
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Switch to light colours")).to_be_visible()
    assert page.evaluate(paper) == dark
