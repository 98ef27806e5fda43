"""Bulk runs as a user starts them, and what they wrote."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from pyarrow import dataset

from tests.conftest import DEEPVIT
from tests.support.server import ROOT

# One thread: with more, a measurement decides how batches are run, which takes seconds.
QUICK = {"intra_op_threads": 1, "decode_threads": 2, "model": DEEPVIT}


def started(
    source: object, output: Path, repository: Path, **settings: Any
) -> subprocess.Popen[str]:
    """Of which standard error can be read, and of whose process group others are no part."""
    settings = QUICK | {"output": output, "model_repository": repository} | settings
    flags = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in settings.items()
    ]
    environment = {key: value for key, value in os.environ.items() if "DEEPVIT_" not in key}
    return subprocess.Popen(
        [sys.executable, "-m", "service.bulk", str(source), *flags],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(
    source: object,
    output: Path,
    repository: Path,
    status: int = 0,
    stdin: str = "",
    **settings: Any,
) -> str:
    """The standard error of a run that ends with this status."""
    with started(source, output, repository, **settings) as process:
        _, said = process.communicate(stdin, timeout=120)
    assert process.returncode == status, said
    return said


def killed_after(parts: int, process: subprocess.Popen[str], output: Path) -> bool:
    """Whether the process could be killed after so many more parts, before it came to its end."""
    before = len(part_names(output))
    while process.poll() is None:
        if len(part_names(output)) >= before + parts:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def part_names(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("part-*.parquet"))


def rows_of(output: Path) -> list[dict[str, Any]]:
    """As any reader of Parquet folders finds them, sorted by path."""
    rows: list[dict[str, Any]] = dataset.dataset(output, format="parquet").to_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["path"]))
