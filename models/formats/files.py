"""Reads files and folders as tensors and plain facts, without executing anything in them."""

import argparse
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from models.formats.source import CheckpointError, File, names

# Plain data that training scripts save beside weights; loading it runs no code.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.dtype,
    type(np.dtype(np.float32)),
    type(np.dtype(np.float64)),
    type(np.dtype(np.int64)),
]
_WRAPPERS = ("state_dict_ema", "state_dict", "model_ema", "model")  # in order of preference
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as Hugging Face names them


def weights_file(path: Path) -> Path:
    """The file of weights: the path itself, or the one in a folder."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a file or a folder")
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return path / name
        if (path / f"{name}.index.json").is_file():
            raise CheckpointError(
                f"{path} holds weights in several shards: save the model with "
                "max_shard_size large enough for one file"
            )
    raise CheckpointError(f"{path} holds neither {' nor '.join(_IN_FOLDER)}")


def read(path: Path) -> File:
    """Read a file of weights, and the JSON of the Hugging Face style folder around it."""
    file = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if path.name in _IN_FOLDER:
        file.config = _read_json(path.with_name("config.json"))
        file.processor = _read_json(path.with_name("preprocessor_config.json"))
    return file


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise CheckpointError(f"{path.name} beside the weights is not readable JSON") from exc
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} beside the weights does not hold an object")
    return content


def _read_safetensors(path: Path) -> File:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as exc:
        raise CheckpointError(f"{path.name} is not a readable safetensors file: {exc}") from exc
    if not tensors:
        raise CheckpointError(f"{path.name} holds no tensors")
    if "config" not in header:
        return File(tensors)
    facts = json.loads(header["config"]) | json.loads(header["preprocessing"])
    labels = tuple(json.loads(header["labels"])) or None
    return File(tensors, header["arch"] or None, facts, labels, ["facts read from the header"])


def _read_torch(path: Path) -> File:
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointError(_refusal(path)) from exc
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as exc:
        raise CheckpointError(
            f"{path.name} is not a readable torch checkpoint, or it is truncated: {exc}"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, not a state dict")
    wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
    state = content[wrapper] if wrapper else content
    averaged = wrapper is not None and wrapper.endswith("_ema")
    notes = [f"averaged weights ({wrapper}) used"] if averaged else []
    tensors = {
        str(key).removeprefix("module."): value.detach()
        for key, value in state.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(
            f"{path.name} holds no tensors under {names(_WRAPPERS)} or at the top level"
        )
    arch, args = content.get("arch"), content.get("args")
    facts = vars(args) if isinstance(args, argparse.Namespace) else {}
    named = next((name for name in (arch, facts.get("model")) if isinstance(name, str)), None)
    return File(tensors, named, facts, notes=notes, wrapper=wrapper)


def _refusal(path: Path) -> str:
    """Name what a pickle would call beyond plain data; finding out does not execute it."""
    advice = "Save only the state dict, with torch.save or as safetensors."
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  # the archive itself may be broken; the advice stands
        return f"{path.name} was refused: it holds more than plain tensors. {advice}"
    return (
        f"{path.name} was refused: loading it would call {names(sorted(wanted))}. "
        f"Nothing was executed. {advice}"
    )
