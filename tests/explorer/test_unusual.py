"""The explorer with networks that are not square, have no class token, or several right classes."""

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from tests.explorer.conftest import Visit
from tests.explorer.steps import (
    CAT,
    cell_of,
    choose,
    choose_sample,
    maps,
    reading,
    state,
    wait_until_loaded,
)
from tests.support.server import Server
from tests.support.unusual import REGISTERS, TALL, WIDE, YES_OR_NO, config_of


def look(page: Page, model: str, classes: int = 5) -> str:
    """Show the cat to a model; returns the image id."""
    expect(page.locator("#model option")).to_have_count(4)
    page.select_option("#model", model)
    return choose_sample(page, classes=classes)


def share(marker: Locator) -> tuple[float, ...]:
    """Where a marker lies, in shares of its picture: left, top, width, height."""
    found: list[float] = marker.evaluate(
        "one => { const own = one.getBoundingClientRect(),"
        " all = one.parentElement.getBoundingClientRect();"
        " return [(own.left - all.left) / all.width, (own.top - all.top) / all.height,"
        " own.width / all.width, own.height / all.height]; }"
    )
    return tuple(found)


def aspect(element: Locator) -> float:
    box = element.bounding_box()
    assert box is not None
    return box["width"] / box["height"]


def expect_strongest(page: Page, expected: np.ndarray, model: str) -> None:
    """The page reads out the strongest patch of the expected map [N], and marks it."""
    config = config_of(model)
    patches = expected[config.prefix_tokens :]
    row, column = divmod(int(patches.argmax()), config.grid.width)
    strongest = page.locator('#reading [data-name="Strongest patch"]')
    expect(strongest).to_contain_text(f"row {row}, column {column}")
    assert reading(page, "Strongest patch") == pytest.approx(float(patches.max()), rel=1e-4)
    rows, columns = config.grid
    assert share(page.locator("#overlay .marker.strong")) == pytest.approx(
        (column / columns, row / rows, 1 / columns, 1 / rows), abs=0.01
    )


@pytest.mark.parametrize("model", [WIDE, TALL])
def test_maps_have_the_proportions_of_the_picture(
    visit: Visit, unusual_server: Server, model: str
) -> None:
    height, width = config_of(model).img_size
    rows, columns = config_of(model).grid
    with visit(unusual_server) as page, unusual_server.client() as client:
        image_id = look(page, model)
        wait_until_loaded(page)
        words = f"{height} \u00d7 {width} px (height \u00d7 width), {rows} \u00d7 {columns} patches"
        expect(page.locator("#seen-size")).to_have_text(words)
        shown = ["#crop", "#overlay", "#look .tiles.strip canvas", "#look .tiles.heads canvas"]
        for name in shown:
            assert aspect(page.locator(name).first) == pytest.approx(width / height, rel=0.03)
        drawn = page.evaluate(
            "([w, h]) => Array.from(document.querySelector('#crop canvas').getContext('2d')"
            ".getImageData(0, 0, w, h).data)",
            [width, height],
        )
        with Image.open(io.BytesIO(client.get(f"/images/{image_id}").content)) as png:
            seen = np.asarray(png)
        np.testing.assert_array_equal(np.reshape(drawn, (height, width, 4))[..., :3], seen)
        choose(page, "view", "grid")
        grid = page.get_by_role("slider", name=re.compile("^All blocks"))
        across, down = 2 * (columns + 1) - 1, 3 * (rows + 1) - 1
        patch = config_of(model).patch_size
        expected = across * patch.width / (down * patch.height)
        assert aspect(grid) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("model", [WIDE, TALL])
def test_mouse_and_keys_find_the_patch(visit: Visit, unusual_server: Server, model: str) -> None:
    rows, columns = config_of(model).grid
    with visit(unusual_server) as page, unusual_server.client() as client:
        image_id = look(page, model)
        wait_until_loaded(page)
        query = page.locator('#reading [data-name="Query"]')
        crop, marker = page.locator("#crop"), page.locator("#crop .marker.query")
        last = rows - 1, columns - 1
        crop.hover(position=cell_of(crop, *last, rows, columns))
        expect(query).to_have_text(f"row {last[0]}, column {last[1]}")
        assert share(marker) == pytest.approx(
            (last[1] / columns, last[0] / rows, 1 / columns, 1 / rows), abs=0.01
        )
        crop.click(position=cell_of(crop, 2, 3, rows, columns))
        page.wait_for_url(re.compile("query=2,3"))
        page.mouse.move(0, 0)
        expect_strongest(page, maps(client, id=image_id, model=model, layer=1, query="2,3"), model)
        for key in ("ArrowDown", "ArrowLeft", "ArrowLeft"):
            crop.press(key)
        page.wait_for_url(re.compile("query=3,1"))
        expect(query).to_have_text("row 3, column 1")
        for _ in range(columns):
            crop.press("ArrowRight")
        page.wait_for_url(re.compile(f"query=3,{columns - 1}"))
        overlay = page.locator("#overlay")
        overlay.hover(position=cell_of(overlay, 1, 2, rows, columns))
        expected = maps(client, id=image_id, model=model, layer=1, query=f"3,{columns - 1}")
        token = config_of(model).prefix_tokens + columns + 2
        expect(page.locator('#reading [data-name="Under the pointer"]')).to_contain_text(
            "row 1, column 2"
        )
        assert reading(page, "Under the pointer") == pytest.approx(float(expected[token]), rel=1e-4)


