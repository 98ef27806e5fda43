"""Compiled kernels for tests of them."""

import pytest

from service import native
from service.native.__main__ import main as build


@pytest.fixture(scope="session")
def built() -> None:
    if not native.LIBRARY.exists():
        assert build() == 0, "a C++ compiler is needed: g++"


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A processor's copy; on a lesser one, the best that it has."""
    monkeypatch.setenv("DEEPVIT_KERNEL", request.param)
    return str(request.param)
