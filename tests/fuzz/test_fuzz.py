"""Half a minute of fuzzing, and what the fuzzer does with what it finds; see also `make fuzz`."""

import ctypes
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzzer
from tests.fuzz.targets import TARGETS, Target
from tests.support.server import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_misbehaves(name: str, tmp_path: Path) -> None:
    seconds = str(30 / len(TARGETS))
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seconds", seconds]
    ran = subprocess.run(
        [*command, "--folder", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-10_000:]
    assert "inputs with seed 0" in ran.stdout


def crash(_: bytes) -> None:
    ctypes.string_at(0)


def hang(_: bytes) -> None:
    while True:
        pass


def swallow(_: bytes) -> None:
    if len(bytearray(4 * fuzzer.MEMORY_MIB * 2**20)):
        raise AssertionError("the memory has no limit")


@pytest.mark.parametrize(
    ("misbehave", "reason"),
    [
        (crash, "SIGSEGV"),
        (hang, "more than 0.1 s of processor time"),
        (swallow, "an error that is not documented"),
    ],
)
def test_an_input_that_misbehaves_is_kept_and_can_be_repeated(
    misbehave: Callable[[bytes], None],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def take(data: bytes) -> None:
        if data == b"7":
            misbehave(data)

    numbers = Target(lambda chance: str(chance.randrange(10)).encode(), take)
    monkeypatch.setitem(TARGETS, "numbers", numbers)
    monkeypatch.setattr(fuzzer, "SECONDS_PER_INPUT", 0.1)
    options = ["--target", "numbers", "--folder", str(tmp_path)]
    assert fuzzer.main([*options, "--seconds", "0.5", "--seed", "3"]) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == b"7"
    said = capfd.readouterr()
    assert f"numbers: {reason}, on 1 bytes: b'7'" in said.out
    assert f"--target numbers --input {kept}" in said.out
    assert "found with seed 3" in said.out
    assert fuzzer.main([*options, "--input", str(kept)]) == 1
    assert ("MemoryError" in capfd.readouterr().out) == (misbehave is swallow)


@pytest.mark.parametrize("name", TARGETS)
def test_the_same_seed_makes_the_same_inputs(name: str) -> None:
    make = TARGETS[name].make
    first, second = ([make(chance) for _ in range(20)] for chance in map(random.Random, (5, 5)))
    assert first == second
    assert len(set(first)) > 10
