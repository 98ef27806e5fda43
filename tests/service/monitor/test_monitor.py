"""What becomes of answered images: measured, dropped or failed, and never in a request's way."""

import asyncio
import gc
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from service.inference.repository import ModelRepository
from service.inference.served import ServedModel
from service.monitor.monitor import Monitor
from service.monitor.record import Samples
from service.monitor.watch import BOUNDS, WAITING
from tests.conftest import DEEPVIT
from tests.service.monitor.small_models import PATIENCE_S, hand_models, image
from tests.support.waiting import until


@contextmanager
def monitoring(models: ModelRepository, sample: float = 1) -> Iterator[Monitor]:
    monitor = Monitor(models, sample)
    try:
        yield monitor
    finally:
        monitor.stop()


def samples(monitor: Monitor, model: ServedModel) -> Samples:
    return monitor.watch(model).record().samples


def offer(monitor: Monitor, model: ServedModel, images: int) -> None:
    monitor.offer(model, [image()] * images, [None] * images)


def settles(monitor: Monitor, model: ServedModel) -> Callable[[], bool]:
    return lambda: samples(monitor, model).waiting == 0


def test_the_share_that_is_drawn_is_the_one_that_was_set() -> None:
    with hand_models() as (models, model, _):
        models.stop()  # nothing is measured: no model is idle
        monitor = Monitor(models, sample=0.2, draw=random.Random(0).random)
        offer(monitor, model, 5000)
        monitor.stop()
        drawn = sum(samples(monitor, model))
    assert 900 < drawn < 1100


def test_without_a_share_there_is_no_thread_and_no_record() -> None:
    with hand_models() as (models, model, engine), monitoring(models, sample=0) as monitor:
        offer(monitor, model, 10)
        assert monitor.records() == {}
        assert not monitor._thread.is_alive()
        assert engine.explained == 0


def test_an_image_is_measured_once_no_model_has_work() -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        engine.free_to_classify.clear()
        (answer,) = model.classifier.submit([image()])
        assert engine.classifying.wait(PATIENCE_S)
        offer(monitor, model, 3)
        with pytest.raises(AssertionError):
            assert engine.explaining.wait(0.3)  # it has had thirty occasions
        assert samples(monitor, model) == Samples(waiting=3)
        engine.free_to_classify.set()
        answer.result(PATIENCE_S)
        until(lambda: samples(monitor, model) == Samples(measured=3))
        assert model.explainer.counts.accepted == 0
        assert model.statistics.snapshot().executions == 1


def test_the_oldest_that_wait_are_dropped_and_all_are_counted() -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        engine.free.clear()
        offer(monitor, model, 1)
        assert engine.explaining.wait(PATIENCE_S)
        for value in range(WAITING + 5):
            monitor.offer(model, [image(value)], [None])
        assert samples(monitor, model) == Samples(dropped=5, waiting=WAITING + 1)
        engine.free.set()
        until(settles(monitor, model))
        found = monitor.watch(model).record()
        assert found.samples == Samples(measured=WAITING + 1, dropped=5)
        # Brightness is what every output says: those of 5 to WAITING + 4 are left, and the first.
        entropy = [signal.measure for signal in monitor.watch(model).signals.names].index("entropy")
        left = [128, *range(5, WAITING + 5)]
        assert found.sums.total[entropy] == pytest.approx(sum(left) / 255, rel=1e-5)


def test_a_request_to_explain_waits_for_no_measure_not_even_one_that_hangs() -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        engine.free.clear()
        offer(monitor, model, 1)
        assert engine.explaining.wait(PATIENCE_S)
        (logits,) = model.classifier.submit([image()])
        assert logits.result(PATIENCE_S).value is not None
        engine.explaining.clear()
        (explained,) = model.explainer.submit([image()], ("logits",))
        assert engine.explaining.wait(PATIENCE_S)  # its own run has begun beside the other
        engine.free.set()
        assert explained.result(PATIENCE_S).value["logits"].shape == (10,)
        until(settles(monitor, model))
        assert samples(monitor, model) == Samples(measured=1)


