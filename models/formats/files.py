"""Reads files and folders as tensors and plain facts, without executing anything in them."""

import argparse
import codecs
import json
import pathlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import torch
from torch import Tensor

from models.formats.source import CheckpointError, File, names
from models.formats.wrappers import find_state_dict, is_averaged

_T = TypeVar("_T")
_Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]

# NumPy has moved these functions; files name the place where they were.
_NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMBERS = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
_FLOATS = ("float16", "float32", "float64")
# Plain data that training scripts save beside weights; loading it runs no code.
_HARMLESS: list[_Allowed] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(name)) for name in (*_NUMBERS, *_FLOATS)),
    *((np._core.multiarray.scalar, f"{module}.scalar") for module in _NUMPY),  # type: ignore[attr-defined]
    *((np._core.multiarray._reconstruct, f"{module}._reconstruct") for module in _NUMPY),  # type: ignore[attr-defined]
    (codecs.encode, "_codecs.encode"),  # how old pickles spell bytes
    *(
        (getattr(pathlib, f"Pure{kind}"), f"{module}.{prefix}{kind}")
        for module in ("pathlib", "pathlib._local")
        for prefix in ("", "Pure")
        for kind in ("PosixPath", "WindowsPath")
    ),
]
_IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # as Hugging Face names them
_OUR_HEADER = ("arch", "config", "preprocessing", "labels")
_MAX_UNBACKED_BYTES = 2**30  # of a tensor that repeats fewer values than its shape has


def weights_files(path: Path) -> list[Path]:
    """The files of weights: the path itself, or those in a folder, of which shards are several."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a file or a folder")
    for name in _IN_FOLDER:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}.index.json").is_file():
            index = _read_json(path / f"{name}.index.json").get("weight_map")
            if not isinstance(index, dict) or not all(isinstance(n, str) for n in index.values()):
                raise CheckpointError(
                    f"{name}.index.json does not say which files hold the weights"
                )
            return [path / Path(shard).name for shard in sorted(set(index.values()))]
    raise CheckpointError(f"{path} holds neither {' nor '.join(_IN_FOLDER)}")


def read(paths: list[Path]) -> File:
    """Read files of weights, and the JSON of the Hugging Face style folder around them."""
    first, *others = [_read_one(path) for path in paths]
    for other in others:
        first.tensors |= other.tensors
    first.tensors = {key: _plain(key, value) for key, value in first.tensors.items()}
    folder = paths[0].parent
    if others or paths[0].name in _IN_FOLDER:
        first.config = _read_json(folder / "config.json")
        first.processor = _read_json(folder / "preprocessor_config.json")
    return first


def _read_one(path: Path) -> File:
    """The format is told by the content, not by the name."""
    try:
        with path.open("rb") as file:
            begin = file.read(512)
    except OSError as exc:
        raise CheckpointError(f"{path.name} cannot be read: {exc.strerror}") from exc
    if begin[8:9] == b"{":  # behind the length of a safetensors header
        return _read_safetensors(path)
    if what := _not_a_checkpoint(begin):
        raise CheckpointError(f"{path.name} is not a checkpoint, but {what}")
    return _read_torch(path)


def _plain(key: str, tensor: Tensor) -> Tensor:
    """A dense tensor of real numbers. Raises `CheckpointError` for what is none."""
    if tensor.is_quantized:
        raise CheckpointError(f"{key} is quantised: save the network before it is quantised")
    if tensor.is_meta:
        raise CheckpointError(f"{key} is on the meta device: it has a shape, but no values")
    if tensor.is_complex():
        raise CheckpointError(f"{key} holds complex numbers")
    tensor = tensor.detach()
    length = tensor.numel() * tensor.element_size()
    if length > max(_stored_bytes(tensor), _MAX_UNBACKED_BYTES):
        raise CheckpointError(f"{key} {[*tensor.shape]} has more values than the file holds")
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    return tensor.float() if tensor.is_floating_point() and tensor.element_size() == 1 else tensor


def _stored_bytes(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 0


def _not_a_checkpoint(begin: bytes) -> str | None:
    """What failed downloads leave, by how it begins."""
    if not begin:
        return "empty"
    text = begin.lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        return "the pointer that Git LFS keeps in its place: run git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a page of HTML, which a server sent in its place: download it again by hand"
    return None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
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
    if not header.keys() >= set(_OUR_HEADER):  # another program's, or none
        return File(tensors)
    config, preprocessing = (_from_header(path, header, key, dict) for key in _OUR_HEADER[1:3])
    labels = _from_header(path, header, "labels", list)
    if not all(isinstance(label, str) for label in labels):
        raise CheckpointError(f"{path.name}: labels in its header are not all text")
    return File(
        tensors,
        header["arch"] or None,
        config | preprocessing,
        tuple(labels) or None,
        ["facts read from the header"],
        ours=True,
    )


def _from_header(path: Path, header: Mapping[str, str], key: str, kind: type[_T]) -> _T:
    """JSON that this project has written into the header of a safetensors file."""
    try:
        found = json.loads(header[key])
    except (ValueError, RecursionError) as exc:
        raise CheckpointError(f"{path.name}: {key} in its header is not readable JSON") from exc
    if not isinstance(found, kind):
        wanted = "a list" if kind is list else "an object"
        raise CheckpointError(f"{path.name}: {key} in its header is not {wanted}")
    return found


def _read_torch(path: Path) -> File:
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of old ways to store tensors
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as exc:
        raise CheckpointError(_refusal(path)) from exc
    except Exception as exc:  # bytes that are no pickle may raise anything
        if "TorchScript" in str(exc):
            raise CheckpointError(
                f"{path.name} is a TorchScript program: save the state dict of its network"
            ) from exc
        reason = str(exc).partition("\n")[0]
        raise CheckpointError(
            f"{path.name} is not a readable torch checkpoint, or it is truncated: {reason}"
        ) from exc
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, not a state dict")
    tensors, keys = find_state_dict(content)
    if not tensors:
        raise CheckpointError(
            f"{path.name} holds no tensors; its keys are {names(map(str, content))}"
        )
    notes = [f"averaged weights ({'.'.join(keys)}) used"] if is_averaged(keys) else []
    arguments = content.get("args")
    facts = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    named = next((n for n in (content.get("arch"), facts.get("model")) if isinstance(n, str)), None)
    return File(tensors, named, facts, notes=notes, keys=keys)


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
