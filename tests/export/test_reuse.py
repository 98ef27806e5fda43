"""Attention reuse: what is shared, what vanishes, what is refused, what is measured."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from export.__main__ import main
from export.comparison import compare
from export.fold import FoldedDeepViT
from export.graphs import Classifier
from export.pictures import Pictures
from export.reuse.sharing import shared, write_classifier
from export.verify import normalize, sample_images
from models.checkpoint import Checkpoint
from models.config import ARCHITECTURES, DeepViTConfig
from models.deepvit import Block
from models.manifest import Manifest
from models.preprocess import Preprocessing, preprocess
from models.size import Size
from tests.support.exports import DONOR, REUSING
from tests.support.networks import random_network
from tests.support.server import ROOT

RULE = Preprocessing(size=Size.of(32))
TINY = ARCHITECTURES["deepvit_test"].config
LABELS = ("cat", "dog", "frog", "horse", "ship", "truck", "deer")


@pytest.fixture(scope="module")
def animals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crops of a photograph, a folder for each of three classes."""
    folder = tmp_path_factory.mktemp("animals")
    with Image.open(ROOT / "tests" / "data" / "cat.jpg") as opened:
        cat = opened.convert("RGB")
    for number in range(12):
        corner = 12 * number
        path = folder / LABELS[number % 3] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        cat.crop((corner, corner, corner + 150, corner + 150)).save(path)
    return folder


def source(config: DeepViTConfig, collapsed: int | None = None) -> Checkpoint:
    """Random weights; from block `collapsed` on, attention that is uniform for any image."""
    network = random_network(config)
    if collapsed is not None:
        for block in list(network.blocks)[collapsed:]:
            assert isinstance(block, Block)
            block.attn.qkv.weight[: config.heads_dim] = 0
            block.attn.qkv.bias[: config.heads_dim] = 0
    return Checkpoint(config, network.state_dict(), RULE, sha256="", labels=LABELS)


def saved(found: Checkpoint, path: Path) -> Path:
    torch.save({"state_dict": found.weights, "arch": "deepvit_test"}, path)
    return path


def manifest(repository: Path, name: str) -> Manifest:
    return Manifest.model_validate_json((repository / name / "1/manifest.json").read_text())


@pytest.mark.parametrize("donor", [0, 1])
def test_later_blocks_take_the_donors_map_and_mix_it_themselves(donor: int) -> None:
    trained = source(TINY)
    images = normalize(sample_images(2, Size.of(32)), RULE)
    _, before = trained.network().trace(images)
    network = shared(trained, donor).network()
    logits, after = network.trace(images)
    for block, trace in enumerate(after):
        assert torch.equal(trace.softmax, after[min(block, donor)].softmax)
        mixed = network.blocks[block].attn.mix(trace.softmax)  # type: ignore[union-attr, operator]
        assert torch.equal(trace.reattention, mixed)
    for block in range(donor + 1):
        assert torch.equal(after[block].tokens, before[block].tokens)
    assert not torch.allclose(after[-1].softmax, before[-1].softmax, atol=1e-3)
    folded = Classifier(FoldedDeepViT(network, RULE).eval())
    difference = folded(torch.from_numpy(sample_images(2, Size.of(32)))) - logits
    assert difference.abs().max() < 1e-4 * logits.abs().max()


def test_queries_keys_and_softmax_vanish(tmp_path: Path) -> None:
    trained = source(TINY.model_copy(update={"depth": 4, "reatten_blocks": (3,)}))
    sizes = {}
    for donor in (None, 1):
        found = trained if donor is None else shared(trained, donor)
        path = write_classifier(found, tmp_path / str(donor))
        graph = onnx.load(path).graph
        sizes[donor] = path.with_name("weights.bin").stat().st_size
        made = Counter(node.op_type for node in graph.node)  # a map each, kept or used up
        assert made["Softmax"] + made["Attention"] + made["ReAttention"] == (donor or 3) + 1
        assert made["Softmax"] == (0 if donor is None else 1)
    weights = 2 * 2 * TINY.embed_dim**2 * 4  # Q and K of two blocks, float32
    assert sizes[None] - sizes[1] >= weights


@pytest.mark.parametrize("donor", [-1, 2, 3])
def test_a_donor_has_blocks_behind_it(donor: int) -> None:
    with pytest.raises(ValueError, match="attention_donor"):
        DeepViTConfig(**TINY.model_dump() | {"attention_donor": donor})


def test_collapsed_blocks_are_shared_by_auto_and_nothing_changes(
    tmp_path: Path, animals: Path
) -> None:
    """Uniform maps are alike to the last bit: what reuse claims to save costs nothing here."""
    config = TINY.model_copy(update={"reatten_blocks": (), "scale_adjustment": 1.0})
    trained = source(config, collapsed=1)
    torch.save({"state_dict": trained.weights}, tmp_path / "collapsed.pth")
    arguments = [str(tmp_path / "collapsed.pth"), "--num-heads", "3", "--name", "uniform"]
    arguments += ["--output", str(tmp_path), "--reuse-attention", "auto", "--images", str(animals)]
    assert main(arguments) == 0
    record = manifest(tmp_path, "uniform")
    assert record.config.attention_donor == 1
    assert record.attention_reuse is not None
    assert not record.attention_reuse.forced
    assert "1 of them has collapsed, block 2" in record.attention_reuse.verdict
    comparison = record.attention_reuse.comparison
    assert (comparison.images, comparison.agreement) == (12, 1.0)
    assert comparison.accuracy is None  # classes without names: folders cannot stand for them
    assert [speed.batch for speed in comparison.speed] == [1, 8]
    assert all(speed.ms > 0 and speed.exact_ms > 0 for speed in comparison.speed)
    names = {output.name for output in record.outputs}
    assert {"softmax.map.01"} == names & {"softmax.map.01", "softmax.map.02"}
    assert record.output("map", "softmax", 2).name == "softmax.map.01"
    assert record.output("map", "reattention", 2).name == "softmax.map.01"


