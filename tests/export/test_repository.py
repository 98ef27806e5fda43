"""A version is published whole or not at all, whatever ends an export."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from export import repository
from export.__main__ import main
from models.config import ARCHITECTURES
from models.manifest import Manifest
from models.size import Size
from tests.service.explain.test_selection import manifest_of
from tests.support.networks import LONE, random_network, save_random
from tests.support.server import ROOT
from tests.support.waiting import until

CONFIG = ARCHITECTURES["deepvit_test"].config


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_random(LONE, tmp_path / "test.safetensors")


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_signal_ends_an_export_and_leaves_nothing(weights: Path, tmp_path: Path) -> None:
    """While it verifies batches of a size that takes long enough to be interrupted."""
    output = tmp_path / "repository"
    arguments = [str(weights), "--name", "t", "--output", str(output), "--max-batch-size", "1024"]
    command = [sys.executable, "-m", "export", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        until(lambda: output.is_dir() and bool(hidden(output)))
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert not list(output.iterdir())


def test_a_signal_before_the_lock_leaves_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_folder: int, _operation: int) -> None:
        assert hidden(tmp_path)
        raise SystemExit(128 + signal.SIGTERM)

    monkeypatch.setattr(fcntl, "flock", stop)
    with pytest.raises(SystemExit), repository.staging(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_every_signal_removes_what_is_not_finished(ending: signal.Signals, tmp_path: Path) -> None:
    """As in an export, whose other steps take long: a command that stages, and waits."""
    code = f"""
import sys
from pathlib import Path
from export import __main__ as entry, repository

def main():
    with repository.staging(Path({str(tmp_path)!r})):
        print("staged", flush=True)
        sys.stdin.read()

entry.main = main
sys.exit(entry.run())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        assert hidden(tmp_path)
        process.send_signal(ending)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + ending
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left, used = tmp_path / ".staging-left", tmp_path / ".staging-used"
    left.mkdir()
    (left / "weights.bin").write_bytes(b"0")
    code = f"""
import sys
from pathlib import Path
from export import repository
with repository._locked(Path({str(used)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    used.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "locked\n"
        with repository.staging(tmp_path) as folder:
            assert hidden(tmp_path) == [used, folder] or hidden(tmp_path) == [folder, used]
        other.stdin.close()
    with repository.staging(tmp_path) as folder:
        assert hidden(tmp_path) == [folder]


def manifest(label: str) -> Manifest:
    return manifest_of(CONFIG).model_copy(update={"labels": (label,) * CONFIG.num_classes})


def test_of_two_exports_the_loser_changes_nothing(tmp_path: Path) -> None:
    with repository.staging(tmp_path) as first, repository.staging(tmp_path) as second:
        version = repository.publish(first, tmp_path, manifest("winner"))
        before = {path.name: path.read_bytes() for path in version.parent.glob("*.*")}
        with pytest.raises(FileExistsError, match="written by another export"):
            repository.publish(second, tmp_path, manifest("loser"))
    assert {path.name: path.read_bytes() for path in version.parent.glob("*.*")} == before
    assert b"winner" in before["labels.txt"]


def test_dimensions_are_height_and_width() -> None:
    wide = CONFIG.model_copy(update={"img_size": Size(16, 64)})
    assert "dims: [ 16, 64, 3 ]" in repository.triton_config(manifest_of(wide))


def test_labels_are_written_in_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    """As an export reads and publishes them, without the graphs between the two."""
    labels = tmp_path / "labels.txt"
    labels.write_text("Kätzchen\n" + "\n".join("bcdefg"), encoding="utf-8-sig")  # as Notepad does
    (tmp_path / "manifest.json").write_text(manifest("a").model_dump_json())
    code = f"""
from pathlib import Path
from export import command, repository
from models.manifest import Manifest

folder = Path({str(tmp_path)!r})
record = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
record = record.model_copy(update={{"labels": command._lines(folder / "labels.txt")}})
with repository.staging(folder / "repository") as staged:
    print(repository.publish(staged, folder / "repository", record))
"""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    version = Path(os.fsdecode(ran.stdout.strip()))
    written = (version.parent / "labels.txt").read_bytes()
    assert written == "".join(f"{label}\n" for label in ["Kätzchen", *"bcdefg"]).encode()
    found = Manifest.read((version / "manifest.json").read_text(encoding="utf-8"))
    assert list(found.labels) == ["Kätzchen", *"bcdefg"]


def test_every_file_is_hashed_as_sha256sum_checks_it(tmp_path: Path) -> None:
    with repository.staging(tmp_path) as staged:
        (staged / "weights.bin").write_bytes(bytes(10**6))
        (staged / "model.onnx").write_bytes(b"graph")
        version = repository.publish(staged, tmp_path, manifest("a"))
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    checked = subprocess.run(check, cwd=version, check=True, capture_output=True, text=True)
    assert checked.stdout.splitlines() == ["manifest.json: OK", "model.onnx: OK", "weights.bin: OK"]
    (version / "weights.bin").write_bytes(bytes(10**6 - 1))
    assert subprocess.run(check, cwd=version, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a\u2028b", "猫", "\x0b", " ", "", "\x85", "e"], None),
        (["a", "b", "c", "d", "e", "f"], "names 6 classes, the checkpoint has 7"),
        (["a", "b", "c", "d", "e", "f", "g", ""], "names 8 classes, the checkpoint has 7"),
    ],
)
def test_a_label_is_whatever_a_line_holds(
    labels: list[str], message: str | None, weights: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path, output = tmp_path / "labels.txt", tmp_path / "repository"
    path.write_bytes("".join(f"{label}\r\n" for label in labels).encode())
    arguments = [str(weights), "--name", "t", "--labels", str(path)]
    assert main([*arguments, "--output", str(output)]) == (message is not None)
    if message is not None:
        assert message in capsys.readouterr().err
        return
    written = (output / "t" / "labels.txt").read_text(encoding="utf-8")
    assert written == "".join(f"{label}\n" for label in labels)
    found = Manifest.read((output / "t" / "1" / "manifest.json").read_text(encoding="utf-8"))
    assert list(found.labels) == labels


@pytest.mark.parametrize("label", ["a\nb", "a\rb", "\ud800"])
def test_labels_that_no_line_can_hold_are_refused(
    label: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the checkpoint's own file may have them."""
    path = tmp_path / "test.safetensors"
    header = {
        "arch": "deepvit_test",
        "config": CONFIG.model_dump_json(),
        "preprocessing": "{}",
        "labels": json.dumps([label, *"bcdefg"]),
    }
    safetensors.torch.save_file(random_network(CONFIG).state_dict(), path, metadata=header)
    assert main([str(path), "--name", "t", "--output", str(tmp_path / "repository")]) == 1
    (line,) = (one for one in capsys.readouterr().err.splitlines() if one.startswith("export:"))
    assert line == f"export: the label {label!r} is not one line of text: give others (--labels)"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_labels_in_another_encoding_are_refused(
    encoding: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, labels = tmp_path / "test.pth", tmp_path / "labels.txt"
    torch.save(random_network(CONFIG).state_dict(), weights)
    labels.write_text("Kätzchen\n" + "\n".join("bcdefg"), encoding=encoding)
    arguments = [str(weights), "--arch", "deepvit_test", "--name", "t", "--labels", str(labels)]
    assert main([*arguments, "--output", str(tmp_path / "repository")]) == 1
    assert f"{labels} is not text in UTF-8" in capsys.readouterr().err
