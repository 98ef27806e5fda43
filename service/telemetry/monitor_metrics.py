"""Metrics for Prometheus of what the monitor measures: samples, signals by block, drift, collapse.

Computed from the monitor's records on each scrape; there are none while monitoring is off.
"""

import math
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.monitor.findings import Findings
from service.monitor.monitor import Monitor
from service.monitor.watch import BOUNDS, Watch

_MODEL = ["model", "version"]
_SIGNAL = [*_MODEL, "measure", "stage", "block"]


class MonitorCollector(Collector):
    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        if not self._monitor.sample:
            return
        samples = CounterMetricFamily(
            "deepvit_monitor_samples", "Images drawn to be measured", labels=[*_MODEL, "outcome"]
        )
        similarity = HistogramMetricFamily(
            "deepvit_monitor_similarity",
            "Similarity of a block to the one before it (Eq. 2), of all measured images",
            labels=[*_MODEL, "stage", "block"],
        )
        gauges = _Gauges()
        for labels, watch in self._monitor.watched():
            record = watch.record()
            for outcome in ("measured", "dropped", "failed"):
                samples.add_metric([*labels, outcome], getattr(record.samples, outcome))
            for signal, one in watch.histograms().items():
                bounds = [*(str(float(bound)) for bound in BOUNDS), "+Inf"]
                similarity.add_metric(
                    [*labels, str(signal.stage), str(signal.block)],
                    list(zip(bounds, one.up_to, strict=True)),
                    one.total,
                )
            gauges.add(labels, watch, Findings(watch.manifest, record.sums))
        yield from (samples, similarity, *gauges.families)


class _Gauges:
    def __init__(self) -> None:
        self._measure = _gauge("measure", "Mean of a signal over the window", _SIGNAL)
        self._deviation = _gauge(
            "deviation", "Standardised difference of a signal to the reference", _SIGNAL
        )
        self._drift = _gauge("drift", "Largest deviation of all signals", _MODEL)
        self._threshold = _gauge("drift_threshold", "Drift beyond it is an alarm", _MODEL)
        self._similar = _gauge("similar_blocks", "Similar blocks (Eq. 2)", [*_MODEL, "stage"])
        self._collapsed = _gauge(
            "collapsed_blocks",
            "Similar blocks that attend to the same keys too",
            [*_MODEL, "stage"],
        )
        self._distance = _gauge(
            "class_distance", "Total variation between answers and those of the reference", _MODEL
        )

    @property
    def families(self) -> tuple[Metric, ...]:
        return (
            *(self._measure, self._deviation, self._drift, self._threshold),
            *(self._similar, self._collapsed, self._distance),
        )

    def add(self, labels: tuple[str, str], watch: Watch, found: Findings) -> None:
        if reference := watch.manifest.reference:
            self._threshold.add_metric(labels, reference.threshold)
        if found.drift is not None:
            self._drift.add_metric(labels, found.drift)
        if found.class_distance is not None:
            self._distance.add_metric(labels, found.class_distance)
        for measure in found.measures:
            for index, block in enumerate(measure.blocks or ("",)):
                signal = [*labels, measure.measure, measure.stage or "", str(block)]
                self._measure.add_metric(signal, measure.mean[index])
                if not math.isnan(measure.deviation[index]):
                    self._deviation.add_metric(signal, measure.deviation[index])
        if found.measures:
            for gauge, blocks in (
                (self._similar, found.similar_blocks),
                (self._collapsed, found.collapsed_blocks),
            ):
                for stage, of_stage in blocks.items():
                    gauge.add_metric([*labels, stage], len(of_stage))


def _gauge(name: str, documentation: str, labels: list[str]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"deepvit_monitor_{name}", documentation, labels=labels)
