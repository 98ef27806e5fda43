"""Installs the peers that cannot share the benchmark's environment, each into a folder of its own.

The folders are in the cache of exported models (`models.CACHE`), and are made once.
"""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

from tests.bench import models

BENTOML = "bentoml==1.4.40"
TRITON = "nvidia-pytriton==0.7.0"  # contains NVIDIA's tritonserver, 2.51
_FOLDER = models.CACHE / "peers"
_SHARED = ("onnxruntime", "pillow", "pydantic")  # the same versions as here
_DONE = "installed"


class CannotInstall(Exception):
    """A peer cannot be installed here; the message says why."""


def bentoml_python() -> str:
    """The interpreter of an environment with BentoML. Raises `CannotInstall`."""
    folder = _FOLDER / BENTOML
    python = folder / "bin" / "python"
    if not (folder / _DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _pip(str(python), "install", BENTOML, *_same_versions())
        (folder / _DONE).touch()
    return str(python)


def triton_folder() -> Path:
    """A folder with tritonserver, its Python backend, and packages. Raises `CannotInstall`."""
    folder = _FOLDER / TRITON
    if not (folder / _DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _pip(sys.executable, "download", "--no-deps", "--dest", str(folder), TRITON)
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        wheel.unlink()
        server = folder / "pytriton" / "tritonserver"
        stub = "triton_python_backend_stub"  # of one version of Python each
        version_of_python = f"{sys.version_info.major}.{sys.version_info.minor}"
        backend = server / "backends" / "python"
        shutil.copy(server / "python_backend_stubs" / version_of_python / stub, backend)
        for program in (server / "bin" / "tritonserver", backend / stub):
            program.chmod(0o755)
        # The backend sees no other packages than those beside it, and is compiled for NumPy 1.
        _pip(sys.executable, "install", "--target", str(backend), "numpy<2", *_same_versions())
        (folder / _DONE).touch()
    return folder


def _same_versions() -> list[str]:
    return [f"{package}=={version(package)}" for package in _SHARED]


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotInstall(f"pip: {done.stderr.strip().splitlines()[-1]}")
