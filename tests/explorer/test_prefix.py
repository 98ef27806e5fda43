"""A distilled DeiT in the explorer: its two tokens before the patches are shown separately."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.explorer.conftest import Visit
from tests.explorer.steps import cell_of, choose, choose_sample, maps, reading, wait_until_loaded
from tests.support.server import Server, running_server

GRID, PREFIX = 4, 2
SIDE = GRID * GRID + PREFIX + 1  # cells along a side of the raw map, with the gap


@pytest.fixture(scope="module")
def distilled(format_repository: Callable[[str], Path]) -> Iterator[Server]:
    with running_server(format_repository("timm_deit_distilled")) as running:
        yield running


def test_the_raw_map_separates_the_tokens_before_the_patches(
    visit: Visit, distilled: Server
) -> None:
    with visit(distilled) as page, distilled.client() as client:
        image_id = choose_sample(page)
        choose(page, "view", "raw")
        wait_until_loaded(page)
        expect(page.locator(".raw")).to_contain_text(
            "A gap separates the class token and distillation token from the patches"
        )
        expected = maps(client, id=image_id, layer=1, query="all")
        alpha = page.locator(".raw .plot canvas").evaluate(
            "canvas => Array.from(canvas.getContext('2d')"
            ".getImageData(0, 0, 1, canvas.height).data.filter((_, i) => i % 4 === 3))"
        )
        assert alpha == [255] * PREFIX + [0] + [255] * GRID**2

        readout = page.locator(".raw .readout")
        plot = page.get_by_role("slider", name=re.compile("^Raw map"))

        def reads(words: str, query: int, key: int) -> None:
            expect(readout).to_have_text(re.compile(f"^{words}: "))
            value = float(readout.get_attribute("data-value") or "nan")
            assert value == pytest.approx(float(expected[query, key]), rel=1e-4)

        reads("class token attends to row 0, column 0", 0, PREFIX)
        plot.press("ArrowDown")
        reads("distillation token attends to row 0, column 0", 1, PREFIX)
        plot.press("ArrowDown")
        reads("row 0, column 0 attends to row 0, column 0", PREFIX, PREFIX)
        page.wait_for_url(re.compile("query=0,0"))
        plot.press("ArrowLeft")
        reads("row 0, column 0 attends to distillation token", PREFIX, 1)
        plot.press("ArrowLeft")
        reads("row 0, column 0 attends to class token", PREFIX, 0)
        plot.press("ArrowUp")
        reads("distillation token attends to class token", 1, 0)
        plot.press("ArrowUp")
        reads("class token attends to class token", 0, 0)
        plot.click(position=cell_of(plot, SIDE - 1, SIDE - 1, SIDE))
        last = GRID * GRID + PREFIX - 1
        reads("row 3, column 3 attends to row 3, column 3", last, last)


def test_every_token_before_the_patches_is_read_out(visit: Visit, distilled: Server) -> None:
    with visit(distilled) as page, distilled.client() as client:
        expected = maps(client, id=choose_sample(page), layer=1)
        wait_until_loaded(page)
        for index, name in enumerate(("Class token", "Distillation token")):
            assert reading(page, name) == pytest.approx(float(expected[index]), rel=1e-4)
