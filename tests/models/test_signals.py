"""The signals of an image are what the explain graph says of it, block by block."""

import json

import numpy as np
import onnxruntime as ort
import pytest

from models.arrays import Float32Array, Pixels
from models.drift import Signal
from models.manifest import Manifest
from models.preprocess import preprocess
from models.signals import Signals
from tests.support import small
from tests.support.crops import crops

DEEPVIT, VIT = "deepvit16-cifar10", "vit16-cifar10"


def manifest_of(name: str) -> Manifest:
    return Manifest.read((small.REPOSITORY / name / "1" / "manifest.json").read_text())


def outputs_of(name: str, names: tuple[str, ...], pixels: Pixels) -> dict[str, Float32Array]:
    graph = small.REPOSITORY / name / "1" / "explain.onnx"
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return dict(zip(names, (one[0] for one in session.run(names, {"images": pixels})), strict=True))


@pytest.mark.parametrize("name", [DEEPVIT, VIT])
def test_signals_are_the_measures_of_each_block(name: str) -> None:
    manifest = manifest_of(name)
    signals = Signals(manifest)
    (picture,) = crops(1, seed=7)
    outputs = outputs_of(name, signals.outputs, preprocess(picture, manifest.preprocessing)[None])
    found = dict(zip(signals.names, signals.read(outputs).tolist(), strict=True))

    column = outputs[manifest.output("similarity.column", "softmax").name]
    assert found[Signal("similarity.column", "softmax", 5)] == pytest.approx(column[5, 4])
    entropy = outputs[manifest.output("entropy", "softmax").name]
    assert found[Signal("entropy", "softmax", 3)] == pytest.approx(entropy[3].mean())
    scores = np.exp(outputs["logits"]) / np.exp(outputs["logits"]).sum()
    assert found[Signal("confidence")] == pytest.approx(scores.max(), rel=1e-5)
    assert np.isfinite(list(found.values())).all()


def test_only_a_network_that_mixes_has_two_stages() -> None:
    stages = {
        name: {signal.stage for signal in Signals(manifest_of(name)).names}
        for name in (DEEPVIT, VIT)
    }
    assert stages == {DEEPVIT: {"softmax", "reattention", None}, VIT: {"softmax", None}}


def test_blocks_of_rounding_noise_give_no_signal() -> None:
    manifest = manifest_of(DEEPVIT)
    noise = {"stage": "softmax", "measure": "similarity.centred", "blocks": (3,)}
    changed = Manifest.read(json.dumps(manifest.model_dump(mode="json") | {"undefined": [noise]}))
    lost = set(Signals(manifest).names) - set(Signals(changed).names)
    assert lost == {Signal("similarity.centred", "softmax", block) for block in (3, 4)}


def test_a_model_exported_without_a_measure_has_the_others() -> None:
    manifest = manifest_of(DEEPVIT)
    kept = tuple(one for one in manifest.outputs if one.measure != "attention_distance")
    names = Signals(manifest.model_copy(update={"outputs": kept})).names
    assert {one.measure for one in names} == {
        *(f"similarity.{variant}" for variant in ("column", "row", "centred")),
        *("entropy", "feature_similarity", "confidence"),
    }


def test_with_sigmoids_the_confidence_is_that_of_the_likeliest_class() -> None:
    manifest = manifest_of(DEEPVIT)
    config = manifest.config.model_copy(update={"scores": "sigmoid"})
    signals = Signals(manifest.model_copy(update={"config": config}))
    (picture,) = crops(1, seed=7)
    outputs = outputs_of(
        DEEPVIT, signals.outputs, preprocess(picture, manifest.preprocessing)[None]
    )
    values = dict(zip(signals.names, signals.read(outputs), strict=True))
    expected = 1 / (1 + np.exp(-outputs["logits"].max()))
    assert values[Signal("confidence")] == pytest.approx(expected)
