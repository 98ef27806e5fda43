"""What README and docs refer to exists: files, targets, settings, rooms."""

import re
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from service.bulk.settings import BulkSettings
from service.cluster.settings import ClusterSettings
from service.settings.server import Settings
from service.settings.shared import SharedSettings
from tests.bench import tables
from tests.docs.file_map import END, PAGE, START, file_map
from tests.docs.markdown import PAGES
from tests.support.server import ROOT

MAX_README_BYTES = 10_000


def text(name: str) -> str:
    return (ROOT / name).read_text()


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").stat().st_size <= MAX_README_BYTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target), link


def _anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_make_target_that_is_named_exists() -> None:
    for page in PAGES:
        for target in set(
            re.findall(r"`(?:\$ )?make ([\w-]+)|^\$ make ([\w-]+)", page.read_text(), re.M)
        ):
            assert re.search(rf"^{''.join(target)}:", text("Makefile"), re.MULTILINE), target


def test_every_file_that_is_named_exists() -> None:
    for page in PAGES:
        named = re.findall(r"`((?:models|export|service|tests|docs)/[\w./-]*\w)`", page.read_text())
        for path in named:
            assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize(
    ("page", "fields"),
    [
        ("docs/operations.md", Settings.model_fields),
        (
            "docs/cluster.md",
            {
                name: field
                for name, field in ClusterSettings.model_fields.items()
                if name not in Settings.model_fields
            },
        ),
        (
            "docs/bulk.md",
            {
                name: field
                for name, field in BulkSettings.model_fields.items()
                if name not in SharedSettings.model_fields
            },
        ),
    ],
    ids=["one process", "cluster", "bulk"],
)
def test_the_table_of_settings_is_complete_and_true(
    page: str, fields: dict[str, FieldInfo]
) -> None:
    rows = re.findall(r"^\| `(DEEPVIT_\w+)` \| (.*?) \| (.*?) \|$", text(page), re.MULTILINE)
    assert rows == [
        (
            f"DEEPVIT_{name.upper()}",
            "required"
            if field.is_required()
            else "processors granted"
            if field.default is PydanticUndefined
            else "none"
            if field.default is None
            else f"`{field.default}`",
            field.description,
        )
        for name, field in fields.items()
    ]


def test_the_map_says_what_the_files_say() -> None:
    page = PAGE.read_text()
    kept = page[page.index(START) + len(START) + 1 : page.index(END)]
    assert kept == file_map(), "run python -m tests.docs.file_map"


def test_the_tables_of_the_serving_benchmark_are_those_of_its_records() -> None:
    page = tables.PAGE.read_text()
    assert page == tables.renewed(page), "run python -m tests.bench tables"
