"""What Prometheus reads: requests, images and their fate, batches, stages, models, store.

The only file that knows Prometheus. Counts that the batchers and the store keep anyway are read
from them at each scrape, so that the two cannot drift apart.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.errors import ServiceError, StartupError
from service.inference.counts import Counts
from service.store import OUTCOMES, Store

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("decode", "preprocess", "queue", "inference", "postprocess")
FATES = ("accepted", "answered", "failed", "cancelled", "expired", "refused")
# Why a request is not answered with what it asked for: all codes, so that each starts at 0.
REASONS = (
    ServiceError.code,
    *(error.code for error in ServiceError.__subclasses__() if error is not StartupError),
    "not-found",
    "method-not-allowed",
)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Queue(Protocol):
    """What is read of a batcher."""

    @property
    def depth(self) -> int: ...
    @property
    def counts(self) -> Counts: ...


class Model(Protocol):
    """What is read of a served version."""

    @property
    def labels(self) -> tuple[str, str]: ...  # name and version
    @property
    def provider(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def attention(self) -> str: ...
    @property
    def queues(self) -> Mapping[str, Queue]: ...


class Metrics:
    """The counters of one process, and what they are told."""

    def __init__(self, models: Iterable[Model], store: Store) -> None:
        self._registry = CollectorRegistry()
        self._requests = PrometheusCounter(
            "deepvit_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._rejects = PrometheusCounter(
            "deepvit_rejects",
            "Requests answered with an error, by its code",
            ["reason"],
            registry=self._registry,
        )
        for reason in REASONS:
            self._rejects.labels(reason)
        self._stages = Histogram(
            "deepvit_stage_seconds",
            "Time of a request in each stage, of its slowest image",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        # Prometheus looks a child up by its labels under a lock; these are kept at hand.
        self._stage = {stage: self._stages.labels(stage) for stage in STAGES}
        self._request: dict[tuple[str, int], PrometheusCounter] = {}
        self._registry.register(_Models(models))
        self._registry.register(_Kept(store))

    def request(self, route: str, status: int) -> None:
        if (route, status) not in self._request:
            self._request[route, status] = self._requests.labels(route, str(status))
        self._request[route, status].inc()

    def reject(self, reason: str) -> None:
        self._rejects.labels(reason).inc()

    def stage(self, stage: str, seconds: float) -> None:
        self._stage[stage].observe(seconds)

    def render(self) -> bytes:
        """The text that a scrape gets."""
        return generate_latest(self._registry)


class _Models(Collector):
    """Counts, queue depths and providers of the versions that are served at the moment."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = models

    def collect(self) -> Iterator[Metric]:
        where = ["model", "version", "queue"]
        images = CounterMetricFamily("deepvit_images", "Images by fate", labels=[*where, "fate"])
        depth = GaugeMetricFamily("deepvit_queue_depth", "Images that wait", labels=where)
        sizes = HistogramMetricFamily("deepvit_batch_size", "Images in a batch", labels=where)
        info = InfoMetricFamily("deepvit_model", "What is served where", labels=where[:2])
        for model in self._models:
            how = {
                "provider": model.provider,
                "precision": model.precision,
                "attention": model.attention,
            }
            info.add_metric(model.labels, how)
            for name, queue in model.queues.items():
                labels = [*model.labels, name]
                counts = queue.counts
                for fate in FATES:
                    images.add_metric([*labels, fate], getattr(counts, fate))
                depth.add_metric(labels, queue.depth)
                sizes.add_metric(labels, *_histogram(counts.batch_sizes))
        yield from (images, depth, sizes, info)


class _Kept(Collector):
    """Inputs of classified images: lookups, bytes, and whether their store is there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        home, _, away = self._store.state.partition(", ")
        lookups = CounterMetricFamily(
            "deepvit_store_lookups", "Images looked up by id, by outcome", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            lookups.add_metric([outcome], self._store.lookups.get(outcome, 0))
        available = GaugeMetricFamily(
            "deepvit_store_available", "Whether images can be kept", labels=["store"]
        )
        available.add_metric([home], 0 if away else 1)
        yield from (lookups, available)
        if self._store.bytes is not None:
            yield GaugeMetricFamily(
                "deepvit_store_bytes", "Kept inputs of images", value=self._store.bytes
            )


def _histogram(sizes: Counter[int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum, as Prometheus wants them."""
    buckets = [
        (str(float(bound)), float(sum(n for size, n in sizes.items() if size <= bound)))
        for bound in _SIZES
    ]
    total = float(sum(size * n for size, n in sizes.items()))
    return [*buckets, ("+Inf", float(sizes.total()))], total
