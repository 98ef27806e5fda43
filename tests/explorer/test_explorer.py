"""The explorer in a browser: what it shows is what the API says."""

import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import DEEPVIT, VIT
from tests.explorer.conftest import refused
from tests.server import ROOT

GRID, HEADS = 8, 6
CAT = ROOT / "tests" / "data" / "cat.jpg"


def choose_sample(page: Page, name: str = "cat") -> str:
    """Click a bundled photograph; the id of what the model saw of it."""
    page.get_by_role("button", name=re.compile(f"{name}$")).click()
    expect(page.locator("#predictions li")).to_have_count(5)
    page.wait_for_url(re.compile(r"id=[0-9a-f]{32}"))
    return state(page)["id"]


def state(page: Page) -> dict[str, str]:
    return dict(part.split("=", 1) for part in page.url.partition("#")[2].split("&") if part)


def choose(page: Page, name: str, value: str) -> None:
    """One of a group of radio buttons."""
    page.locator(f"input[name={name}][value={value}]").check(force=True)


def shown(page: Page, name: str) -> float:
    """A number that the page reads out, in full."""
    return float(
        page.locator(f'#reading [data-name="{name}"]').get_attribute("data-value") or "nan"
    )


def maps(client: httpx.Client, **query: Any) -> np.ndarray[Any, Any]:
    answer = client.get("/attention-maps", params=query | {"format": "npy"})
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))[0, 0]  # type: ignore[no-any-return]


def shows(page: Page, expected: np.ndarray[Any, Any]) -> None:
    """The map [N] on the page is the expected one, as far as it is read out in numbers."""
    patches = expected[1:]
    strongest = page.locator('#reading [data-name="Strongest patch"]')
    row, column = divmod(int(patches.argmax()), GRID)
    expect(strongest).to_contain_text(f"row {row}, column {column}")
    assert shown(page, "Strongest patch") == pytest.approx(float(patches.max()), rel=1e-4)
    assert shown(page, "Class token") == pytest.approx(float(expected[0]), rel=1e-4, abs=1e-6)
    if (expected < 0).any():
        assert shown(page, "Most negative") == pytest.approx(float(patches.min()), rel=1e-4)


def test_an_uploaded_picture_is_answered_at_once(
    page: Page, client: httpx.Client, photo: bytes
) -> None:
    page.set_input_files("#file", CAT)
    best = client.post("/classify", files={"image": photo}).json()["results"][0]
    expect(page.locator("#predictions li").first).to_contain_text(best["predictions"][0]["label"])
    probabilities = [
        float(item.get_attribute("data-probability") or "nan")
        for item in page.locator("#predictions li").all()
    ]
    expected = [prediction["probability"] for prediction in best["predictions"]]
    assert probabilities == pytest.approx(expected, abs=1e-5)
    shows(page, maps(client, id=best["id"], layer=15))


def test_the_crop_is_pixel_by_pixel_what_the_model_saw(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    drawn = page.evaluate(
        "Array.from(document.querySelector('#crop canvas').getContext('2d')"
        ".getImageData(0, 0, 32, 32).data)"
    )
    query = {"id": image_id, "layer": "0", "format": "npz"}
    with np.load(io.BytesIO(client.get("/attention-maps", params=query).content)) as found:
        np.testing.assert_array_equal(np.reshape(drawn, (32, 32, 4))[..., :3], found["input"])


@pytest.mark.parametrize("stage", ["softmax", "reattention"])
@pytest.mark.parametrize("head", ["mean", "max_abs", "rms", "2"])
def test_stage_heads_block_and_direction_change_the_numbers(
    page: Page, client: httpx.Client, stage: str, head: str
) -> None:
    image_id = choose_sample(page)
    choose(page, "stage", stage)
    page.select_option("#head", head)
    page.get_by_role("radio", name=re.compile("^block 3,")).check(force=True)
    expect(page.locator("#map-title")).to_contain_text("Block 3")
    choose(page, "direction", "to")
    expect(page.locator("#map-what")).to_contain_text("what looks at the class token")
    expect(page.locator("#progress")).to_be_hidden()
    query = {"id": image_id, "layer": 3, "head": head, "stage": stage, "direction": "to"}
    shows(page, maps(client, **query))


def test_a_query_is_chosen_by_mouse_and_by_keyboard(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page, "dog")
    crop = page.locator("#crop")
    box = crop.bounding_box()
    assert box is not None
    side = box["width"] / GRID
    crop.click(position={"x": 5.5 * side, "y": 2.5 * side})
    expect(page.locator('#reading [data-name="Query"]')).to_have_text("row 2, column 5")
    page.mouse.move(0, 0)
    crop.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):
        crop.press(key)
    expect(page.locator('#reading [data-name="Query"]')).to_have_text("row 4, column 4")
    page.wait_for_url(re.compile("query=4,4"))
    expect(page.locator("#progress")).to_be_hidden()
    expect(page.locator("#live")).to_contain_text("Query: row 4, column 4; block 15")
    shows(page, maps(client, id=image_id, layer=15, query="4,4"))
    crop.press("Home")
    expect(page.locator('#reading [data-name="Query"]')).to_have_text("class token")