def test_failures_are_counted_and_logged_once_for_each_kind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        for failure in (RuntimeError("broken"), ValueError("wrong")):
            engine.failure = failure
            offer(monitor, model, 3)
            until(settles(monitor, model))
        engine.failure = None
        offer(monitor, model, 2)
        until(settles(monitor, model))
        assert samples(monitor, model) == Samples(measured=2, failed=6)
    told = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert len(told) == 2
    assert all("cannot be measured" in one.getMessage() for one in told)


def test_what_is_not_finite_is_a_failure_and_stays_out_of_the_window() -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        whole = engine.explain
        engine.explain = lambda images, names: [
            {name: value * np.float32(np.nan) for name, value in one.items()}
            for one in whole(images, names)
        ]
        offer(monitor, model, 1)
        until(lambda: samples(monitor, model) == Samples(failed=1))
        assert monitor.watch(model).record().sums.images == 0


def test_the_class_is_that_of_the_answer_if_it_had_one() -> None:
    with hand_models() as (models, model, _), monitoring(models) as monitor:
        answer = np.zeros(10, np.float32)
        answer[7] = 1
        monitor.offer(model, [image(), image()], [answer, None])
        until(settles(monitor, model))
        classes = monitor.watch(model).record().sums.classes
    assert classes.tolist() == [1, 0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_a_point_of_the_history_follows_every_ten_images_once_there_is_a_verdict() -> None:
    with hand_models() as (models, model, _), monitoring(models) as monitor:
        for _ in range(8):
            offer(monitor, model, 10)
            until(settles(monitor, model))
        history = monitor.watch(model).record().history
    assert [point.images for point in history] == [50, 60, 70, 80]
    assert [point.time_s for point in history] == sorted(point.time_s for point in history)


def test_similarities_are_counted_in_buckets() -> None:
    with hand_models() as (models, model, _), monitoring(models) as monitor:
        for value in (0, 26, 230, 255):  # 0, 0.102, 0.902 and 1 of the largest brightness
            monitor.offer(model, [image(value)], [None])
        until(settles(monitor, model))
        histograms = monitor.watch(model).histograms()
    assert {signal.measure for signal in histograms} == {"similarity.column"}
    for one in histograms.values():
        up_to = dict(zip((*BOUNDS, "all"), one.up_to, strict=True))
        assert [up_to[bound] for bound in (0, 0.1, 0.2, 0.9, 0.95, 1)] == [1, 1, 2, 2, 3, 4]
        assert up_to["all"] == 4
        assert one.total == pytest.approx((0 + 26 + 230 + 255) / 255, rel=1e-5)


def test_at_the_end_what_waits_is_dropped_and_counted() -> None:
    with hand_models() as (models, model, engine), monitoring(models) as monitor:
        engine.free_to_classify.clear()
        model.classifier.submit([image()])
        assert engine.classifying.wait(PATIENCE_S)
        offer(monitor, model, 4)
        monitor.stop()
        assert samples(monitor, model) == Samples(dropped=4)
        offer(monitor, model, 1)  # an answer that was under way
        assert samples(monitor, model) == Samples(dropped=5)


def test_a_version_that_is_served_no_more_is_forgotten() -> None:
    async def serve() -> None:
        with hand_models() as (models, model, engine), monitoring(models) as monitor:
            offer(monitor, model, 2)
            await asyncio.to_thread(until, settles(monitor, model))
            watch = monitor.watch(model)
            await models.unload(DEEPVIT)
            monitor.offer(model, [image()], [None])  # of a request that was under way
            await asyncio.to_thread(until, lambda: watch.record().samples == Samples(2, dropped=1))
            assert {export.model for export in monitor.records()} == {"vit16-cifar10"}
            await asyncio.gather(*models._retiring)
            del model, engine
            gc.collect()
            assert len(monitor._watches) == 1  # nothing keeps the version in memory
            await models.load(DEEPVIT)
            assert samples(monitor, models.get(DEEPVIT)) == Samples()

    asyncio.run(serve())
