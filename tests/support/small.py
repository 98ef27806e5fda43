"""The two small models of most tests, of 32 x 32 pixels; the bundled ones take longer."""

from pathlib import Path

from tests.support.server import ROOT

FOLDER = ROOT / "tests" / "data" / "small"
REPOSITORY = FOLDER / "repository"  # exported by `make export`


def weights(name: str) -> Path:
    """The checkpoint of one of them."""
    return FOLDER / f"{name}.safetensors"
