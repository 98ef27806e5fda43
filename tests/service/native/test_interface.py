"""Whatever goes wrong in an operator, ONNX Runtime gets a status: its interface is that of C."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from service.native import sources

SOURCE = Path(__file__).with_name("interface.cpp")


def test_exceptions_and_an_old_runtime_become_statuses(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if not compiler:
        pytest.skip("there is no C++ compiler")
    program = tmp_path / "interface"
    command = [
        compiler,
        "-std=c++17",
        "-w",
        "-iquote",
        str(sources.FOLDER),
        str(SOURCE),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    ran = subprocess.run([program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "refused caught\n")
