"""Checkpoints of other code bases as their users have them, from tests/models/formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.models.formats import weights
from tests.support.server import ROOT

STORED = {path.stem: path for path in (ROOT / "tests" / "models" / "formats").glob("*.npz")}


def facts_of(name: str) -> dict[str, Any]:
    with np.load(STORED[name]) as stored:
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
    return facts


def flags_of(name: str) -> list[str]:
    """What has to be told on the command line."""
    flags = facts_of(name)["flags"]
    return [
        part for key, value in flags.items() for part in (f"--{key}".replace("_", "-"), str(value))
    ]


def tensors_of(facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    drawn = weights.state_dict(facts["shapes"])
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


def written(folder: Path, name: str) -> Path:
    """The checkpoint: a folder with JSON, or a file of weights."""
    facts = facts_of(name)
    if not facts["files"]:
        torch.save(tensors_of(facts), folder / "model.pth")
        return folder / "model.pth"
    for file, text in facts["files"].items():
        (folder / file).write_text(text)
    save_file(tensors_of(facts), folder / "model.safetensors")
    return folder