@pytest.mark.parametrize(("model", "middle"), [(TALL, "4,2"), (REGISTERS, "2,2")])
def test_without_a_class_token_the_patch_in_the_middle_is_shown_first(
    visit: Visit, unusual_server: Server, model: str, middle: str
) -> None:
    row, column = middle.split(",")
    with visit(unusual_server) as page, unusual_server.client() as client:
        image_id = look(page, model)
        wait_until_loaded(page)
        query = page.locator('#reading [data-name="Query"]')
        expect(query).to_have_text(f"row {row}, column {column}")
        expect(page.locator("#map-what")).to_contain_text(f"what patch {middle} attends to")
        expect_strongest(page, maps(client, id=image_id, model=model, layer=1), model)
        button = page.get_by_role("button", name="Middle patch")
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(page.locator(".class-token")).to_be_hidden()
        expect(page.locator("#crop-hint")).to_contain_text("Home selects the patch in the middle.")
        crop = page.get_by_role("slider", name=re.compile("Home selects the patch in the middle"))
        crop.first.press("ArrowUp")
        expect(query).to_have_text(f"row {int(row) - 1}, column {column}")
        expect(button).to_have_attribute("aria-pressed", "false")
        crop.first.press("Home")
        expect(query).to_have_text(f"row {row}, column {column}")
        assert "class token" not in page.locator("#answer").inner_text().lower()


def test_registers_are_not_called_a_class_token(visit: Visit, unusual_server: Server) -> None:
    with visit(unusual_server) as page, unusual_server.client() as client:
        image_id = look(page, REGISTERS)
        wait_until_loaded(page)
        expected = maps(client, id=image_id, model=REGISTERS, layer=1)
        for index in (0, 1):
            found = reading(page, f"Register {index}")
            assert found == pytest.approx(float(expected[index]), rel=1e-4)
        choose(page, "view", "raw")
        expect(page.locator(".raw")).to_contain_text(
            "A gap separates register 0 and register 1 from the patches"
        )
        plot = page.get_by_role("slider", name=re.compile("^Raw map"))
        plot.click(position=cell_of(plot, 1, 0, 19))
        readout = page.locator(".raw .readout")
        expect(readout).to_contain_text("register 1 attends to register 0")
        whole = maps(client, id=image_id, model=REGISTERS, layer=1, query="all")
        value = float(readout.get_attribute("data-value") or "nan")
        assert value == pytest.approx(float(whole[1, 0]), rel=1e-4)


def test_a_raw_map_of_patches_alone_has_no_gap(visit: Visit, unusual_server: Server) -> None:
    with visit(unusual_server) as page, unusual_server.client() as client:
        image_id = look(page, TALL)
        choose(page, "view", "raw")
        wait_until_loaded(page)
        expect(page.locator(".raw")).to_contain_text("the patches, row by row")
        sides = "canvas => [canvas.width, canvas.height]"
        assert page.locator(".raw .plot canvas").evaluate(sides) == [32, 32]
        plot = page.get_by_role("slider", name=re.compile("^Raw map"))
        assert aspect(plot) == pytest.approx(1, abs=0.01)
        whole = maps(client, id=image_id, model=TALL, layer=1, query="all")
        readout = page.locator(".raw .readout")
        for query, key in ((0, 0), (31, 6)):
            plot.click(position=cell_of(plot, query, key, 32))
            words = (
                f"row {query // 4}, column {query % 4} attends to row {key // 4}, column {key % 4}"
            )
            expect(readout).to_contain_text(words)
            value = float(readout.get_attribute("data-value") or "nan")
            assert value == pytest.approx(float(whole[query, key]), rel=1e-4)


