"""`python -m tests.fuzz`: give changed inputs to the code that reads what clients send.

Each target runs in a process of its own, with limits on its memory and on the processor time of one
input. An input that crashes it, takes too long or raises what is not documented is kept in a file,
and the command that repeats it is printed. The same seed makes the same inputs.
"""

import argparse
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS, Target

MEMORY_MIB = 1024  # beyond what the process has at its start
SECONDS_PER_INPUT = 10.0  # of processor time
WAIT_S = 120  # for an input that takes no processor time either
FOLDER = Path("fuzz-findings")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 if there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, help="only this one")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for what is found")
    parser.add_argument("--input", type=Path, help="give only this file to the target")
    asked = parser.parse_args(arguments)
    if asked.input and not asked.target:
        parser.error("--input needs --target")
    names = [asked.target] if asked.target else list(TARGETS)
    asked.folder.mkdir(parents=True, exist_ok=True)
    findings = 0
    for name in names:
        if asked.input:
            findings += _run(name, [asked.input.read_bytes()], asked.folder)
        else:
            findings += _fuzz(name, asked.seed, asked.seconds / len(names), asked.folder)
    return 1 if findings else 0


def _fuzz(name: str, seed: int, seconds: float, folder: Path) -> int:
    """How many inputs misbehaved until the time was over; each finding starts another seed."""
    end = time.monotonic() + seconds
    findings = 0
    while time.monotonic() < end and _run(name, _inputs(TARGETS[name], seed, end), folder):
        print(f"{name}: found with seed {seed}", flush=True)
        findings += 1
        seed += 1_000_003
    return findings


def _inputs(target: Target, seed: int, end: float) -> Iterable[bytes]:
    chance, count = random.Random(seed), 0
    while time.monotonic() < end:
        yield target.make(chance)
        count += 1
    print(f"{count:,} inputs with seed {seed}", flush=True)


def _run(name: str, inputs: Iterable[bytes], folder: Path) -> bool:
    """Whether one of the inputs misbehaved, which ends the process; it is kept and reported."""
    target, current = TARGETS[name], folder / f"current-{name}"
    said = current.with_suffix(".log")
    target.make(random.Random(0))  # files that are made once, outside the limits
    forked = multiprocessing.get_context("fork")
    child = forked.Process(target=_take_all, args=(target, inputs, current, said))
    child.start()
    child.join()
    status, content = child.exitcode, current.read_bytes()
    last_words = said.read_text(errors="replace")[-4000:]
    current.unlink()
    said.unlink()
    if status == 0:
        return False
    kept = folder / f"{name}-{hashlib.sha256(content).hexdigest()[:16]}"
    kept.write_bytes(content)
    print(
        f"{name}: {_reason(status or 0)}, on {len(content):,} bytes: {content[:200]!r}\n"
        f"to repeat it: python -m tests.fuzz --target {name} --input {kept}\n{last_words}",
        flush=True,
    )
    return True


def _reason(status: int) -> str:
    if status == -signal.SIGPROF:
        return f"more than {SECONDS_PER_INPUT:g} s of processor time"
    if status == -signal.SIGALRM:
        return f"no end within {WAIT_S} s"
    return signal.Signals(-status).name if status < 0 else "an error that is not documented"


def _take_all(target: Target, inputs: Iterable[bytes], current: Path, said: Path) -> None:
    """In the child. Files hold the input that is being taken, and what is said of it on stderr."""
    current.touch()
    with said.open("ab") as log:  # stderr of C libraries too
        os.dup2(log.fileno(), 2)
    sys.stderr = os.fdopen(2, "a", buffering=1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_MIB * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    for data in inputs:
        current.write_bytes(data)
        os.truncate(said, 0)
        signal.alarm(WAIT_S)
        signal.setitimer(signal.ITIMER_PROF, SECONDS_PER_INPUT)
        target.take(data)
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    sys.exit(main())
