"""Which precision the engine takes, that half precision gives the same answers, and manifests."""

import json
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import onnx
import pytest

from models.arrays import Float32Array, Pixels
from models.manifest import METADATA_KEY
from service.errors import StartupError
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.conftest import BUNDLED, TINY, VIT

IMAGES: Pixels = np.random.default_rng(0).integers(0, 256, (7, 112, 112, 3), dtype=np.uint8)


def logits(engine: OnnxEngine) -> Float32Array:
    return np.stack(engine.classify(list(IMAGES)))


def test_half_precision_says_the_same(fresh_repository: Path) -> None:
    full = OnnxEngine(fresh_repository / BUNDLED[0] / "1", EngineOptions())
    half = OnnxEngine(fresh_repository / BUNDLED[0] / "1", EngineOptions(precision="fp16"))
    assert (full.precision, half.precision) == ("fp32", "fp16")
    expected, found = logits(full), logits(half)
    assert 0 < np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    recorded = {row.graph: row for row in half.manifest.parity if row.output == "logits"}
    assert 0 < recorded["model.fp16"].max_abs_difference <= recorded["model.fp16"].tolerance


def test_a_precision_that_was_not_exported_is_not_replaced(repository: Path) -> None:
    with pytest.raises(StartupError, match="has no fp16: export with --precision fp16"):
        OnnxEngine(repository / VIT / "1", EngineOptions(precision="fp16"))


def test_a_manifest_of_a_later_version_says_to_upgrade(
    tiny_repository: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_repository / TINY / "1", tmp_path / "1")
    record = json.loads((folder / "manifest.json").read_text())
    record["config"]["rotary"] = True
    (folder / "manifest.json").write_text(json.dumps(record))
    graph = onnx.load(folder / "model.onnx", load_external_data=False)
    (embedded,) = (one for one in graph.metadata_props if one.key == METADATA_KEY)
    embedded.value = json.dumps(record)
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(StartupError) as caught:
        OnnxEngine(folder, EngineOptions())
    assert caught.value.detail == (
        f"{folder}: a newer version wrote the manifest, with what this one does not know: "
        "config.rotary; upgrade the service"
    )


def test_a_session_that_is_opened_delays_none_that_is_open(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = OnnxEngine(repository / VIT / "1", EngineOptions(intra_op_threads=1))
    image = np.zeros((32, 32, 3), np.uint8)
    engine.explain([image], ["logits"])
    entropy = engine.manifest.output("entropy", "softmax").name
    opening, may_open = Event(), Event()
    open_session = engine._sessions.explainer

    def wait(outputs: Sequence[str], threads: int) -> Any:
        opening.set()
        assert may_open.wait(60)
        return open_session(outputs, threads)

    monkeypatch.setattr(engine._sessions, "explainer", wait)
    with ThreadPoolExecutor() as pool:
        late = pool.submit(engine.explain, [image], [entropy])
        assert opening.wait(60)
        (found,) = engine.explain([image], ["logits"])
        assert not late.done()
        may_open.set()
        (measured,) = late.result(60)
    assert found["logits"].shape == (10,)
    assert measured[entropy].shape == (16, 6)
