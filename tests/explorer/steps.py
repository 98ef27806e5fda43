"""Actions of a person on the page, readings of what it shows, and the same from the API."""

import io
import re
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Locator, Page, Position, expect

from tests.support.server import ROOT

GRID, HEADS, BLOCKS = 8, 6, 16  # the same in both bundled models
CAT = ROOT / "tests" / "data" / "cat.jpg"
BOAT, HOUSES = (ROOT / "service" / "web" / "samples" / f"{name}.jpg" for name in ("boat", "houses"))


def choose_sample(page: Page, name: str = "cat", classes: int = 5) -> str:
    """Click a bundled photograph, and wait for so many classes; returns the image id."""
    page.get_by_role("button", name=re.compile(f"{name}$")).click()
    expect(page.locator("#predictions li")).to_have_count(classes)
    page.wait_for_url(re.compile(r"id=[0-9a-f]{32}"))
    return state(page)["id"]


def state(page: Page) -> dict[str, str]:
    return dict(part.split("=", 1) for part in page.url.partition("#")[2].split("&") if part)


def wait_until_loaded(page: Page) -> None:
    expect(page.locator("#progress")).to_be_hidden()


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def cell_of(
    plot: Locator, row: int, column: int, rows: int, columns: int | None = None
) -> Position:
    """Mouse position of a cell in a plot; as many columns as rows, if only rows are given."""
    box = plot.bounding_box()
    assert box is not None
    return {
        "x": (column + 0.5) * box["width"] / (columns or rows),
        "y": (row + 0.5) * box["height"] / rows,
    }


def choose(page: Page, name: str, value: str) -> None:
    """Check one of a group of radio buttons."""
    page.locator(f"input[name={name}][value={value}]").check(force=True)


def reading(page: Page, name: str) -> float:
    """A number in the page's readout, in full precision."""
    return float(
        page.locator(f'#reading [data-name="{name}"]').get_attribute("data-value") or "nan"
    )


def maps(client: httpx.Client, **query: Any) -> np.ndarray[Any, Any]:
    answer = client.get("/attention-maps", params=query | {"format": "npy"})
    assert answer.status_code == 200, answer.text
    return np.load(io.BytesIO(answer.content))[0, 0]  # type: ignore[no-any-return]


def expect_map(page: Page, expected: np.ndarray[Any, Any]) -> None:
    """The numbers that the page reads out are those of the expected map [N]."""
    patches = expected[1:]
    strongest = page.locator('#reading [data-name="Strongest patch"]')
    row, column = divmod(int(patches.argmax()), GRID)
    expect(strongest).to_contain_text(f"row {row}, column {column}")
    assert reading(page, "Strongest patch") == pytest.approx(float(patches.max()), rel=1e-4)
    assert reading(page, "Class token") == pytest.approx(float(expected[0]), rel=1e-4, abs=1e-6)
    if (expected < 0).any():
        assert reading(page, "Most negative") == pytest.approx(float(patches.min()), rel=1e-4)
