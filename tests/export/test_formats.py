"""Checkpoints of other code bases on the command line: inspected, and exported with parity."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from export.__main__ import main
from export.verify import normalize, sample_images
from models import checkpoint
from models.manifest import Manifest
from models.size import Size
from tests.support.formats import flags_of, flags_to_load, written


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "vit_pytorch_0.40.2_deepvit",
            [
                "format         vit-pytorch DeepViT",
                "embedding      4 x 4 patches of 8 x 8 pixels (one convolution) "
                "after class token, width 24",
                "block 01       re-attention (3 heads of 10, no bias in qkv, "
                "LayerNorm (stays in the graph) over heads), MLP of 40",
                "head           the class token (pooled, then LayerNorm) to 7 classes, softmax",
            ],
        ),
        (
            "hugging_face_deit",
            [
                "format         Hugging Face DeiT",
                "embedding      4 x 4 patches of 8 x 8 pixels (one convolution) after class token "
                "and distillation token, width 24",
                "block 00       attention (3 heads of 8), MLP of 40",
                "labels         kind 0, kind 1, kind 2 and 4 more",
                "note           logits are the mean of both classifiers",
            ],
        ),
    ],
)
def test_inspect_prints_what_was_recognised(
    name: str, lines: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    path = written(tmp_path, name)
    files = sorted(tmp_path.rglob("*"))
    assert main(["inspect", str(path), *flags_of(tmp_path, name)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in printed] == []
    assert sum(line.startswith("block") for line in printed) == 2
    assert sorted(tmp_path.rglob("*")) == files != before


def test_inspect_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(written(tmp_path, "timm_vit"))]) == 1
    assert "do not determine num_heads: pass --arch NAME, or --num-heads" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name",
    [
        "timm_deit_distilled",
        "timm_norm_pre_one_head",
        "vit_pytorch_1.20.2_deepvit_mean",
        "hugging_face_siglip_zero_shot",
    ],
)
def test_exported_graphs_answer_as_the_network(
    name: str, format_repository: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = format_repository(name) / name / "1"
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_text())
    source = checkpoint.load(written(tmp_path, name), **flags_to_load(tmp_path, name))
    assert manifest.config == source.config
    assert manifest.checkpoint.format == source.format
    images = sample_images(2, Size.of(32))
    logits, traces = source.network().trace(normalize(images, source.preprocessing))
    session = ort.InferenceSession(folder / "model.onnx")
    np.testing.assert_allclose(session.run(None, {"images": images})[0], logits, atol=1e-5)
    stage = "reattention" if source.config.reatten_blocks else "softmax"
    explain = ort.InferenceSession(folder / "explain.onnx")
    last = explain.run([f"{stage}.map.01"], {"images": images})[0]
    np.testing.assert_allclose(last, getattr(traces[1], stage), atol=5e-5)


def test_layer_norm_over_heads_is_in_the_manifest_and_has_no_row_sum(
    format_repository: Callable[[str], Path], tmp_path: Path
) -> None:
    name = "vit_pytorch_1.20.2_deepvit_mean"
    record = json.loads((format_repository(name) / name / "1" / "manifest.json").read_text())
    mixing = record["reattention"][0]
    assert mixing["row_sum"] is None
    assert any("do not sum to a constant" in note for note in record["checkpoint"]["notes"])
    source = checkpoint.load(written(tmp_path, name), **flags_to_load(tmp_path, name))
    gain = source.weights["blocks.0.attn.var_norm.weight"]
    assert mixing["gain"] == pytest.approx(gain.tolist())
    theta = source.weights["blocks.0.attn.reatten_matrix.weight"][:, :, 0, 0]
    torch.testing.assert_close(torch.tensor(mixing["theta"]), theta)
    assert sum(map(sum, mixing["matrix"])) == pytest.approx(0, abs=1e-5)  # centred over heads
