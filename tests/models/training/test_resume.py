"""A run that is killed goes on where it was: its result is that of a run that nobody stopped."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.server import ROOT

EPOCHS = 4


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that colour tells apart, of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name, colour in {"red_one": (220, 60, 60), "blue one": (60, 60, 220)}.items():
        (folder / name).mkdir()
        for number in range(24):
            shape = (*random.integers(30, 60, 2), 3)
            values = np.clip(random.normal(colour, 40, shape), 0, 255).astype(np.uint8)
            Image.fromarray(values).save(folder / name / f"{number}.jpg")
    return folder


def command(pictures: Path, output: Path, *options: str) -> list[str]:
    return [
        sys.executable, "-m", "models.training", "--images", str(pictures), "--test", str(pictures),
        "--arch", "deepvit_test", "--output", str(output), "--epochs", str(EPOCHS),
        "--batch-size", "8", "--drop-path", "0.2", "--device", "cpu", "--ema-decay", "0.5",
        "--lr", "0.01", "--warmup-epochs", "1", *options,
    ]  # fmt: skip


def train(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    done = train(command(pictures, folder))
    assert done.returncode == 0, done.stderr
    return folder


def test_it_learns_and_says_so(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(EPOCHS))
    assert lines[-1]["test_accuracy"] > 0.9
    assert {"softmax", "reattention", "loss", "images_per_s"} <= lines[-1].keys()
    card = (finished / "run.md").read_text()
    assert "| red one | 24 |" in card


def test_killed_after_an_epoch_it_ends_with_the_same_bits(
    pictures: Path, finished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = command(pictures, folder)
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 2/"))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = train(arguments)
    assert done.returncode == 0, done.stderr
    assert f"epoch {EPOCHS}/{EPOCHS}" in done.stderr
    assert "epoch 1/" not in done.stderr
    one, other = (
        torch.load(run / "state.pt", weights_only=True)["average"] for run in (finished, folder)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_another_recipe_does_not_go_on(pictures: Path, finished: Path) -> None:
    done = train(command(pictures, finished, "--lr", "0.02"))
    assert done.returncode == 1
    assert done.stderr.endswith("is of another run: it differs in recipe\n")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--arch", "resnet"], "no architecture 'resnet'"),
        (["--distill", "0.5"], "--distill needs --soft-labels or --teacher"),
        (["--without", "red one"], "there is one class, blue one"),
        (["--images", "nowhere.tar"], "nowhere.tar is neither a folder nor a tar archive"),
        (["--change", "depth=three"], "depth"),
    ],
    ids=["arch", "teacher", "one class", "no file", "change"],
)
def test_a_wrong_option_is_told_in_one_line(
    pictures: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    done = train([*command(pictures, tmp_path / "run"), *options])
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