def test_pointing_previews_a_query_and_leaves_the_chosen_one(page: Page) -> None:
    choose_sample(page)
    query = page.locator('#reading [data-name="Query"]')
    expect(page.locator("#progress")).to_be_hidden()
    page.locator("#crop").hover(position={"x": 3, "y": 3})
    expect(query).to_have_text("row 0, column 0")
    page.mouse.move(0, 0)
    expect(query).to_have_text("class token")
    assert "query" not in state(page)


def test_the_raw_map_reads_single_entries(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    choose(page, "view", "raw")
    readout = page.locator(".raw .readout")
    expect(readout).to_contain_text("class token looks at row 0, column 0")
    page.get_by_role("slider", name=re.compile("^Raw map")).press("ArrowRight")
    expect(readout).to_contain_text("class token looks at row 0, column 1")
    expected = maps(client, id=image_id, layer=15, query="all")
    value = float(readout.get_attribute("data-value") or "nan")
    assert value == pytest.approx(float(expected[0, 2]), rel=1e-4)


def test_the_count_of_similar_blocks_follows_the_threshold(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    page.select_option("#model", VIT)
    page.get_by_role("button", name="Understand").click()
    count = page.locator("#similar-count")
    counts = []
    for threshold in (0.9, 0.6, 0.55):
        page.locator("#threshold").fill(str(threshold))
        query = {"id": image_id, "model": VIT, "threshold": str(threshold)}
        found = client.get("/similarity", params=query).json()["similar_blocks"]
        expect(count).to_have_attribute("data-count", str(found["count"]))
        counts.append(found["count"])
    assert len(set(counts)) > 1


def test_two_models_are_compared_on_one_picture(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    page.get_by_role("button", name="Compare").click()
    cells = page.locator(".counts td[data-count]")
    expect(cells).to_have_count(4)
    for cell in cells.all():
        model, stage = cell.get_attribute("data-model"), cell.get_attribute("data-stage")
        query = {"id": image_id, "model": str(model), "stage": str(stage)}
        found = client.get("/similarity", params=query).json()["similar_blocks"]
        expect(cell).to_have_attribute("data-count", str(found["count"]))
    for model in (DEEPVIT, VIT):
        expect(page.get_by_role("heading", name=model).first).to_be_visible()


def test_a_link_restores_the_view(page: Page) -> None:
    choose_sample(page)
    choose(page, "stage", "softmax")
    page.locator("#crop").focus()
    page.locator("#crop").press("ArrowUp")
    choose(page, "view", "theta")
    page.wait_for_url(re.compile("view=theta"))
    link = page.url
    reading = page.locator("#reading")
    before = reading.inner_text()
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#predictions li")).to_have_count(5)
    expect(page.locator(".theta .numbers").first).to_be_visible()
    expect(reading).to_have_text(before, use_inner_text=True)
    page.goto("about:blank")
    page.goto(link.replace("sample=cat", ""))  # by the id alone
    expect(page.locator("#predictions li").first).to_contain_text("frog")
    expect(reading).to_have_text(before, use_inner_text=True)


def test_a_link_to_a_forgotten_picture_says_so(page: Page, wrong: list[str]) -> None:
    page.goto("about:blank")
    page.goto(f"/#id={'0' * 32}")
    expect(page.get_by_role("alert")).to_contain_text("The server no longer has this picture")
    refused(page, wrong, 404)


def test_views_can_be_taken_away(page: Page, client: httpx.Client, tmp_path: Path) -> None:
    image_id = choose_sample(page)
    with page.expect_download() as numbers:
        page.get_by_role("button", name="NPZ of Inside").click()
    numbers.value.save_as(tmp_path / "heads.npz")
    with np.load(tmp_path / "heads.npz") as found:
        query = {"id": image_id, "layer": "15", "head": "all", "format": "npy"}
        answer = client.get("/attention-maps", params=query)
        expected = np.load(io.BytesIO(answer.content))[0]
        np.testing.assert_allclose(found["maps"], expected, rtol=1e-4, atol=1e-6)
    with page.expect_download() as picture:
        page.get_by_role("button", name="PNG of Inside").click()
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("width", [320, 768])
def test_nothing_is_wider_than_a_narrow_screen(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    choose_sample(page)
    views = [("view", view) for view in ("heads", "grid", "raw", "theta")]
    for group, value in [*views, ("section", "understand"), ("section", "compare")]:
        if group == "view":
            choose(page, group, value)
        else:
            page.locator(f"[data-section={value}]").click()
        page.wait_for_url(re.compile(value if value != "heads" else "id="))
        expect(page.locator("#progress")).to_be_hidden()
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= page.evaluate("document.documentElement.clientWidth"), value
