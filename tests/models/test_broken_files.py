"""Files that are broken, or made to break a reader, are refused in one line."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from models import checkpoint
from models.config import ARCHITECTURES
from models.formats import CheckpointError
from tests.support.formats import written
from tests.support.networks import random_network

CONFIG = ARCHITECTURES["deepvit_test"].config
TENSORS = random_network(CONFIG).state_dict()


def whole() -> bytes:
    header = {
        "arch": "deepvit_test",
        "config": CONFIG.model_dump_json(),
        "preprocessing": ARCHITECTURES["deepvit_test"].preprocessing.model_dump_json(),
        "labels": "[]",
    }
    return safetensors.torch.save(TENSORS, header)


WHOLE = whole()
LENGTH = struct.unpack("<Q", WHOLE[:8])[0]
HEADER: dict[str, Any] = json.loads(WHOLE[8 : 8 + LENGTH])
FIRST, SECOND = [key for key in HEADER if key != "__metadata__"][:2]


def packed(header: bytes, rest: bytes = WHOLE[8 + LENGTH :]) -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


def changed(key: str, **facts: Any) -> bytes:
    return packed(json.dumps(HEADER | {key: HEADER[key] | facts}).encode())


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert len(message) < 500
    return message


BROKEN = {
    "cut in its length": WHOLE[:6],
    "cut in its header": WHOLE[:100],
    "cut in its tensors": WHOLE[:-100],
    "a header beyond the file": struct.pack("<Q", 10**9) + WHOLE[8:],
    "a header without end": struct.pack("<Q", 2**63) + WHOLE[8:],
    "a header of 100 MB": packed(b"{" + b" " * 10**8 + b"}", b""),
    "a header that is not JSON": packed(b"{" * 1000),
    "a header that is not UTF-8": packed(b'{"\xff": 1}'),
    "a header that is a list": packed(b"{}[]"),
    "a header that is nested deeply": packed(b'{"a":' * 10**5),
    "no tensors": packed(b"{}", b""),
    "tensors that overlap": changed(FIRST, data_offsets=HEADER[SECOND]["data_offsets"]),
    "offsets below zero": changed(FIRST, data_offsets=[-8, 0]),
    "two tensors of one name": packed(
        json.dumps(HEADER).encode().replace(f'"{SECOND}"'.encode(), f'"{FIRST}"'.encode())
    ),
    "a type that there is not": changed(FIRST, dtype="F128"),
    "a type of another width": changed(FIRST, dtype="F8_E4M3"),
    "another shape": changed(FIRST, shape=[1, 2]),
    "a shape without end": changed(FIRST, shape=[2**62, 2**62]),
    "facts that are not text": changed("__metadata__", config=5),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_safetensors_file_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(BROKEN[kind])
    assert refusal(tmp_path / "model.safetensors").startswith("model.safetensors ")


@pytest.mark.parametrize("key", ["config", "preprocessing", "labels"])
@pytest.mark.parametrize("text", ["", "{", "5", "null", '"abcdefg"', "[5, 6]", "[" * 10**5])
def test_facts_that_are_not_as_the_project_writes_them_are_refused(
    key: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "m.safetensors").write_bytes(changed("__metadata__", **{key: text}))
    assert refusal(tmp_path / "m.safetensors").startswith(f"m.safetensors: {key} in its header")


def nested() -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    mapping["state_dict"] = mapping
    return mapping


def sparse() -> torch.Tensor:
    place, value = torch.tensor([[0], [0]]), torch.tensor([1.0])
    return torch.sparse_coo_tensor(place, value, (10**6, 10**6), check_invariants=True)


PICKLED: dict[str, tuple[Callable[[], Any], str]] = {
    "a mapping that contains itself": (nested, "holds no tensors"),
    "a tensor of 4 TB that repeats one value": (
        lambda: TENSORS | {"head.weight": torch.zeros(1).expand(10**6, 10**6)},
        r"head.weight \[1000000, 1000000\] has more values than the file holds",
    ),
    "a sparse tensor of 4 TB": (
        lambda: TENSORS | {"head.weight": sparse()},
        "has more values than the file holds",
    ),
}


@pytest.mark.parametrize("kind", PICKLED)
def test_a_pickle_that_would_take_all_memory_is_refused(kind: str, tmp_path: Path) -> None:
    content, message = PICKLED[kind]
    torch.save(content(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "model.pth", "deepvit_test")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_torch_file_is_refused(share: float, tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "model.pth")
    content = (tmp_path / "model.pth").read_bytes()
    (tmp_path / "model.pth").write_bytes(content[: int(share * len(content))])
    assert "not a readable torch checkpoint, or it is truncated" in refusal(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("file", "facts"),
    [
        ("preprocessor_config.json", {"image_mean": 5}),
        ("preprocessor_config.json", {"image_std": ["x"] * 3}),
        ("preprocessor_config.json", {"rescale_factor": 0}),
        ("preprocessor_config.json", {"size": [[]]}),
        ("preprocessor_config.json", {"resample": {}}),
        ("config.json", {"hidden_act": ["gelu"]}),
    ],
)
def test_json_of_other_types_beside_the_weights_is_refused(
    file: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    folder = written(tmp_path, "hugging_face_deit")
    found = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps(found | facts))
    assert "beside the weights is not as its program writes it" in refusal(folder)


def test_json_that_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    folder = written(tmp_path, "hugging_face_deit")
    (folder / "config.json").write_text('{"a":' * 10**5)
    assert "config.json beside the weights is not readable JSON" in refusal(folder)
