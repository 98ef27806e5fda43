"""Metrics for Prometheus: requests, images by outcome, batches, stages, models, store.

Batchers and the store keep counts anyway; these are read on each scrape rather than kept twice, so
the two cannot disagree.
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
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from service.errors import ServiceError, StartupError
from service.inference.counts import Counts
from service.monitor.monitor import Monitor
from service.store import LOOKUP_OUTCOMES, Store
from service.telemetry import log
from service.telemetry.monitor_metrics import MonitorCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("decode", "preprocess", "queue", "inference", "postprocess")
IMAGE_OUTCOMES = ("accepted", "answered", "failed", "cancelled", "expired", "refused")
# Every code of an error response, so that each counter starts at 0.
REASONS = (
    ServiceError.code,
    *(error.code for error in ServiceError.__subclasses__() if error is not StartupError),
    "not-found",
    "method-not-allowed",
)

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Queue(Protocol):
    """The part of a batcher that is read here."""

    @property
    def depth(self) -> int: ...
    @property
    def counts(self) -> Counts: ...


class Model(Protocol):
    """The part of a served model version that is read here."""

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
    """The metrics of one process."""

    def __init__(self, models: Iterable[Model], store: Store, monitor: Monitor) -> None:
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
        stages = Histogram(
            "deepvit_stage_seconds",
            "Seconds that the slowest image of a request spent in each stage",
            ["stage"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        # Looking up a metric by its labels takes a lock, so the metrics found are cached here.
        self._stage_seconds = {stage: stages.labels(stage) for stage in STAGES}
        self._route_counters: dict[tuple[str, int], PrometheusCounter] = {}
        self._registry.register(_ModelCollector(models))
        self._registry.register(_StoreCollector(store))
        self._registry.register(MonitorCollector(monitor))
        self._registry.register(_LogCollector())

    def request(self, route: str, status: int) -> None:
        if (route, status) not in self._route_counters:
            self._route_counters[route, status] = self._requests.labels(route, str(status))
        self._route_counters[route, status].inc()

    def reject(self, reason: str) -> None:
        self._rejects.labels(reason).inc()

    def stage(self, stage: str, seconds: float) -> None:
        self._stage_seconds[stage].observe(seconds)

    def render(self) -> bytes:
        """The text of a scrape."""
        return generate_latest(self._registry)


class EngineMetrics:
    """The metrics of a process that only runs models, for others."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ModelCollector(models, "deepvit_engine"))
        self._registry.register(_LogCollector())

    def render(self) -> bytes:
        """The text of a scrape."""
        return generate_latest(self._registry)


def merged(scrapes: Iterable[tuple[str, bytes]]) -> bytes:
    """One scrape of several processes: each sample has the process that it is from as a label."""
    families: dict[str, Metric] = {}
    for replica, text in scrapes:
        for family in text_string_to_metric_families(text.decode()):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            whole.samples += [
                sample._replace(labels={**sample.labels, "replica": replica})
                for sample in family.samples
            ]
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _ModelCollector(Collector):
    """Counts, queue depth and provider of every model that is served at the moment."""

    def __init__(self, models: Iterable[Model], prefix: str = "deepvit") -> None:
        self._models = models
        self._prefix = prefix

    def collect(self) -> Iterator[Metric]:
        queue_labels = ["model", "version", "queue"]
        images = CounterMetricFamily(
            f"{self._prefix}_images", "Images by outcome", labels=[*queue_labels, "fate"]
        )
        depth = GaugeMetricFamily(
            f"{self._prefix}_queue_depth", "Images waiting in a queue", labels=queue_labels
        )
        sizes = HistogramMetricFamily(
            f"{self._prefix}_batch_size", "Images in a batch", labels=queue_labels
        )
        info = InfoMetricFamily(
            f"{self._prefix}_model",
            "Served model versions, and how they run",
            labels=queue_labels[:2],
        )
        for model in self._models:
            facts = {
                "provider": model.provider,
                "precision": model.precision,
                "attention": model.attention,
            }
            info.add_metric(model.labels, facts)
            for name, queue in model.queues.items():
                labels = [*model.labels, name]
                counts = queue.counts
                for outcome in IMAGE_OUTCOMES:
                    images.add_metric([*labels, outcome], getattr(counts, outcome))
                depth.add_metric(labels, queue.depth)
                sizes.add_metric(labels, *_histogram(counts.batch_sizes))
        yield from (images, depth, sizes, info)


class _StoreCollector(Collector):
    """The store of inputs: lookups, bytes, and whether it is available."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        kind, _, unavailable = self._store.state.partition(", ")
        lookups = CounterMetricFamily(
            "deepvit_store_lookups", "Lookups of images by id, by outcome", labels=["outcome"]
        )
        for outcome in LOOKUP_OUTCOMES:
            lookups.add_metric([outcome], self._store.lookups.get(outcome, 0))
        available = GaugeMetricFamily(
            "deepvit_store_available", "1 if inputs can be stored", labels=["store"]
        )
        available.add_metric([kind], 0 if unavailable else 1)
        yield from (lookups, available)
        if self._store.bytes is not None:
            yield GaugeMetricFamily(
                "deepvit_store_bytes", "Bytes of the stored inputs", value=self._store.bytes
            )


class _LogCollector(Collector):
    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "deepvit_log_lines_lost", "Lines of the log that nobody read", value=log.lost_lines()
        )


def _histogram(sizes: Counter[int]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative buckets and the sum, in the form that Prometheus takes."""
    buckets = [
        (str(float(bound)), float(sum(n for size, n in sizes.items() if size <= bound)))
        for bound in _SIZES
    ]
    total = float(sum(size * n for size, n in sizes.items()))
    return [*buckets, ("+Inf", float(sizes.total()))], total