@pytest.mark.parametrize(("model", "classes"), [(REGISTERS, 5), (YES_OR_NO, 1), (WIDE, 5)])
def test_probabilities_are_explained_where_they_share_nothing(
    visit: Visit, unusual_server: Server, model: str, classes: int
) -> None:
    words = {REGISTERS: "do not add up to 100%", YES_OR_NO: "above 50% it says yes", WIDE: ""}[
        model
    ]
    with visit(unusual_server) as page, unusual_server.client() as client:
        look(page, model, classes)
        expect(page.locator("#scores")).to_contain_text(words)
        if not words:
            expect(page.locator("#scores")).to_be_hidden()
        answer = client.post(
            "/classify", params={"model": model}, files={"image": CAT.read_bytes()}
        ).json()
        by_file = shown(page)
        assert by_file == pytest.approx(
            [one["probability"] for one in answer["results"][0]["predictions"]], abs=1e-4
        )
        link = page.url.replace("sample=cat", "")
        page.goto("about:blank")
        page.goto(link)  # by the id alone: the page computes probabilities from logits
        expect(page.locator("#predictions li")).to_have_count(classes)
        assert shown(page) == pytest.approx(by_file, abs=1e-4)


def shown(page: Page) -> list[float]:
    """The probabilities on the page."""
    return [
        float(item.get_attribute("data-probability") or "nan")
        for item in page.locator("#predictions li").all()
    ]


def test_models_of_different_shapes_are_compared(visit: Visit, unusual_server: Server) -> None:
    with visit(unusual_server) as page, unusual_server.client() as client:
        look(page, WIDE)
        page.get_by_role("button", name="Compare").click()
        page.get_by_label("Compare with").select_option(TALL)
        note = page.locator("#compare .row .quiet")
        expect(note).to_contain_text(
            "tall has no class token: its query is the patch in the middle."
        )
        picture = page.locator("#compare").get_by_role("slider", name=re.compile("^Query patch"))
        picture.click(position=cell_of(picture, 2, 7, 6, 8))
        expect(note).to_contain_text("its query is patch 3,3, at the same place")
        sides = page.locator("#compare .versus.three > div:has(.cover)")
        for side, (model, query) in zip(sides.all(), ((WIDE, "2,7"), (TALL, "3,3")), strict=True):
            size = config_of(model).img_size
            stack = side.locator(".stack")
            assert aspect(stack) == pytest.approx(size.width / size.height, rel=0.03)
            found = patches_of(client, model, query)
            words = side.get_by_text(re.compile("^Patches: ")).inner_text().replace("\u2212", "-")
            low, high = map(float, words.removeprefix("Patches: ").split(" to "))
            assert (low, high) == pytest.approx((found.min(), found.max()), rel=6e-3)
            row, column = 1, config_of(model).grid.width - 1
            stack.hover(position=cell_of(stack, row, column, *config_of(model).grid))
            expect(side.locator(".readout").first).to_contain_text(f"row {row}, column {column}: ")


def patches_of(client: httpx.Client, model: str, query: str) -> np.ndarray:
    """The map of one query over patches, in the last block."""
    answer = client.post("/classify", params={"model": model}, files={"image": CAT.read_bytes()})
    image_id = answer.json()["results"][0]["id"]
    found = maps(client, id=image_id, model=model, layer=1, query=query)
    return found[config_of(model).prefix_tokens :]


def test_a_link_to_another_shape_of_input_says_so(
    visit: Visit, unusual_server: Server, photo: bytes
) -> None:
    with visit(unusual_server) as page, unusual_server.client() as client:
        answer = client.post("/classify", params={"model": WIDE}, files={"image": photo}).json()
        page.goto("about:blank")
        page.goto(f"/#model={TALL}&id={answer['results'][0]['id']}")
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("prepared at 48 \u00d7 128 px (height \u00d7 width), but")
        expect(alert).to_contain_text("tall needs 64 \u00d7 32 px (height \u00d7 width)")


def test_downloads_keep_the_proportions(visit: Visit, unusual_server: Server) -> None:
    with visit(unusual_server) as page:
        look(page, WIDE)
        wait_until_loaded(page)
        with page.expect_download() as waiting:
            page.get_by_role("button", name="PNG of Details").click()
        with Image.open(waiting.value.path()) as png:
            picture = np.asarray(png.convert("RGB")).astype(int)
        strips = [coloured(line) for line in picture]
        longest = max(strips)
        assert longest / strips.count(longest) == pytest.approx(
            3 * config_of(WIDE).img_size.width / config_of(WIDE).img_size.height, rel=0.1
        )
        assert "query" not in state(page)


def coloured(line: np.ndarray) -> int:
    """How many pixels of a line are neither grey nor nearly so."""
    return int((np.ptp(line, axis=-1) > 3).sum())
