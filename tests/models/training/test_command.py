"""The command: a run that is killed ends as one that nobody stopped; what it writes and refuses."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from models import checkpoint
from models.config import ARCHITECTURES
from models.training import table
from models.training.__main__ import main
from models.training.evaluation import answers
from models.training.initialise import initialised, take_over
from models.training.photographs import as_served, find
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


def options(pictures: Path, output: Path, *more: str) -> list[str]:
    return [
        "--images", str(pictures), "--test", str(pictures), "--arch", "deepvit_test",
        "--output", str(output), "--epochs", str(EPOCHS), "--batch-size", "8",
        "--drop-path", "0.2", "--device", "cpu", "--lr", "0.01", "--warmup-epochs", "1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def finished(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert main(options(pictures, folder, "--half")) == 0
    return folder


def test_it_learns_and_says_so(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(EPOCHS))
    assert lines[-1]["test_accuracy"] > 0.9
    assert {"softmax", "reattention", "loss", "images_per_s"} <= lines[-1].keys()
    card = (finished / "run.md").read_text()
    assert "| red one | 24 | 100.0% |" in card


def test_runs_stand_side_by_side_in_a_table(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert table.main([str(finished), str(finished)]) == 0
    header, _, row, again = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split("|"), row.split("|"), strict=True))
    assert row == again
    mixing = ARCHITECTURES["deepvit_test"].config.reatten_blocks
    assert cells[" attention "] == f" Re-attention in {len(mixing)} blocks "
    assert cells[" right "] == f" {last['test_accuracy']:.1%} "
    similar = cells[" softmax maps "].split("/")
    assert int(similar[0]) == len(last["softmax"]["similar"])
    assert table.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("models.training.table: ")


def test_the_file_holds_halves_and_answers_as_the_card_says(pictures: Path, finished: Path) -> None:
    trained = checkpoint.load(finished / "run.safetensors")
    stored = safetensors.torch.load_file(finished / "run.safetensors")
    assert {value.dtype for value in stored.values() if value.ndim > 1} == {torch.float16}
    assert trained.labels == ("blue one", "red one")
    files = find([pictures])
    found = answers(
        trained.network(), as_served(files, trained.preprocessing), trained.preprocessing
    )
    assert torch.equal(found.argmax(dim=1), files.labels)


def test_a_teacher_is_asked_about_the_crops_themselves(pictures: Path, tmp_path: Path) -> None:
    """A teacher that knows red from blue teaches the student, whose labels count for nothing."""
    teacher = "tests.models.training.test_command:teacher"
    taught = options(pictures, tmp_path / "run", "--distill", "1", "--teacher", teacher)
    assert main(taught) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["test_accuracy"] > 0.9


def teacher() -> Callable[[Tensor], Tensor]:
    """Logits of blue and red: how far one colour exceeds the other."""

    def answer(images: Tensor) -> Tensor:
        assert images.min() >= 0
        assert images.max() <= 1
        red, _, blue = images.mean(dim=(2, 3)).unbind(dim=1)
        return 40 * torch.stack((blue - red, red - blue), dim=1)

    return answer


def test_killed_after_an_epoch_it_ends_with_the_same_bits(
    pictures: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = options(pictures, folder)
    command = [sys.executable, "-m", "models.training", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.startswith("epoch 2/"))
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert f"epoch {EPOCHS}/{EPOCHS}" in said
    assert "epoch 1/" not in said
    one, other = (
        torch.load(run / "state.pt", weights_only=True)["average"] for run in (finished, folder)
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_neither_another_recipe_nor_other_pictures_go_on(
    pictures: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(options(pictures, finished, "--lr", "0.02")) == 1
    assert capsys.readouterr().err.endswith("is of another run: it differs in recipe\n")
    others = shutil.copytree(pictures, tmp_path / "pictures")
    shutil.copy(others / "red_one" / "0.jpg", others / "red_one" / "1.jpg")
    assert main(options(others, finished)) == 1
    assert capsys.readouterr().err.endswith("is of another run: it differs in data\n")


def test_a_run_may_begin_with_trained_weights(
    pictures: Path, finished: Path, tmp_path: Path
) -> None:
    """At a rate that changes next to nothing, what was learnt is there from the first epoch."""
    weights = finished / "run.safetensors"
    still = ["--weights", str(weights), "--epochs", "1", "--lr", "1e-9", "--min-lr", "0"]
    assert main(options(pictures, tmp_path / "run", *still)) == 0
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["test_accuracy"] > 0.9


def test_the_head_of_other_classes_begins_anew(finished: Path) -> None:
    trained = checkpoint.load(finished / "run.safetensors")
    for classes, same in (("blue one", "red one"), True), (("red one", "blue one"), False):
        network = initialised(trained.config, seed=1)
        fresh = network.head.weight.clone()
        take_over(trained, network, classes)
        assert torch.equal(network.pos_embed, trained.network().pos_embed)
        assert torch.equal(network.head.weight, fresh) != same
    more = initialised(trained.config.model_copy(update={"num_classes": 3}), seed=1)
    take_over(trained, more, ("a", "b", "c"))
    deeper = initialised(trained.config.model_copy(update={"depth": 4}), seed=1)
    with pytest.raises(ValueError, match="another architecture: depth"):
        take_over(trained, deeper, ("blue one", "red one"))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--arch", "resnet"], "no architecture 'resnet'"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--distill", "0.5"], "need each other"),
        (["--classes", "blue one"], "there is one class, blue one"),
        (["--classes", "blue one,red one,grey one"], "no pictures of grey one"),
        (["--images", "nowhere.tar"], "nowhere.tar is neither a folder nor a tar archive"),
        (["--change", "depth=three"], "depth"),
        (["--crop-scale", "0.9,0.3"], "0.9 to 0.3 is not a range above 0"),
    ],
    ids=["arch", "weights", "teacher", "one class", "no class", "no file", "change", "range"],
)
def test_a_wrong_option_is_told_in_one_line(
    pictures: Path,
    tmp_path: Path,
    wrong: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(options(pictures, tmp_path / "run", *wrong)) == 1
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
