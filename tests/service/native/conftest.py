"""The compiled library, and each of its copies that this processor can run."""

import ctypes

import pytest

from service import native
from service.native import sources
from service.native.__main__ import main as build


@pytest.fixture(scope="session")
def library() -> None:
    """Compiled, from the sources that are there now."""
    if not native.LIBRARY.exists():
        assert build() == 0, "a C++ compiler is needed: g++"
    assert not sources.is_stale(native.LIBRARY), "stale: run python -m service.native"


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernels' copy for each instruction set; skipped where the processor lacks it."""
    request.getfixturevalue("library")
    wanted = str(request.param)
    monkeypatch.setenv("DEEPVIT_KERNEL", wanted)
    if chosen_copy() != wanted:
        pytest.skip(f"{wanted} is not supported by this processor")
    return wanted


def chosen_copy() -> str:
    """Which copy the library itself says that it runs."""
    choose = ctypes.CDLL(str(native.LIBRARY)).deepvit_instruction_set
    choose.restype = ctypes.c_char_p
    name: bytes = choose()
    return name.decode()
