"""int8: real weights answer as before, rounded; what is refused, and that it is served."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from PIL import Image

from export import quantize, to_onnx
from export.__main__ import main
from export.fold import FoldedDeepViT
from export.graphs import Classifier
from export.sessions import cpu_session
from export.verify import VerificationError, verify_int8
from models import checkpoint
from models.arrays import Pixels
from models.config import ARCHITECTURES
from models.manifest import Comparison, Manifest
from models.preprocess import Preprocessing, preprocess
from service.errors import StartupError
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT
from tests.support import small
from tests.support.networks import random_network
from tests.support.server import ROOT

CIFAR10 = ROOT.parent / "shared" / "cifar10"


@pytest.fixture(scope="module")
def trained() -> checkpoint.Checkpoint:
    return checkpoint.load(small.weights(DEEPVIT))


@pytest.fixture(scope="module")
def exact(trained: checkpoint.Checkpoint) -> ir.Model:
    folded = FoldedDeepViT(trained.network(), trained.preprocessing).eval()
    return to_onnx.trace(Classifier(folded), trained.config.img_size, ["logits"])


@pytest.fixture(scope="module")
def crops(trained: checkpoint.Checkpoint) -> Pixels:
    """Eight of each of the explorer's photographs."""
    found = []
    for path in sorted((ROOT / "service" / "web" / "samples").glob("*.jpg")):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        side = min(photo.size) // 2
        for number in range(8):
            left, top = number * (photo.width - side) // 8, number * (photo.height - side) // 8
            crop = photo.crop((left, top, left + side, top + side))
            found.append(preprocess(crop, trained.preprocessing))
    return np.stack(found)


@pytest.fixture(scope="module")
def rounded(exact: ir.Model, crops: Pixels) -> ir.Model:
    """Scaled to the crops."""
    return quantize.quantize(exact, quantize.calibrate(exact, [crops]))


def session(model: ir.Model) -> ort.InferenceSession:
    return cpu_session(ir.to_proto(model).SerializeToString())


def logits(model: ort.InferenceSession, images: Pixels) -> np.ndarray:
    return np.concatenate(
        [
            model.run(["logits"], {"images": images[at : at + 16]})[0]
            for at in range(0, len(images), 16)
        ]
    )


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_real_weights_answer_as_before_on_photographs(
    exact: ir.Model, rounded: ir.Model, crops: Pixels
) -> None:
    """Scaled to the crops, asked for their mirror images: alike, and not seen before."""
    before, after = session(exact), session(rounded)
    error = rms(logits(after, crops) - logits(before, crops))
    mirrored = np.ascontiguousarray(crops[:, :, ::-1])
    expected, found = logits(before, mirrored), logits(after, mirrored)
    assert 0 < rms(found - expected) < 0.05 * expected.std()
    second, best = np.sort(expected)[:, -2:].T
    decided = best - second > 8 * error  # no near ties, which rounding may turn
    assert decided.mean() > 0.8
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[decided].all()


def test_weights_fit_where_pairs_of_products_are_added_in_16_bits(rounded: ir.Model) -> None:
    layers = [node for node in rounded.graph if node.op_type == "MatMulIntegerToFloat"]
    assert len(layers) == 6 * 16  # q, k, v, proj, fc1 and fc2 of every block
    for layer in layers:
        weight = layer.inputs[1]
        assert weight is not None
        assert weight.const_value is not None
        largest = np.abs(weight.const_value.numpy().astype(int)).max()
        assert largest == 63
        assert 2 * 255 * largest < 2**15


def test_the_answer_does_not_depend_on_the_batch(rounded: ir.Model, crops: Pixels) -> None:
    opened = session(rounded)
    alone = np.concatenate([logits(opened, crops[at : at + 1]) for at in range(4)])
    together = logits(opened, crops[:16])[:4]
    np.testing.assert_allclose(together, alone, atol=2e-2 * np.abs(alone).max())


def test_cifar10_agrees(trained: checkpoint.Checkpoint, exact: ir.Model) -> None:
    if not CIFAR10.is_dir():
        pytest.skip("CIFAR-10 is not beside the project")
    rule = trained.preprocessing
    scales = np.stack(list(_cifar10("train", 128, rule)))
    unseen = np.stack(list(_cifar10("test", 500, rule)))
    rounded = quantize.quantize(exact, quantize.calibrate(exact, [scales]))
    expected, found = logits(session(exact), unseen), logits(session(rounded), unseen)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98


def _cifar10(part: str, count: int, rule: Preprocessing) -> Iterator[Pixels]:
    """Evenly spread over the archive, which has one folder a class."""
    with tarfile.open(CIFAR10 / f"{part}.tar") as archive:
        members = [member for member in archive.getmembers() if member.name.endswith(".jpg")]
        for member in members[:: len(members) // count][:count]:
            with Image.open(archive.extractfile(member)) as opened:  # type: ignore[arg-type]
                yield preprocess(opened.convert("RGB"), rule)


def test_it_is_exported_recorded_and_served(tmp_path: Path) -> None:
    torch.save(
        {
            "state_dict": random_network(ARCHITECTURES["deepvit_test"].config).state_dict(),
            "arch": "deepvit_test",
        },
        tmp_path / "tiny.pth",
    )
    images = ROOT / "service" / "web" / "samples"
    arguments = [str(tmp_path / "tiny.pth"), "--name", "tiny", "--output", str(tmp_path / "r")]
    assert main([*arguments, "--precision", "int8", "--images", str(images), "--force"]) == 0
    folder = tmp_path / "r" / "tiny" / "1"
    record = Manifest.model_validate_json((folder / "manifest.json").read_text())
    assert record.int8 is not None
    assert record.int8.images == 6
    assert [speed.batch for speed in record.int8.speed] == [1, 8]
    assert OnnxEngine(folder, EngineOptions()).precision == "fp32"
    engine = OnnxEngine(folder, EngineOptions(precision="int8"))
    assert engine.precision == "int8"
    assert engine.classify([np.zeros((32, 32, 3), np.uint8)])[0].shape == (7,)


def test_it_needs_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "any"), "--name", "any", "--precision", "int8"]) == 1
    assert "--precision int8 needs --images" in capsys.readouterr().err


def test_answers_that_differ_are_refused() -> None:
    found = Comparison(images=200, agreement=0.985, accuracy=None, exact_accuracy=None, speed=())
    with pytest.raises(VerificationError, match=r"98\.50% of 200 images"):
        verify_int8(found)
    verify_int8(found.model_copy(update={"agreement": 0.99}))


def test_it_is_not_replaced_where_it_was_not_exported(repository: Path) -> None:
    with pytest.raises(StartupError, match="has no int8: export with --precision int8"):
        OnnxEngine(repository / DEEPVIT / "1", EngineOptions(precision="int8"))
