"""The command line: what it writes, that it writes whole versions only, what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from export import fold
from export.__main__ import main
from export.linear import batch_norm_affine
from export.verify import sample_images
from models import checkpoint
from models.config import ARCHITECTURES
from models.manifest import METADATA_KEY, Manifest
from models.size import Size
from tests.support import small
from tests.support.networks import LONE, save_random
from tests.support.server import ROOT


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a plain block, and of one that mixes."""
    path = tmp_path_factory.mktemp("checkpoint") / "test.safetensors"
    fewer = {"depth": 2, "reatten_blocks": (1,)}
    return save_random(ARCHITECTURES["deepvit_test"].config.model_copy(update=fewer), path)


@pytest.fixture(scope="module")
def repository(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    status = main(
        [str(weights), "--name", "tiny", "--output", str(folder), "--max-batch-size", "5"]
    )
    assert status == 0
    return folder


def test_the_entry_is_complete_and_nothing_else_is_left(repository: Path) -> None:
    found = sorted(str(path.relative_to(repository)) for path in repository.rglob("*"))
    assert found == [
        "tiny",
        "tiny/1",
        "tiny/1/SHA256SUMS",
        "tiny/1/explain.onnx",
        "tiny/1/manifest.json",
        "tiny/1/model.onnx",
        "tiny/1/weights.bin",
        "tiny/config.pbtxt",
        "tiny/labels.txt",
    ]


def test_weights_are_stored_once_for_both_graphs(repository: Path) -> None:
    places: dict[str, set[tuple[str, str]]] = {}
    for graph in ("model", "explain"):
        path = repository / "tiny/1" / f"{graph}.onnx"
        onnx.checker.check_model(path, full_check=True)
        model = onnx.load(path, load_external_data=False)
        places[graph] = {
            (entry["location"], entry["offset"])
            for tensor in model.graph.initializer
            if (entry := {item.key: item.value for item in tensor.external_data})
        }
    assert places["model"]
    assert places["model"] <= places["explain"]
    assert {location for location, _ in places["model"]} == {"weights.bin"}


def test_no_bias_is_added_by_an_operator_of_its_own(repository: Path) -> None:
    """Over all tokens, that is one more pass through memory for each linear layer."""
    graph = onnx.load(repository / "tiny/1/model.onnx", load_external_data=False).graph
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    added = [node.name for node in graph.node if node.op_type == "Add" and vectors & {*node.input}]
    assert added == []
    assert sum(node.op_type == "Gemm" for node in graph.node) == 4 * 2 + 2  # q, proj, fc1, fc2


def test_the_manifest_travels_in_both_graphs(repository: Path) -> None:
    folder = repository / "tiny/1"
    beside = json.loads((folder / "manifest.json").read_text())
    for graph in ("model", "explain"):
        session = ort.InferenceSession(folder / f"{graph}.onnx")
        embedded = session.get_modelmeta().custom_metadata_map[METADATA_KEY]
        assert json.loads(embedded) == beside


def test_parity_is_recorded_for_every_output_at_batch_1_2_and_the_largest(repository: Path) -> None:
    manifest = Manifest.model_validate_json((repository / "tiny/1/manifest.json").read_text())
    measured = {(row.graph, row.output, row.batch) for row in manifest.parity}
    expected = {("model", "logits", batch) for batch in (1, 2, 5)}
    expected |= {
        ("explain", output.name, batch) for output in manifest.outputs for batch in (1, 2, 5)
    }
    assert measured == expected
    assert all(row.max_abs_difference <= row.tolerance for row in manifest.parity)


def test_outputs_have_the_names_and_shapes_of_the_manifest(repository: Path) -> None:
    manifest = Manifest.model_validate_json((repository / "tiny/1/manifest.json").read_text())
    session = ort.InferenceSession(repository / "tiny/1/explain.onnx")
    values = session.run(None, {"images": sample_images(3, Size.of(32))})
    assert [output.name for output in session.get_outputs()] == [o.name for o in manifest.outputs]
    for output, value in zip(manifest.outputs, values, strict=True):
        assert value.shape == (3, *output.shape), output.name
        assert len(output.axes) == value.ndim, output.name


def test_one_image_has_the_same_logits_in_any_batch(repository: Path) -> None:
    session = ort.InferenceSession(repository / "tiny/1/model.onnx")
    images = sample_images(5, Size.of(32))
    together = session.run(None, {"images": images})[0]
    alone = np.concatenate([session.run(None, {"images": images[i : i + 1]})[0] for i in range(5)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.fixture(scope="module")
def lone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random(LONE, tmp_path_factory.mktemp("lone") / "test.safetensors")


def test_another_export_is_another_version(repository: Path, lone: Path) -> None:
    assert main([str(lone), "--name", "tiny", "--output", str(repository)]) == 0
    assert (repository / "tiny/2/model.onnx").exists()
    assert (repository / "tiny/1/model.onnx").exists()


def test_a_wrong_fold_is_refused_and_writes_nothing(
    lone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        fold, "batch_norm_affine", lambda norm: (batch_norm_affine(norm)[0], 0 * norm.bias)
    )
    assert main([str(lone), "--name", "tiny", "--output", str(tmp_path)]) == 1
    assert "ONNX Runtime differs from PyTorch: model logits at batch 1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_labels_come_from_a_file_that_must_fit(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "labels").write_text("cat\ndog\n")
    arguments = [str(weights), "--name", "tiny", "--output", str(tmp_path / "repository")]
    assert main([*arguments, "--labels", str(tmp_path / "labels")]) == 1
    assert "names 2 classes, the checkpoint has 7" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../up", ".hidden", "", "a/b", "x" * 65])
def test_names_that_would_leave_the_repository_are_refused(name: str, weights: Path) -> None:
    with pytest.raises(SystemExit):
        main([str(weights), "--name", name])


def test_a_report_needs_no_torch() -> None:
    code = "import sys, export.__main__, export.report.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_small_checkpoints_are_the_trained_ones() -> None:
    """Where the originals lie beside the project, weights are theirs to the bit."""
    originals = Path(__file__).parents[3] / "shared" / "checkpoints"
    if not originals.is_dir():
        pytest.skip("the original checkpoints are not here")
    for name in ("deepvit16", "vit16"):
        original = checkpoint.load(originals / f"{name}_cifar10.pth.tar")
        bundled = checkpoint.load(small.weights(f"{name}-cifar10"))
        assert bundled.config == original.config
        assert bundled.preprocessing == original.preprocessing
        assert bundled.labels is not None
        assert all(torch.equal(bundled.weights[k], v) for k, v in original.weights.items())
