"""The views of one block: heads, rollout, the raw map and Theta, with the API's numbers."""

import re

import httpx
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import DEEPVIT
from tests.explorer.steps import (
    BLOCKS,
    GRID,
    HEADS,
    cell_of,
    choose,
    choose_sample,
    expect_map,
    maps,
    state,
    wait_until_loaded,
)

TOKENS = GRID * GRID + 1


def test_rollout_is_one_map_over_all_blocks(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    page.get_by_role("radio", name=re.compile("^rollout")).check(force=True)
    for direction, summed in (("from", "Row"), ("to", "Column")):
        choose(page, "direction", direction)
        expect(page.locator("#map-title")).to_have_text("Rollout, softmax")
        expect(page.locator("#reading")).to_contain_text(f"{summed} sum")
        wait_until_loaded(page)
        expect(page.locator("#head")).to_be_disabled()
        query = {"id": image_id, "layer": "rollout", "stage": "softmax", "direction": direction}
        expect_map(page, maps(client, **query))


def test_a_head_is_chosen_among_all_blocks_and_heads(page: Page, client: httpx.Client) -> None:
    image_id = choose_sample(page)
    choose(page, "view", "grid")
    plot = page.get_by_role("slider", name=re.compile("^All blocks"))
    box = plot.bounding_box()
    assert box is not None
    x, y = 6.5 * box["width"] / BLOCKS, 4.5 * box["height"] / HEADS
    plot.click(position={"x": x, "y": y})
    expect(page.locator("#map-title")).to_contain_text("Block 6")
    expect(page.locator("#map-what")).to_contain_text("head 4")
    expect_map(page, maps(client, id=image_id, layer=6, head=4))


def test_the_cross_hair_of_the_raw_map_reads_entries_and_chooses_query_and_key(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    choose(page, "view", "raw")
    readout = page.locator(".raw .readout")
    expect(readout).to_contain_text("class token attends to row 0, column 0")
    page.get_by_role("slider", name=re.compile("^Raw map")).press("ArrowRight")
    expect(readout).to_contain_text("class token attends to row 0, column 1")
    expected = maps(client, id=image_id, layer=15, query="all")
    value = float(readout.get_attribute("data-value") or "nan")
    assert value == pytest.approx(float(expected[0, 2]), rel=1e-4)
    page.select_option("#head", "max_abs")
    expect(page.locator("#map-what")).to_contain_text("maximum of absolute values")
    expect(readout).to_contain_text("class token attends to")
    query, key = 1 + 2 * GRID + 5, 1 + 6 * GRID + 1
    side = TOKENS + 1  # with a gap after the class token
    plot = page.get_by_role("slider", name=re.compile("^Raw map"))
    plot.click(position=cell_of(plot, query + 1, key + 1, side))
    expect(readout).to_contain_text("row 2, column 5 attends to row 6, column 1")
    expected = maps(client, id=image_id, layer=15, head="max_abs", query="all")
    value = float(readout.get_attribute("data-value") or "nan")
    assert value == pytest.approx(float(expected[query, key]), rel=1e-4)
    page.wait_for_url(re.compile("query=2,5"))
    for hair, edge, index in (("across", "top", query), ("down", "left", key)):
        style = page.locator(f".hair.{hair}").evaluate(f"hair => hair.style.{edge}")
        assert float(style.removesuffix("%")) == pytest.approx(100 * (index + 1.5) / side, abs=0.01)
    expect_map(page, maps(client, id=image_id, layer=15, head="max_abs", query="2,5"))


def test_theta_is_that_of_the_checkpoint_and_its_row_sums_are_measured(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    choose(page, "view", "theta")
    page.get_by_role("radio", name=re.compile("^block 3,")).check(force=True)
    page.wait_for_url(re.compile("layer=3"))
    mixing = client.get(f"/models/{DEEPVIT}").json()["manifest"]["reattention"][3]
    table = page.locator(".theta figure").last.locator("tbody tr")
    expect(table.first.locator("td")).to_have_count(4)  # the measured ones too
    wait_until_loaded(page)
    shown = page.locator(".theta .numbers").first.locator("td[title]")
    words = [str(cell.get_attribute("title")).split() for cell in shown.all()]
    theta = np.reshape([float(taken[3]) for taken in words], (HEADS, HEADS))
    np.testing.assert_allclose(theta, mixing["theta"], rtol=1e-6)
    rows = [
        [float(cell.get_attribute("data-value") or "nan") for cell in row.locator("td").all()[:3]]
        for row in table.all()
    ]
    offset, row_sum, measured = np.transpose(rows)
    np.testing.assert_allclose(offset, mixing["offset"], rtol=1e-6)
    np.testing.assert_allclose(row_sum, mixing["row_sum"], rtol=1e-6)
    means = [
        maps(client, id=image_id, layer=3, head=head, query="all").sum(-1).mean()
        for head in range(HEADS)
    ]
    np.testing.assert_allclose(measured, means, rtol=1e-3, atol=1e-3)
    assert state(page)["view"] == "theta"
