"""What holds in every view: axe's rules in both colour schemes, and no overflow of the screen."""

import re
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

_ALL: dict[str, Any] = {"resultTypes": ["violations"]}  # without what each rule has passed
_ABOUT_COLOURS = _ALL | {"runOnly": ["color-contrast", "link-in-text-block"]}
_TWO_FRAMES = "new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))"


def violations(page: Page, view: str) -> dict[str, str]:
    """Reports of axe's rules that a view violates in the light scheme, and in the dark one.

    The schemes differ in colours alone, so that in the dark one only rules about them are run.
    """
    axe = Axe()
    found = {}
    schemes: dict[Any, dict[str, Any]] = {"light": _ALL, "dark": _ABOUT_COLOURS}
    for scheme, options in schemes.items():
        page.emulate_media(color_scheme=scheme)
        page.evaluate(_TWO_FRAMES)
        assert (_brightness(page) < 64) == (scheme == "dark")
        result = axe.run(page, options=options)
        if result.violations_count:
            found[f"{view}, {scheme}"] = result.generate_report()
    return found


def _brightness(page: Page) -> int:
    """How much red the background has, which is a grey."""
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return int(re.findall(r"\d+", paper)[0])


def expect_no_overflow(page: Page, *widths: int) -> None:
    """Nothing is wider than the screen at any of these widths; the last one stays."""
    for width in widths:
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate(_TWO_FRAMES)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= page.evaluate("document.documentElement.clientWidth"), (width, page.url)
