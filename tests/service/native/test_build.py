"""Compiling the kernels, and telling a library that is older than its sources."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service import native
from service.inference import execution
from service.native import sources
from service.native.__main__ import main as build

pytestmark = pytest.mark.usefixtures("library")

GCC = ["__GNUC__ 12", '__VERSION__ "12.2.0"']
NEED = "native: models run without compiled kernels, which need GCC 12 or newer: "
OTHER = "; CXX can name another compiler"


@pytest.fixture
def unchanged() -> Iterator[None]:
    before = native.LIBRARY.read_bytes()
    yield
    assert native.LIBRARY.read_bytes() == before
    assert not [path for path in native.LIBRARY.parent.iterdir() if path.name.startswith("tmp")]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("macros", "said"),
    [
        (["__GNUC__ 11", '__VERSION__ "11.4.0"'], f"{NEED}g++ is 11.4.0{OTHER}"),
        (
            ["__clang__ 1", "__GNUC__ 14", '__VERSION__ "Clang 19.1.0"'],
            f"{NEED}g++ is Clang 19.1.0{OTHER}",
        ),
        ([], f"{NEED}g++ is no C++ compiler{OTHER}"),
        (None, f"{NEED}g++ is not there{OTHER}"),
        (GCC, "native: compiling libdeepvit.so failed, models run without it: "),
    ],
    ids=["old", "clang", "none", "missing", "failing"],
)
def test_a_compiler_that_will_not_do_is_named_in_one_line(
    macros: list[str] | None,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A compiler that can tell its version, and nothing else."""
    if macros is not None:
        lines = "".join(f"#define {macro}\n" for macro in macros)
        fake = tmp_path / "g++"
        fake.write_text(f"#!/bin/sh\n[ $4 = -dM ] && cat {tmp_path}/macros")
        fake.chmod(0o755)
        (tmp_path / "macros").write_text(lines)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("NVCC", "no-such-nvcc")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if macros is not None else str(tmp_path))
    assert build() == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(said)


@pytest.mark.parametrize("name", [native.LIBRARY.name, native.CUDA_LIBRARY.name])
def test_a_library_was_compiled_from_the_sources_beside_it(name: str) -> None:
    if not (sources.FOLDER / name).exists():
        pytest.skip(f"{name} is not compiled here")
    expected = sources.hash_of_sources(name)
    found = sources.hash_in(sources.FOLDER / name)
    assert found == expected, f"{name} is older than its sources: run python -m service.native"


@pytest.fixture
def copied_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sources and the library compiled from them."""
    folder = shutil.copytree(sources.FOLDER, tmp_path / "native")
    monkeypatch.setattr(sources, "FOLDER", folder)
    return folder


@pytest.mark.parametrize("changed", ["attend.cpp", "vectors.h", "operators.cpp", "__main__.py"])
def test_any_change_of_sources_or_flags_makes_a_library_stale(
    copied_sources: Path, changed: str
) -> None:
    library = copied_sources / native.LIBRARY.name
    assert not sources.is_stale(library)
    with (copied_sources / changed).open("a") as file:
        file.write("\n")
    assert sources.is_stale(library)


def test_a_library_that_says_nothing_of_its_sources_is_stale(tmp_path: Path) -> None:
    library = tmp_path / native.LIBRARY.name
    library.write_bytes(b"compiled long ago")
    assert sources.hash_in(library) is None
    assert sources.is_stale(library)


def test_a_library_without_its_sources_is_not_stale(copied_sources: Path) -> None:
    (copied_sources / "attend.cpp").unlink()
    assert not sources.is_stale(copied_sources / native.LIBRARY.name)


def test_a_stale_library_is_used_and_warned_of_once(
    copied_sources: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (copied_sources / "attend.h").write_text("// changed")
    library = copied_sources / native.LIBRARY.name
    monkeypatch.setattr(native, "LIBRARY", library)
    with caplog.at_level(logging.WARNING):
        plain = execution.Execution("cpu", "fp32")
        assert [execution.with_kernels(plain).kernels for _ in range(2)] == [library] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"{library} is older than its sources: run python -m service.native"
    ]
