"""Batches in pieces beside each other: the same answers, and only where they come sooner."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from service import engine as engine_module
from service import lanes as lanes_module
from service.engine import Engine
from service.lanes import Lanes, Ways, fastest
from service.sessions import EngineOptions
from tests.conftest import DEEPVIT

Images = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

Cost = tuple[float, float]  # seconds of a run, and of each image in it

PATIENCE_S = 30
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)


def means(images: Images) -> Logits:
    found: Logits = images.mean(axis=(1, 2), dtype=np.float32)
    return found


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("piece", [1, 2, 4])
def test_every_image_gets_its_own_answer(lanes: int, piece: int) -> None:
    sizes: list[int] = []

    def run(images: Images) -> Logits:
        sizes.append(len(images))
        return means(images)

    for batch in range(1, len(IMAGES) + 1):
        sizes.clear()
        found = Lanes(run, lanes).run(IMAGES[:batch], piece)
        np.testing.assert_array_equal(found, means(IMAGES[:batch]))
        assert sum(sizes) == batch
        assert max(sizes) <= piece
        assert max(sizes) - min(sizes) <= 1  # nobody waits long for the last one
        assert len(sizes) >= min(lanes, batch)


def test_pieces_run_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def run(images: Images) -> Logits:
        both.wait(PATIENCE_S)
        return means(images)

    assert len(Lanes(run, 2).run(IMAGES[:8], 2)) == 8


def test_a_piece_that_fails_fails_the_batch_and_nothing_after_it() -> None:
    def run(images: Images) -> Logits:
        if (images == 0).all(axis=(1, 2, 3)).any():
            raise RuntimeError("black")
        return means(images)

    lanes = Lanes(run, 2)
    for black in range(8):
        images = IMAGES[:8].copy()
        images[black] = 0
        with pytest.raises(RuntimeError, match="black"):
            lanes.run(images, 2)
        np.testing.assert_array_equal(lanes.run(IMAGES, 2), means(IMAGES))


class Clock:
    """Goes on when somebody works. Work of two lanes adds up, as on a single processor."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._lock = threading.Lock()

    def perf_counter(self) -> float:
        return self._now_s

    def taking(self, cost: Cost) -> Callable[[Images], Logits]:
        for_a_run_s, for_an_image_s = cost

        def run(images: Images) -> Logits:
            with self._lock:
                self._now_s += for_a_run_s + for_an_image_s * len(images)
            return means(images)

        return run


@pytest.mark.parametrize(
    ("whole", "alone", "expected"),
    [
        ((0, 0.001), (0, 0.02), Ways(True, lanes=1, piece=1)),
        ((0.01, 0), (0, 0.2), Ways(True, lanes=1, piece=8)),
        ((0.2, 0), (0, 0.01), Ways(False, lanes=2, piece=1)),
        ((0, 0.1), (0.1, 0), Ways(False, lanes=2, piece=8)),
        ((0, 0.1), (0.2, 0), Ways(True, lanes=2, piece=8)),
        ((0, 0), (0, 0), Ways(False, lanes=1, piece=32)),
    ],
    ids=[
        "threads that help",
        "and large pieces",
        "threads in the way",
        "large pieces",
        "large pieces, but threads for one image",
        "next to nothing",
    ],
)
def test_what_is_faster_by_far_is_taken(
    monkeypatch: pytest.MonkeyPatch, whole: Cost, alone: Cost, expected: Ways
) -> None:
    clock = Clock()
    monkeypatch.setattr(lanes_module, "time", clock)
    found = fastest(
        clock.taking(whole), clock.taking(alone), lanes=2, image=(4, 4, 3), max_batch_size=32
    )
    assert found == expected


@pytest.mark.parametrize(
    "ways",
    [
        Ways(True, lanes=1, piece=4),
        Ways(False, lanes=1, piece=32),
        Ways(True, lanes=2, piece=2),
        Ways(False, lanes=2, piece=1),
    ],
)
def test_every_way_gives_the_same_logits(
    repository: Path, monkeypatch: pytest.MonkeyPatch, ways: Ways
) -> None:
    plain = Engine(repository / DEEPVIT / "1", EngineOptions(intra_op_threads=2))
    monkeypatch.setattr(engine_module, "fastest", lambda *_: ways)
    engine = Engine(repository / DEEPVIT / "1", EngineOptions(intra_op_threads=2))
    engine.warm_up()
    for batch in (1, 2, 5, 9):
        images = list(IMAGES[:batch])
        np.testing.assert_allclose(engine.classify(images), plain.classify(images), atol=1e-5)
