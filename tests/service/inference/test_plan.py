"""How a network is run: a plan must be clearly faster to be chosen, and all answer the same."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from models.arrays import Float32Array, Pixels
from service.inference import onnx_engine
from service.inference import plan as plan_module
from service.inference.batch import Awaited, Batch
from service.inference.batching import Batcher
from service.inference.onnx_engine import OnnxEngine
from service.inference.plan import Plan, fastest
from service.inference.sessions import EngineOptions
from tests.conftest import DEEPVIT

Cost = tuple[float, float]  # seconds of a run, and of each image in it

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)


class Clock:
    """Advances by the cost of each run. Two instances add up, as on a single processor."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self._now_s

    def taking(self, cost: Cost) -> Callable[[Pixels], None]:
        for_a_run_s, for_an_image_s = cost

        def run(images: Pixels) -> None:
            with self._lock:
                self._now_s += for_a_run_s + for_an_image_s * len(images)

        return run


@pytest.mark.parametrize(
    ("threaded", "single", "expected"),
    [
        ((0, 0.1), (0, 2), Plan(1, threads=2, batch=1)),
        ((0.01, 0), (0, 0.2), Plan(1, threads=2, batch=8)),
        ((0.2, 0), (0, 0.01), Plan(2, threads=1, batch=1)),
        ((0, 0.1), (0.1, 0), Plan(2, threads=1, batch=8)),
        ((0, 0.1), (0.2, 0), Plan(2, threads=1, batch=8, alone=2)),
        ((0, 0.01), (0, 0.001), Plan(2, threads=1, batch=8)),
        ((0, 0), (0, 0), Plan(1, threads=1, batch=32)),
    ],
    ids=[
        "threads that help",
        "and large batches",
        "threads in the way",
        "and large batches then",
        "more at once, but all threads for an image that comes alone",
        "and large batches, each of which has to be handed over",
        "next to nothing",
    ],
)
def test_what_is_faster_by_far_is_taken(
    monkeypatch: pytest.MonkeyPatch, threaded: Cost, single: Cost, expected: Plan
) -> None:
    clock = Clock()
    monkeypatch.setattr(plan_module, "time", clock)
    found = fastest(
        clock.taking(threaded),
        clock.taking(single),
        threads=2,
        image_shape=(4, 4, 3),
        max_batch_size=32,
    )
    assert found == expected


@pytest.mark.parametrize(
    ("plan", "instances", "threads"),
    [(Plan(1, 2, 8), 1, 2), (Plan(2, 1, 8), 2, 1), (Plan(2, 1, 8, alone=2), 1, 2)],
)
def test_explanations_never_have_more_threads_than_there_are(
    plan: Plan, instances: int, threads: int
) -> None:
    assert (plan.explain_instances, plan.explain_threads) == (instances, threads)


def test_batches_are_no_larger_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(plan_module, "time", clock)
    threaded, single = clock.taking((0.05, 0)), clock.taking((0, 0.2))
    assert fastest(threaded, single, 2, image_shape=(4, 4, 3), max_batch_size=2) == Plan(1, 2, 2)


@pytest.mark.parametrize("plan", [Plan(1, 2, 4), Plan(1, 1, 32), Plan(2, 1, 2), Plan(2, 1, 1, 2)])
def test_every_plan_gives_the_same_logits(
    repository: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan
) -> None:
    folder = repository / DEEPVIT / "1"
    expected = np.stack(OnnxEngine(folder, EngineOptions()).classify(list(IMAGES)))
    monkeypatch.setattr(onnx_engine, "fastest", lambda *_: plan)
    engine = OnnxEngine(folder, EngineOptions(intra_op_threads=2))
    engine.warm_up()
    queue: Batcher[Pixels, Float32Array] = Batcher(
        lambda batch, _: engine.classify(batch),
        max_batch_size=plan.batch,
        max_queue_items=len(IMAGES),
        threads=plan.instances,
    )
    try:
        found = np.stack([answer.result().value for answer in queue.submit(list(IMAGES))])
    finally:
        queue.stop()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert max(queue.counts.batch_sizes) <= plan.batch


def test_a_batch_beside_which_there_is_nothing_has_all_threads(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen by which session runs it."""
    monkeypatch.setattr(onnx_engine, "fastest", lambda *_: Plan(2, 1, 2, alone=2))
    engine = OnnxEngine(repository / DEEPVIT / "1", EngineOptions(intra_op_threads=2))
    engine.warm_up()
    threads: list[int] = []
    run = onnx_engine._logits

    def seen(session: ort.InferenceSession, images: Pixels) -> Float32Array:
        threads.append(session.get_session_options().intra_op_num_threads)
        return run(session, images)

    monkeypatch.setattr(onnx_engine, "_logits", seen)
    for alone in (True, False):
        engine.classify(Batch(list(IMAGES[:1]), [Awaited()], alone))
    assert threads == [2, 1]
