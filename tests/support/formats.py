"""Checkpoints of other code bases as their users have them, from tests/models/formats."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.models.formats import weights
from tests.support.server import ROOT

HEAD = "text.pth"
STORED = {path.stem: path for path in (ROOT / "tests" / "models" / "formats").glob("*.npz")}


def facts_of(name: str) -> dict[str, Any]:
    with np.load(STORED[name]) as stored:
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
    return facts


def flags_of(folder: Path, name: str) -> list[str]:
    """What has to be told on the command line of an export of what `written` wrote."""
    flags = flags_to_load(folder, name)
    return [
        part for key, value in flags.items() for part in (f"--{key}".replace("_", "-"), str(value))
    ]


def tensors_of(facts: dict[str, Any]) -> dict[str, torch.Tensor]:
    drawn = weights.state_dict(facts["shapes"])
    return {key: torch.from_numpy(value) for key, value in drawn.items()}


def flags_to_load(folder: Path, name: str) -> dict[str, Any]:
    """What has to be told to `checkpoint.load`, with the file of a classifier if there is one."""
    flags: dict[str, Any] = facts_of(name)["flags"]
    if name.startswith("vit_pytorch"):
        flags = {"img_size": 32} | flags
    return flags | ({"head": folder / HEAD} if name.endswith("zero_shot") else {})


def _write_text(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """The embeddings of captions, with the scale and the bias that the model was trained with."""
    given = {key: value for key, value in tensors.items() if key in ("logit_scale", "logit_bias")}
    projection = tensors.get("visual_projection.weight", tensors.get("visual.proj"))
    width = min(projection.shape) if projection is not None else 24
    given["text_embeddings"] = torch.from_numpy(weights.text_embeddings(width))
    torch.save(given, folder / HEAD)


def written(folder: Path, name: str) -> Path:
    """The checkpoint: a folder with JSON, or a file of weights."""
    facts = facts_of(name)
    if name.endswith("zero_shot"):
        _write_text(folder, tensors_of(facts))
    if not facts["files"]:
        torch.save(tensors_of(facts), folder / "model.pth")
        return folder / "model.pth"
    for file, text in facts["files"].items():
        (folder / file).write_text(text)
    save_file(tensors_of(facts), folder / "model.safetensors")
    return folder
