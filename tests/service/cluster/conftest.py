"""Tests that need Ray are skipped where it is not installed."""

from importlib.util import find_spec

import pytest


@pytest.fixture(scope="session", autouse=True)
def ray_is_installed() -> None:
    # It is not imported here: its own warnings would be errors.
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed, which make test-cluster does")
