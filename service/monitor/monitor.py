"""Measures a share of the answered images while no model has work: a thread beside the requests.

Images are measured one at a time, on a thread of this file's own, so that no request waits behind
one, not even if an engine hangs. Nothing that goes wrong here reaches a request.
"""

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from threading import Condition, Event, Thread
from typing import Any
from weakref import WeakKeyDictionary

from models.arrays import Float32Array, Pixels
from service.errors import ClientGone
from service.inference.batch import Awaited, Batch
from service.inference.batching import Done
from service.inference.served import ServedModel
from service.monitor.pace import Pace
from service.monitor.record import Export, Records
from service.monitor.watch import Sample, Watch

_logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.01  # while images wait
_STOP_S = 5  # longest wait at the end for an image that is being measured


class Monitor:
    """Watches every version of `models`; a version's watch ends with it."""

    def __init__(
        self,
        models: Iterable[ServedModel],
        sample: float = 0.0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`sample` is the share of answered images that is measured; at 0 there is no thread."""
        self.sample = sample
        self._models = models
        self._draw = draw
        self._watches: WeakKeyDictionary[ServedModel, Watch] = WeakKeyDictionary()
        self._changed = Condition()  # guards what is above and below
        self._stopping = Event()
        self._under_way: Awaited[Done[Any]] | None = None
        self._pace = Pace()
        self._thread = Thread(target=self._loop, name="monitor", daemon=True)
        if sample:
            self._thread.start()

    def offer(
        self, model: ServedModel, images: Sequence[Pixels], logits: Sequence[Float32Array | None]
    ) -> None:
        """Take each of these images with the probability `sample`; never waits."""
        if not self.sample:
            return
        for image, answer in zip(images, logits, strict=True):
            if self._draw() < self.sample:
                # A copy: the image may be a part of a request that is much larger.
                self.watch(model).take(Sample(image.copy(), answer, time.perf_counter()))
                with self._changed:
                    self._changed.notify()
        if self._stopping.is_set():
            self.watch(model).drop_waiting()

    def watch(self, model: ServedModel) -> Watch:
        """Of a served version; begins when first asked for."""
        with self._changed:
            if model not in self._watches:
                self._watches[model] = Watch(model.manifest)
            return self._watches[model]

    def records(self) -> Records:
        """What was found of each served version; nothing if monitoring is off."""
        if not self.sample:
            return {}
        return {export_of(model): self.watch(model).record() for model in self._models}

    def watched(self) -> list[tuple[tuple[str, str], Watch]]:
        """Every served version by its name and number."""
        return [(model.labels, self.watch(model)) for model in self._models]

    def stop(self) -> None:
        """End the thread; images that wait are dropped."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()
            if self._under_way:
                self._under_way.cancel()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        for watch in list(self._watches.values()):
            watch.drop_waiting()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._stopping.is_set() or self._waiting())
            if not self._step():
                self._stopping.wait(_LOOK_EVERY_S)

    def _waiting(self) -> bool:
        return any(watch.waiting for watch in self._watches.values())

    def _step(self) -> bool:
        """Measure an image, if one waits and may be measured now."""
        served = list(self._models)
        self._drop_unserved(served)
        if not self._pace.allows(queue for model in served for queue in model.queues.values()):
            return False
        model = min(served, key=lambda one: self.watch(one).oldest, default=None)
        sample = None if model is None else self.watch(model).next()
        if model is None or sample is None:
            return False
        started = time.perf_counter()
        self._measure(model, sample)
        self._pace.took(time.perf_counter() - started)
        return True

    def _measure(self, model: ServedModel, sample: Sample) -> None:
        watch = self.watch(model)
        under_way = Awaited[Done[Any]]()
        under_way.set_running_or_notify_cancel()
        with self._changed:
            self._under_way = under_way
        try:
            if self._stopping.is_set():
                raise ClientGone("the service stops")
            batch = Batch([sample.pixels], [under_way])
            (outputs,) = model.engine.explain(batch, watch.signals.outputs)
            watch.add(sample, outputs)
        except ClientGone:  # called off by `stop`
            watch.drop()
        except Exception as exc:
            if watch.fail(exc):
                _logger.exception("an image cannot be measured by %s", " ".join(model.labels))

    def _drop_unserved(self, served: Sequence[ServedModel]) -> None:
        with self._changed:
            gone = [watch for model, watch in self._watches.items() if model not in served]
        for watch in gone:
            watch.drop_waiting()


def export_of(model: ServedModel) -> Export:
    return Export(model.manifest.name, model.manifest.version, model.digest)
