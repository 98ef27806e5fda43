"""State dicts in all that training scripts put around them, and files that hold none."""

import argparse
import pathlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models import checkpoint
from models.checkpoint import CheckpointError
from models.deepvit import DeepViT
from tests.models.test_names import plain

NETWORK = plain()


def under(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in NETWORK.items()}


def averaged() -> dict[str, Tensor]:
    """What torch's AveragedModel saves: a counter beside a wrapped network."""
    module = nn.Module()
    module.net = nn.Linear(1, 1)
    wrapped = torch.optim.swa_utils.AveragedModel(module).state_dict()
    assert {"n_averaged", "module.net.weight"} <= wrapped.keys()
    return under("module.") | {"n_averaged": wrapped["n_averaged"]}


COUNTERS = {
    f"{module}.{counter}".lstrip("."): torch.zeros(1, dtype=torch.float64)
    for module in ("", "blocks", "blocks.0.attn")
    for counter in ("total_ops", "total_params")
}
WRAPPED: dict[str, Any] = {
    "bare": NETWORK,
    "compiled": under("_orig_mod."),
    "parallel_of_compiled": under("module._orig_mod."),
    "compiled_of_parallel": under("_orig_mod.module."),
    "fsdp": {
        k.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): v for k, v in NETWORK.items()
    },
    "averaged": averaged(),
    "averaged_beside": {"model": {}, "model_ema": averaged(), "epoch": 1},
    "lightning": {"state_dict": under("model."), "pytorch-lightning_version": "2.5.0"},
    "lightning_with_metrics": {
        "state_dict": under("net.")
        | {
            "criterion.weight": torch.ones(5),
            "train_acc.tp": torch.zeros(5),
            "net_loss.w": torch.ones(1),
        }
    },
    "tutorial": {"model_state_dict": NETWORK, "loss": torch.tensor(0.3), "epoch": 3},
    "cifar": {"net": NETWORK, "acc": 93.1},
    "dino": {"student": {}, "teacher": under("module.backbone."), "epoch": 3},
    "timm_wrapper": under("timm_model."),
    "counted_by_thop": NETWORK | COUNTERS,
    "deep": {"model": {"state_dict": under("module.model.backbone.")}},
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_the_network_is_found_in_every_wrapping(kind: str, tmp_path: Path) -> None:
    torch.save(WRAPPED[kind], tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", num_heads=3)
    assert found.weights.keys() == NETWORK.keys()
    assert all(torch.equal(found.weights[key], NETWORK[key]) for key in NETWORK)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    torch.save(WRAPPED["lightning_with_metrics"], tmp_path / "model.pth")
    notes = " ".join(checkpoint.load(tmp_path / "model.pth", num_heads=3).notes)
    assert "no part of a network: criterion.weight, train_acc.tp, net_loss.w" in notes
    torch.save(under("model.") | {"mask_head.weight": torch.ones(3)}, tmp_path / "model.pth")
    notes = " ".join(checkpoint.load(tmp_path / "model.pth", num_heads=3).notes)
    assert "not under model.: mask_head.weight" in notes


def test_unknown_tensors_keep_the_names_of_the_file(tmp_path: Path) -> None:
    torch.save({"model.encoder.conv.weight": torch.zeros(1)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"it begins with model\.encoder\.conv\.weight"):
        checkpoint.load(tmp_path / "model.pth")


HARMLESS: dict[str, Any] = {
    "float64": np.float64(71.5),
    "float32": np.float32(71.5),
    "int64": np.int64(3),
    "bool": np.bool_(True),
    "array": np.array([1.0, 2.0]),
    "integers": np.arange(3, dtype=np.uint8),
    "path": pathlib.PurePosixPath("/checkpoint/7"),
    "local_path": pathlib.Path("out"),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", HARMLESS)
def test_plain_data_beside_the_weights_is_harmless(kind: str, legacy: bool, tmp_path: Path) -> None:
    content = {"state_dict": NETWORK, "metric": HARMLESS[kind]}
    content["args"] = argparse.Namespace(output_dir=HARMLESS[kind])
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
    assert checkpoint.load(tmp_path / "model.pth", num_heads=3).config.num_heads == 3


def test_the_names_of_numpy_1_are_read(tmp_path: Path) -> None:
    """What NumPy 2 pickles, under the place that its functions had before.

    The opcode of a name ends at a newline in the legacy format, so the shorter one fits.
    """
    path = tmp_path / "model.pth"
    content = {"state_dict": NETWORK, "metric": np.float64(71.5), "history": np.ones(2)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    new, old = b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"
    written = path.read_bytes()
    assert written.count(new) == 2
    path.write_bytes(written.replace(new, old))
    assert checkpoint.load(path, num_heads=3).config.num_heads == 3


def _quantised() -> dict[str, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will not have such tensors for ever
        head = torch.quantize_per_tensor(NETWORK["head.weight"], 0.01, 0, torch.qint8)
    return NETWORK | {"head.weight": head}


REFUSED: dict[str, tuple[Any, str]] = {
    "quantised": (_quantised(), "head.weight is quantised"),
    "meta": (NETWORK | {"head.bias": torch.empty(5, device="meta")}, "on the meta device"),
    "complex": (
        NETWORK | {"head.bias": torch.zeros(5, dtype=torch.complex64)},
        "head.bias holds complex numbers",
    ),
    "pruned": (
        NETWORK | {"blocks.0.mlp.fc1.weight_orig": torch.zeros(1)},
        "not supported: a pruned layer",
    ),
    "adapter": (NETWORK | {"blocks.0.attn.qkv.lora_A": torch.zeros(1)}, "LoRA"),
    "layer_scale": (
        NETWORK | {"blocks.0.ls1.gamma": torch.ones(192)},
        "LayerScale is missing at blocks.0.mlp.fc2, blocks.1",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_cannot_be_taken_as_they_are_are_named(kind: str, tmp_path: Path) -> None:
    content, message = REFUSED[kind]
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path / "model.pth", num_heads=3)


@pytest.mark.parametrize(
    "changed",
    [
        lambda value: value.double(),
        lambda value: value.to(torch.bfloat16),
        lambda value: value.to(torch.float8_e4m3fn),
        lambda value: value.to_sparse() if value.ndim == 2 else value,
        lambda value: value.t().contiguous().t() if value.ndim == 2 else value,
        lambda value: nn.Parameter(value),
    ],
    ids=["float64", "bfloat16", "float8", "sparse", "not contiguous", "parameter"],
)
def test_other_types_and_layouts_are_read(changed: Any, tmp_path: Path) -> None:
    torch.save({key: changed(value) for key, value in NETWORK.items()}, tmp_path / "model.pth")
    found = checkpoint.load(tmp_path / "model.pth", num_heads=3)
    for key, value in NETWORK.items():
        assert found.weights[key].dtype == torch.float32
        torch.testing.assert_close(found.weights[key], value, rtol=0.1, atol=0.02)


NOT_CHECKPOINTS = {
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
    "a page": (b"\n<!DOCTYPE html><html>virus scan warning</html>", "a page of HTML"),
    "nothing": (b"", "empty"),
    "text": (b"epoch 1 loss 0.3\n", "not a readable torch checkpoint|more than plain tensors"),
}


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors", ".PTH"])
@pytest.mark.parametrize("kind", NOT_CHECKPOINTS)
def test_what_a_failed_download_leaves_is_named(kind: str, suffix: str, tmp_path: Path) -> None:
    content, message = NOT_CHECKPOINTS[kind]
    (tmp_path / f"model{suffix}").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as refused:
        checkpoint.load(tmp_path / f"model{suffix}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["model.bin", "MODEL.SAFETENSORS", "model.pth"])
def test_the_content_tells_the_format_and_not_the_suffix(name: str, tmp_path: Path) -> None:
    save_file(NETWORK, tmp_path / name)
    assert checkpoint.load(tmp_path / name, num_heads=3).config.depth == 2


@pytest.mark.parametrize("header", ['{"img_size": 32}', "configs/vit.yaml", '{"arch": "x"}'])
def test_the_header_of_another_program_is_not_ours(header: str, tmp_path: Path) -> None:
    save_file(NETWORK, tmp_path / "m.safetensors", {"config": header, "format": "pt"})
    assert checkpoint.load(tmp_path / "m.safetensors", num_heads=3).config.depth == 2


def test_programs_are_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and such files are there
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model.pt is a TorchScript program"):
        checkpoint.load(tmp_path / "model.pt")


def test_shards_are_read_as_one(tmp_path: Path) -> None:
    keys = sorted(NETWORK)
    shards = {"model-1.safetensors": keys[::2], "model-2.safetensors": keys[1::2]}
    for name, held in shards.items():
        save_file({key: NETWORK[key] for key in held}, tmp_path / name)
    index = {key: name for name, held in shards.items() for key in held}
    text = '{"weight_map": ' + str(index).replace("'", '"') + "}"
    (tmp_path / "model.safetensors.index.json").write_text(text)
    found = checkpoint.load(tmp_path, num_heads=3)
    network = DeepViT(found.config)
    network.load_state_dict(found.weights)
    assert all(torch.equal(found.weights[key], NETWORK[key]) for key in NETWORK)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors cannot be read"):
        checkpoint.load(tmp_path, num_heads=3)
