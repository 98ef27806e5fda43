"""The section "Understand" and its counts, against the API."""

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.conftest import VIT
from tests.explorer.steps import BLOCKS, card, cell_of, choose, choose_sample, wait_until_loaded


def measured(client: httpx.Client, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/similarity", params=query).raise_for_status().json()
    return found


def percent(shares: list[float]) -> str:
    return f"{100 * sum(shares) / len(shares):.0f}%"


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
        found = measured(client, **query)["similar_blocks"]
        expect(count).to_have_attribute("data-count", str(found["count"]))
        counts.append(found["count"])
    assert len(set(counts)) > 1


def test_a_cell_of_the_matrix_shows_both_blocks_in_every_variant(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    page.get_by_role("button", name="Understand").click()
    shown = card(page, "Similarity of blocks")
    value = shown.locator(".readout[data-value]")
    expect(value).to_contain_text("Blocks 14 and 15")
    plot = page.get_by_role("slider", name=re.compile("^Similarity of all pairs"))
    plot.click(position=cell_of(plot, 3, 9, BLOCKS))
    expect(value).to_contain_text("Blocks 3 and 9")
    expect(shown.get_by_role("heading", name="Blocks 3 and 9")).to_be_visible()
    for block in (3, 9):
        expect(shown.locator("figcaption", has_text=f"Block {block}")).to_be_visible()
    matrices = measured(client, id=image_id)["matrix"]
    for variant in ("centred", "row", "column"):
        choose(page, "variant", variant)
        expected = matrices[variant][3][9]
        expect(shown).to_contain_text(f"Mean cosine, {variant}, re-attention stage")
        found = float(value.get_attribute("data-value") or "nan")
        assert found == pytest.approx(expected, abs=1e-5)


def test_pairs_of_opposite_sign_are_mentioned_where_they_cancel_in_the_mean(
    page: Page, client: httpx.Client
) -> None:
    image_id = choose_sample(page)
    page.get_by_role("button", name="Understand").click()
    pairs = page.locator("#similar-pairs")
    found = measured(client, id=image_id)["neighbours"]
    assert max(map(abs, found["mean"])) < 0.5 < sum(found["below_negative"]) / 15 + 0.25
    expect(pairs).to_contain_text(f"{percent(found['above_threshold'])} of all pairs")
    expect(pairs).to_contain_text(f"{percent(found['below_negative'])} below \u22120.9")
    expect(pairs).to_contain_text("Opposite signs cancel in the mean")
    page.get_by_role("button", name="Compare").click()
    cell = page.locator(".counts td[data-stage=reattention]").first
    expect(cell).to_contain_text(f"{percent(found['below_negative'])} below \u22120.9")
    page.get_by_role("button", name="Understand").click()
    choose(page, "stage", "softmax")  # softmax maps have no negative values
    expect(pairs).to_contain_text("100% of all pairs of head and token are above 0.9.")
    expect(pairs).not_to_contain_text("cancel")
    wait_until_loaded(page)