def test_what_has_not_collapsed_is_refused_with_the_reason_unless_forced(
    tmp_path: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = saved(source(TINY), tmp_path / "tiny.pth")
    arguments = [str(weights), "--name", "tiny", "--output", str(tmp_path / "repository")]
    arguments += ["--images", str(animals), "--limit", "4"]
    assert main([*arguments, "--reuse-attention", "auto"]) == 1
    assert "no block has collapsed" in capsys.readouterr().err
    assert main([*arguments, "--reuse-attention", "0"]) == 1
    said = capsys.readouterr().err
    assert "block 0 cannot share its map with blocks 1 to 2, which have not collapsed" in said
    assert not list((tmp_path / "repository").glob("tiny/*"))
    assert main([*arguments, "--reuse-attention", "auto", "--force"]) == 1  # no donor by any rule


def test_what_was_forced_is_in_the_manifest_and_in_reports(
    reusing_repository: Path, tmp_path: Path, animals: Path
) -> None:
    record = manifest(reusing_repository, REUSING)
    assert record.attention_reuse is not None
    assert record.attention_reuse.forced
    assert record.config.attention_donor == DONOR
    report = ["report", "--model", REUSING, "--repository", str(reusing_repository)]
    assert main([*report, "--images", str(animals), "--output", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "blocks 2 to 3 share the softmax map of block 1, though not all had collapsed" in page
    assert f"{record.attention_reuse.comparison.agreement:.2%} of 4 answers as before" in page
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["models"][0]["attention_donor"] == DONOR


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reuse-attention", "auto"], "--reuse-attention needs --images"),
        (["--reuse-attention", "0", "--images", "missing"], "missing is not a folder"),
        (["--reuse-attention", "2", "--images", str(ROOT / "tests/data")], "donors are 0 to 1"),
    ],
)
def test_a_wrong_wish_is_told_in_one_line(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = saved(source(TINY), tmp_path / "tiny.pth")
    assert main([str(weights), "--name", "tiny", "--output", str(tmp_path), *options]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("export: ")
    assert message in last


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("classifiers")
    trained = source(TINY)
    exact = write_classifier(trained, folder / "exact")
    return exact, write_classifier(shared(trained, 0), folder / "shared")


def test_agreement_and_accuracy_are_those_of_pytorch(
    animals: Path, classifiers: tuple[Path, Path]
) -> None:
    exact, cheaper = classifiers
    pictures = Pictures(animals)
    found = compare(exact, {"shared": cheaper}, pictures, RULE, LABELS, "softmax")["shared"]
    pixels = np.stack([preprocess(picture.image, RULE) for picture in pictures])
    truth = np.array([LABELS.index(picture.path.parts[0]) for picture in pictures])
    trained = source(TINY)
    before, after = (
        one.network()(normalize(pixels, RULE)).argmax(dim=-1).numpy()
        for one in (trained, shared(trained, 0))
    )
    assert found.images == 12
    assert found.agreement == (before == after).mean()
    assert found.exact_accuracy == (before == truth).mean()
    assert found.accuracy == (after == truth).mean()


@pytest.mark.parametrize(
    ("names", "labelled"),
    [
        (LABELS, True),
        ([f"n{number}" for number in range(7)], True),  # as many as classes, in their order
        ([f"n{number}" for number in range(6)], False),
        (["cat", "dog", "frogs"], False),
    ],
)
def test_folders_are_classes_where_they_are_named_so(
    tmp_path: Path,
    animals: Path,
    classifiers: tuple[Path, Path],
    names: Sequence[str],
    labelled: bool,
) -> None:
    for name, label in zip(names, LABELS, strict=False):
        if (animals / label).exists():
            shutil.copytree(animals / label, tmp_path / name)
        else:
            (tmp_path / name).mkdir()
    exact, cheaper = classifiers
    expected = compare(exact, {"": cheaper}, Pictures(animals), RULE, LABELS, "softmax")[""]
    found = compare(exact, {"": cheaper}, Pictures(tmp_path), RULE, LABELS, "softmax")[""]
    assert found.accuracy == (expected.accuracy if labelled else None)


def test_every_donor_is_measured(
    tmp_path: Path, animals: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = saved(source(TINY), tmp_path / "tiny.pth")
    arguments = ["reuse", str(weights), "--images", str(animals), "--output", str(tmp_path)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "donor 0: " in said
    assert "donor 1: " in said
    written = json.loads((tmp_path / "reuse.json").read_text())
    assert {donor: found["images"] for donor, found in written.items()} == {"0": 12, "1": 12}
    with Image.open(tmp_path / "reuse.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 10
    assert main([*arguments, "--donors", "2"]) == 1
    assert "donors are 0 to 1" in capsys.readouterr().err
