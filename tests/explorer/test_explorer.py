"""The explorer in a browser shows the numbers of the API."""

import base64
import io
import re

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import DEEPVIT, VIT
from tests.explorer.conftest import expect_refusals
from tests.explorer.steps import (
    BOAT,
    CAT,
    GRID,
    cell_of,
    choose,
    choose_sample,
    expect_map,
    maps,
    state,
    wait_until_loaded,
)

# The event that a browser sends for a file that is dropped or pasted.
DROP_OR_PASTE = """([event, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "cat.jpg", { type: "image/jpeg" }));
  const made = event === "paste"
    ? new ClipboardEvent(event, { clipboardData: data, bubbles: true })
    : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(made);
}"""


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
    expect_map(page, maps(client, id=best["id"], layer=15))
    drawn = page.evaluate(
        "Array.from(document.querySelector('#crop canvas').getContext('2d')"
        ".getImageData(0, 0, 32, 32).data)"
    )
    query = {"id": best["id"], "layer": "0", "format": "npz"}  # with the model's input
    with np.load(io.BytesIO(client.get("/attention-maps", params=query).content)) as found:
        np.testing.assert_array_equal(np.reshape(drawn, (32, 32, 4))[..., :3], found["input"])


def test_a_picture_can_be_dropped_and_pasted(page: Page, client: httpx.Client) -> None:
    for event, picture in (("drop", CAT), ("paste", BOAT)):
        content = picture.read_bytes()
        best = client.post("/classify", files={"image": content}).json()["results"][0]
        page.evaluate(DROP_OR_PASTE, [event, base64.b64encode(content).decode()])
        page.wait_for_url(re.compile(f"id={best['id']}"))
        label = best["predictions"][0]["label"]
        expect(page.locator("#predictions li").first).to_contain_text(label)


def test_stage_heads_block_and_direction_change_the_numbers(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    page.get_by_role("radio", name=re.compile("^block 3,")).check(force=True)
    choose(page, "direction", "to")
    what = page.locator("#map-what")
    for stage, stage_in_words in (("softmax", "softmax"), ("reattention", "re-attention")):
        choose(page, "stage", stage)
        expect(page.locator("#map-title")).to_have_text(f"Block 3, {stage_in_words}")
        for head, heads in (
            ("mean", "mean of heads"),
            ("max_abs", "maximum of absolute values"),
            ("rms", "root mean square"),
            ("2", "head 2"),
        ):
            page.select_option("#head", head)
            expect(what).to_have_text(f"what attends to the class token, {heads}")
            wait_until_loaded(page)
            query = {"id": image_id, "layer": 3, "head": head, "stage": stage, "direction": "to"}
            expect_map(page, maps(client, **query))


def test_a_query_is_chosen_by_mouse_and_by_keyboard(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page, "boat")
    crop, query = page.locator("#crop"), page.locator('#reading [data-name="Query"]')
    wait_until_loaded(page)
    crop.hover(position={"x": 3, "y": 3})
    expect(query).to_have_text("row 0, column 0")
    page.mouse.move(0, 0)  # pointing is a preview, and leaves the chosen one
    expect(query).to_have_text("class token")
    assert "query" not in state(page)
    crop.click(position=cell_of(crop, 2, 5, GRID))
    expect(query).to_have_text("row 2, column 5")
    page.mouse.move(0, 0)
    crop.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowLeft"):
        crop.press(key)
    expect(query).to_have_text("row 4, column 4")
    page.wait_for_url(re.compile("query=4,4"))
    wait_until_loaded(page)
    expect(page.locator("#live")).to_contain_text("Query: row 4, column 4; block 15")
    expect_map(page, maps(client, id=image_id, layer=15, query="4,4"))
    crop.press("Home")
    expect(query).to_have_text("class token")


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
    reading = page.locator("#reading")
    expect(reading).to_contain_text("row 4, column 4")
    expect(reading).not_to_contain_text("Negative entries")  # which softmax maps have none of
    wait_until_loaded(page)
    link = page.url
    before = reading.inner_text()
    page.goto("about:blank")
    page.goto(link)
    expect(page.locator("#predictions li")).to_have_count(5)
    expect(page.locator(".theta .numbers").first).to_be_visible()
    expect(reading).to_have_text(before, use_inner_text=True)
    page.goto("about:blank")
    page.goto(link.replace("sample=cat", ""))  # by the id alone
    expect(page.locator("#predictions li").first).to_contain_text("cat")
    expect(reading).to_have_text(before, use_inner_text=True)


def test_a_link_to_a_forgotten_picture_says_so(new_page: Page, problems: list[str]) -> None:
    new_page.goto(f"/#id={'0' * 32}")
    alert = new_page.get_by_role("alert")
    expect(alert).to_contain_text("The server no longer has this picture")
    expect_refusals(new_page, problems, 404)
