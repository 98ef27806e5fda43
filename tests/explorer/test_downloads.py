"""Files that the page offers for download contain the numbers of the API."""

import io
import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from tests.explorer.steps import GRID, HEADS, card, choose, choose_sample, maps, wait_until_loaded
from tests.support.server import Server

MARGIN, TITLE, PANEL, GAP, LABEL = 28, 30, 220, 12, 18  # pixels in the layout of a picture


def downloaded(page: Page, button: str) -> bytes:
    wait_until_loaded(page)
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    return Path(download.value.path()).read_bytes()


def test_numbers_of_maps(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    views: dict[str, dict[str, Any]] = {
        "heads": {"layer": 15, "head": "all"},
        "grid": {"layer": "all", "head": "all"},
        "raw": {"layer": 15, "head": "mean", "query": "all"},
    }
    for view, query in views.items():
        choose(page, "view", view)
        with np.load(io.BytesIO(downloaded(page, "NPZ of Details"))) as found:
            answer = client.get("/attention-maps", params={"id": image_id, "format": "npy"} | query)
            expected = np.load(io.BytesIO(answer.content)).reshape(found["maps"].shape)
            np.testing.assert_allclose(found["maps"], expected, rtol=1e-4, atol=1e-6)
    with np.load(io.BytesIO(downloaded(page, "NPZ of Blocks"))) as found:
        blocks = [maps(client, id=image_id, layer=layer) for layer in range(16)]
        np.testing.assert_allclose(found["maps"], blocks, rtol=1e-4, atol=1e-6)


def test_numbers_of_measures(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    choose(page, "stage", "softmax")
    page.get_by_role("button", name="Understand").click()
    expect(page.locator("#similar-count")).to_contain_text("of 15")
    answer = client.get("/similarity", params={"id": image_id, "stage": "softmax"}).json()
    expected = {
        "Similarity of blocks": ("similarity", answer["matrix"]["column"]),
        "Neighbouring blocks": ("neighbours", answer["neighbours"]["mean"]),
        "Heads of a block": ("heads", answer["heads"]),
        "Features": ("features", answer["features"]),
        "Entropy": ("entropy", answer["entropy"]),
        "Attention distance": ("attention_distance", answer["attention_distance"]),
    }
    for title, (name, values) in expected.items():
        with np.load(io.BytesIO(downloaded(page, f"NPZ of {title}"))) as found:
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
    with np.load(io.BytesIO(downloaded(page, "NPZ of Similarity of blocks"))) as found:
        for layer in (14, 15):
            block = maps(client, id=image_id, layer=layer, stage="softmax")
            np.testing.assert_allclose(found[f"block_{layer}"].ravel(), block[1:], rtol=1e-4)
    with Image.open(io.BytesIO(downloaded(page, "PNG of Neighbouring blocks"))) as chart:
        assert (chart.format, len(chart.getcolors(1 << 20) or []) > 2) == ("PNG", True)


def test_a_picture_is_lighter_where_attention_is_larger(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    choose(page, "stage", "softmax")
    expect(page.locator("#map-title")).to_contain_text("softmax")
    with Image.open(io.BytesIO(downloaded(page, "PNG of Details"))) as opened:
        light = np.asarray(opened.convert("L"), dtype=np.int64)
    centres = ((np.arange(GRID) + 0.5) * PANEL / GRID).astype(int)
    seen = []
    for head in range(HEADS):
        top = MARGIN + TITLE + head // 3 * (PANEL + GAP + LABEL) + LABEL
        left = MARGIN + head % 3 * (PANEL + GAP)
        seen.append(light[np.ix_(top + centres, left + centres)].ravel())
    query = {"id": image_id, "layer": 15, "stage": "softmax"}
    expected = [maps(client, **query, head=head)[1:] for head in range(HEADS)]
    order = np.argsort(np.ravel(expected), kind="stable")
    assert (np.diff(np.ravel(seen)[order]) >= -1).all()  # rounding may cost one level of grey


def test_the_call_behind_a_view_answers(page: Page, server: Server) -> None:
    choose_sample(page)
    wait_until_loaded(page)
    for title, shape in (("Blocks", (16, 1, 65)), ("Details", (1, HEADS, 65))):
        card(page, title).get_by_role("button", name="API call").click()
        text = page.get_by_role("dialog").locator("pre").first.inner_text()
        (address,) = re.findall(r"'(http[^']+)'", text)
        assert address.startswith(server.url)
        answer = httpx.get(address, timeout=60)
        assert np.load(io.BytesIO(answer.content)).shape == shape
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
