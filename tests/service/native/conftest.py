"""The compiled library, and each of its copies that this processor can run."""

from collections.abc import Iterator

import pytest

from service import native
from service.native import sources
from service.native.__main__ import main as build
from service.native.symbols import allow, chosen_copy


@pytest.fixture(scope="session")
def library() -> None:
    """Compiled, from the sources that are there now."""
    if not native.LIBRARY.exists():
        assert build() == 0, "a C++ compiler is needed: g++"
    assert not sources.is_stale(native.LIBRARY), "stale: run python -m service.native"


@pytest.fixture(params=["avx512", "avx2", "baseline"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels' copy for each instruction set; skipped where the processor lacks it."""
    request.getfixturevalue("library")
    wanted = str(request.param)
    allow(native.LIBRARY, wanted)
    if chosen_copy(native.LIBRARY) != wanted:
        pytest.skip(f"{wanted} is not supported by this processor")
    yield wanted
    allow(native.LIBRARY, "avx512")
