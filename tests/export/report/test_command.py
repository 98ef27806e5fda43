"""Reports on the bundled models: the numbers are PyTorch's, the page stands alone."""

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from export.__main__ import main
from export.verify import normalize
from models import checkpoint, measures
from models.collapse import VARIANTS
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import BlockTrace
from models.preprocess import preprocess
from tests.conftest import DEEPVIT, TINY, VIT
from tests.support import equation_2, small
from tests.support.networks import random_network
from tests.support.pictures import photos
from tests.support.server import ROOT

IMAGES = 11  # more than one batch, and the last one not full


@dataclass(frozen=True)
class Written:
    document: dict[str, Any]
    rows: list[dict[str, str]]
    page: str
    maps: dict[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a photograph, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as cat:
        for number in range(IMAGES):
            left, top = 25 * number, 15 * (number % 5)
            crop = cat.crop((left, top, left + 120, top + 120))
            crop.save(folder / f"{number:02}.png")
    (folder / "notes <b>.txt").write_text("not a picture")
    return folder


@pytest.fixture(scope="module")
def written(repository: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("report")
    arguments = ["report", "--model", DEEPVIT, "--model", VIT, "--images", str(pictures)]
    assert main([*arguments, "--repository", str(repository), "--output", str(folder)]) == 0
    with (folder / "report.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(folder / "report.npz") as arrays:
        maps = dict(arrays)
    document = json.loads((folder / "report.json").read_text())
    return Written(document, rows, (folder / "report.html").read_text(encoding="utf-8"), maps)


def expected(name: str, pictures: Path) -> dict[tuple[str | None, str], torch.Tensor]:
    """Every measure of every image [images, ...], from PyTorch's traces."""
    source = checkpoint.load(small.weights(name))
    pixels = []
    for path in sorted(pictures.glob("*.png")):
        with Image.open(path) as picture:
            pixels.append(preprocess(picture.convert("RGB"), source.preprocessing))
    with torch.inference_mode():
        _, traces = source.network().trace(normalize(np.stack(pixels), source.preprocessing))
    tokens = torch.stack([block.tokens for block in traces], dim=1)
    found: dict[tuple[str | None, str], torch.Tensor] = {
        (None, "feature_similarity"): measures.feature_similarity(tokens),
        (None, "rank_residual"): measures.rank_residual(tokens),
        (None, "token_similarity"): measures.token_similarity(tokens),
    }
    found |= of_maps("softmax", [block.softmax for block in traces], source.config)
    if source.config.reatten_blocks:
        found |= of_maps("reattention", [block.reattention for block in traces], source.config)
    return found


def of_maps(
    stage: str, blocks: list[torch.Tensor], config: DeepViTConfig
) -> dict[tuple[str | None, str], torch.Tensor]:
    maps = torch.stack(blocks, dim=1).double()  # [B, L, H, N, N]
    B, _, H, _, _ = maps.shape
    pairs = equation_2.neighbour_similarity(blocks)
    shares = [beyond.double().mean(dim=(2, 3)) for beyond in (pairs > 0.9, pairs < -0.9)]
    above, below = (torch.cat([torch.full((B, 1), torch.nan), s], dim=1) for s in shares)
    heads = equation_2.head_similarity(blocks)
    different = ~torch.eye(H, dtype=torch.bool)
    found = {
        "similar_vectors": above,
        "opposite_vectors": below,
        "head_similarity": heads,
        "other_heads": heads[:, :, different].mean(dim=-1),
    }
    for variant in VARIANTS:
        found[f"similarity.{variant}"] = equation_2.layer_similarity(blocks, variant)
    if stage == "softmax":
        found["entropy"] = measures.entropy(maps)
        reach = measures.reach(config.grid, config.patch_size)
        found["attention_distance"] = measures.attention_distance(maps.float(), reach)
        for measure in ("entropy", "attention_distance"):
            found[f"mean_{measure}"] = found[measure].mean(dim=2)
    return {(stage, measure): values for measure, values in found.items()}


@pytest.mark.parametrize("name", [DEEPVIT, VIT])
def test_numbers_are_those_of_pytorch(written: Written, pictures: Path, name: str) -> None:
    (model,) = (model for model in written.document["models"] if model["name"] == name)
    found = {(entry["stage"], entry["measure"]): entry for entry in model["measures"]}
    references = expected(name, pictures)
    assert found.keys() == references.keys()
    for key, entry in found.items():
        values = references[key].double().numpy()
        # A share of pairs jumps where one of them is at the threshold.
        close = partial(
            np.testing.assert_allclose,
            atol=2e-3 if key[1].endswith("_vectors") else 1e-4,
            rtol=1e-4 if key[1].endswith("attention_distance") else 0,
            err_msg=str(key),
        )
        half_width = 1.959964 * values.std(axis=0, ddof=1) / math.sqrt(IMAGES)
        close(np.array(entry["mean"], float), values.mean(axis=0))
        close(np.array(entry["low"], float), values.mean(axis=0) - half_width)
        close(np.array(entry["high"], float), values.mean(axis=0) + half_width)
        assert entry["images"] == IMAGES


def test_mean_maps_are_those_of_pytorch(written: Written, pictures: Path) -> None:
    source = checkpoint.load(small.weights(DEEPVIT))
    pixels = []
    for path in sorted(pictures.glob("*.png")):
        with Image.open(path) as picture:
            pixels.append(preprocess(picture.convert("RGB"), source.preprocessing))
    with torch.inference_mode():
        _, traces = source.network().trace(normalize(np.stack(pixels), source.preprocessing))

    def mean(block: BlockTrace, stage: str) -> torch.Tensor:
        maps: torch.Tensor = getattr(block, stage)
        return maps.mean(dim=(0, 1))

    for stage in ("softmax", "reattention"):
        reference = torch.stack([mean(block, stage) for block in traces]).numpy()
        np.testing.assert_allclose(written.maps[f"{DEEPVIT}.{stage}"], reference, atol=1e-4)
    assert written.maps.keys() == {f"{DEEPVIT}.softmax", f"{DEEPVIT}.reattention", f"{VIT}.softmax"}


def test_json_and_csv_hold_the_same(written: Written) -> None:
    listed = {}
    for model in written.document["models"]:
        for entry in model["measures"]:
            means = np.array(entry["mean"], float)
            for index in np.ndindex(means.shape):
                place = dict(zip(entry["axes"], map(str, index), strict=True))
                axes = tuple(
                    place.get(a, "") for a in ("block", "other_block", "head", "other_head")
                )
                numbers = []
                for side in ("mean", "low", "high"):
                    value = np.array(entry[side], float)[index]
                    numbers.append("" if np.isnan(value) else str(value))
                key = (model["name"], entry["stage"] or "", entry["measure"], *axes)
                listed[key] = (*numbers, str(entry["images"]))
    rows = {
        (
            *(row[key] for key in ("model", "stage", "measure")),
            *(row[key] for key in ("block", "other_block", "head", "other_head")),
        ): tuple(row[key] for key in ("mean", "low", "high", "images"))
        for row in written.rows
    }
    assert len(rows) == len(written.rows)
    assert rows == listed


def test_every_number_is_defined(written: Written) -> None:
    defined = written.document["definitions"]
    for model in written.document["models"]:
        assert {entry["measure"] for entry in model["measures"]} <= defined.keys()


def test_verdicts_name_the_stage_and_follow_from_the_numbers(written: Written) -> None:
    for model in written.document["models"]:
        means = {(e["stage"], e["measure"]): np.array(e["mean"], float) for e in model["measures"]}
        stages = [verdict["stage"] for verdict in model["verdicts"]]
        assert stages == (["softmax", "reattention"] if model["reatten_blocks"] else ["softmax"])
        for verdict in model["verdicts"]:
            columns, rows = (
                np.diagonal(means[verdict["stage"], f"similarity.{variant}"], -1)
                for variant in ("column", "row")
            )
            similar = (np.flatnonzero(columns > 0.9) + 1).tolist()
            assert verdict["similar"] == similar
            assert verdict["collapsed"] == [b for b in similar if rows[b - 1] > 0.9]
            above, below = (
                means[verdict["stage"], f"{kind}_vectors"] for kind in ("similar", "opposite")
            )
            signed = np.flatnonzero((above + below > 0.5) & (below >= 0.05)).tolist()
            assert verdict["alike_up_to_sign"] == [b for b in signed if b not in similar]
            mixed = verdict["stage"] == "reattention"
            assert bool(verdict["alike_up_to_sign"]) == mixed  # of DeepViT-16, most blocks


class Page(HTMLParser):
    """What a page would fetch, and whether its tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [value or "" for key, value in attributes if key in FETCHING]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


FETCHING = ("src", "href", "xlink:href", "srcset", "data", "action", "poster")


def test_the_page_needs_nothing_but_itself(written: Written) -> None:
    page = Page(written.page)
    assert page.open == []
    assert page.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert page.fetched
    assert all(address.startswith("data:image/png;base64,") for address in page.fetched)
    assert not re.search(r"https?:|url\(|@import", written.page)


def test_the_page_tells_verdicts_definitions_and_unreadable_files(written: Written) -> None:
    for model in written.document["models"]:
        for verdict in model["verdicts"]:
            for sentence in verdict["sentences"]:
                assert sentence.replace("'", "&#39;") in written.page
    assert "notes &lt;b&gt;.txt" in written.page
    assert f"{IMAGES} read of {IMAGES + 1} tried" in written.page
    assert written.document["images"]["first_unreadable"] == ["notes <b>.txt"]


def test_one_picture_makes_a_report_without_intervals(
    tiny_repository: Path, pictures: Path, tmp_path: Path
) -> None:
    arguments = ["report", "--model", TINY, "--repository", str(tiny_repository)]
    arguments += ["--images", str(pictures), "--limit", "1", "--output", str(tmp_path / "report")]
    (tmp_path / "report").mkdir()  # an older report is replaced
    assert main(arguments) == 0
    output = tmp_path / "report"
    (model,) = json.loads((output / "report.json").read_text())["models"]
    assert all(
        value is None
        for entry in model["measures"]
        for value in np.array(entry["low"], dtype=object).flat
    )
    page = (output / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]+", "", page))
    assert "plain and its mixing blocks" in page  # only some of its blocks mix


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "missing"], f"has no model 'missing'; its models: {DEEPVIT}, {VIT}"),
        (["--model", VIT, "--images", "missing"], "missing is not a folder"),
        (["--model", VIT, "--images", str(small.FOLDER)], "is a picture"),
        (["--model", VIT, "--repository", "missing"], "its models: none"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    repository: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    common = ["report", "--repository", str(repository), "--images", str(pictures)]
    assert main([*common, "--output", str(tmp_path / "report"), *arguments]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("export report: ")
    assert message in last


@pytest.mark.parametrize(
    "arguments",
    [["--limit", "0"], ["--limit", "many"], ["--threshold", "1"], ["--threshold", "nan"], []],
)
def test_wrong_flags_are_refused_before_anything_is_read(arguments: list[str]) -> None:
    required = ["--model", "missing", "--images", "missing"] if arguments else []
    with pytest.raises(SystemExit) as refused:
        main(["report", *required, *arguments])
    assert refused.value.code == 2


# The peaks of three reports: on few images, on many, and on many while all values are kept.
CHILD = """
import re, sys
from pathlib import Path
from export.report import command, running

def peak_kilobytes(limit):
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    assert command.main([*sys.argv[1:], "--limit", limit]) == 0
    return re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]

few, many, kept = peak_kilobytes("40"), peak_kilobytes("160"), []
add = running.Running.add
running.Running.add = lambda self, values: kept.append(values) or add(self, values)
print(few, many, peak_kilobytes("160"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_memory_does_not_grow_with_the_number_of_images(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(160):
        (folder / f"{number:03}.jpg").write_bytes(photos(10_000)[0])
    arguments = ["--model", VIT, "--repository", str(repository), "--images", str(folder)]
    child = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments, "--output", str(tmp_path / "report")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    few, many, keeping = (int(peak) / 1024 for peak in child.stdout.splitlines()[-1].split())
    # The last one is the control: 0.3 MB of mean maps an image.
    assert many - few < 15, (few, many)
    assert keeping - few > 30, (few, keeping)


def test_a_model_of_one_block_and_one_head_has_a_report(pictures: Path, tmp_path: Path) -> None:
    config = ARCHITECTURES["deepvit_test"].config.model_copy(
        update={"depth": 1, "num_heads": 1, "reatten_blocks": ()}
    )
    weights = tmp_path / "lone.pth"
    torch.save({"state_dict": random_network(config).state_dict()}, weights)
    exported = ["--name", "lone", "--output", str(tmp_path), "--num-heads", "1"]
    assert main([str(weights), *exported]) == 0
    arguments = ["--model", "lone", "--repository", str(tmp_path), "--images", str(pictures)]
    assert main(["report", *arguments, "--output", str(tmp_path / "report")]) == 0
    (model,) = json.loads((tmp_path / "report" / "report.json").read_text())["models"]
    means = {entry["measure"]: entry["mean"] for entry in model["measures"]}
    assert means["other_heads"] == [None]
    assert means["similar_vectors"] == means["opposite_vectors"] == [None]
    (verdict,) = model["verdicts"]
    assert verdict["sentences"][0] == "A single block has no other to be like."


def test_what_other_code_bases_add_is_named(
    format_repository: Callable[[str], Path], pictures: Path, tmp_path: Path
) -> None:
    """A LayerNorm over heads, which stays in the graph, and a distillation token."""
    normed, distilled = "vit_pytorch_1.20.2_deepvit_mean", "timm_deit_distilled"
    arguments = ["--repository", str(tmp_path), "--images", str(pictures), "--limit", "3"]
    for name in (normed, distilled):
        shutil.copytree(format_repository(name) / name, tmp_path / name)
        arguments += ["--model", name]
    assert main(["report", *arguments, "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert f"{normed}, reattention with LayerNorm" in page
    assert "rows of mixed maps sum to no constant" in page
    assert "3 heads, 18 tokens, 2 of them before the patches, no Re-attention" in page
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [model["reatten_layer_norm"] for model in document["models"]] == [True, False]
    assert "LayerNorm over heads" in document["terms"]["reattention"]
