"""Bulk runs as a user starts them, and what they wrote."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyarrow import dataset

from tests.conftest import DEEPVIT
from tests.support.forking import Forked
from tests.support.server import ROOT, environment
from tests.support.waiting import PATIENCE_S

# One thread: with more, a measurement decides how batches are run, which takes seconds.
QUICK = {"intra_op_threads": 1, "decode_threads": 2, "model": DEEPVIT}


def started(
    source: object, output: Path | str, repository: Path, **settings: Any
) -> subprocess.Popen[str]:
    """Of which standard error can be read, and of whose process group others are no part."""
    return subprocess.Popen(
        [sys.executable, "-m", "service.bulk", *arguments(source, output, repository, settings)],
        cwd=ROOT,
        env=environment({}),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(
    source: object,
    output: Path | str,
    repository: Path,
    status: int = 0,
    stdin: str | None = None,
    **settings: Any,
) -> str:
    """The standard error of a run that ends with this status; by the command on Ray."""
    if stdin is not None or "ray" in settings:
        with started(source, output, repository, **settings) as process:
            _, said = process.communicate(stdin, timeout=PATIENCE_S)
        found = process.returncode
    else:
        given = arguments(source, output, repository, settings)
        found, said = Forked(given, ROOT, environment({}), "service.bulk.__main__").finish(
            PATIENCE_S
        )
    assert found == status, said
    return said


def arguments(
    source: object, output: Path | str, repository: Path, settings: Mapping[str, Any]
) -> list[str]:
    given = QUICK | {"output": output, "model_repository": repository} | dict(settings)
    flags = (
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in given.items()
    )
    return [str(source), *flags]


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
