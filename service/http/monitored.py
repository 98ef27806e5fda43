"""What the monitor has found of a version, as the answer of GET /monitor."""

from datetime import UTC, datetime

import numpy as np

from models.arrays import Float64Array
from models.drift import WINDOW
from models.reference import Reference
from service.http.schemas import (
    ClassShare,
    Deviation,
    DriftPoint,
    MonitorClasses,
    MonitoredModel,
    MonitorMeasure,
    MonitorReference,
    MonitorWindow,
    Samples,
)
from service.inference.served import ServedModel
from service.monitor.findings import Findings, Measure
from service.monitor.record import Record

_STRONGEST = 5
_SHARES = 20
_DIGITS = 6


def monitored(model: ServedModel, record: Record) -> MonitoredModel:
    manifest, sums = model.manifest, record.sums
    found = Findings(manifest, sums)
    return MonitoredModel(
        model=manifest.name,
        version=manifest.version,
        samples=Samples(**record.samples._asdict()),
        window=MonitorWindow(
            images=sums.images,
            size=WINDOW,
            since=None if sums.since is None else _time(sums.since),
        ),
        reference=None if manifest.reference is None else _reference(manifest.reference),
        drift=None if found.drift is None else _rounded(found.drift),
        alarm=found.alarm,
        strongest=[
            Deviation(**signal._asdict(), deviation=_rounded(deviation))
            for signal, deviation in found.strongest(_STRONGEST)
        ],
        measures=[_measure(one, manifest.reference is not None) for one in found.measures],
        similar_blocks={stage: list(blocks) for stage, blocks in found.similar_blocks.items()},
        collapsed_blocks={stage: list(blocks) for stage, blocks in found.collapsed_blocks.items()},
        classes=_classes(found),
        history=[
            DriftPoint(time=_time(one.time_s), drift=_rounded(one.drift), images=one.images)
            for one in record.history
        ],
    )


def _reference(reference: Reference) -> MonitorReference:
    return MonitorReference(
        images=reference.images,
        window=reference.window,
        threshold=reference.threshold,
        false_alarms=reference.false_alarms,
    )


def _measure(one: Measure, compared: bool) -> MonitorMeasure:
    return MonitorMeasure(
        measure=one.measure,
        stage=one.stage,
        blocks=list(one.blocks),
        mean=list(map(_rounded, one.mean)),
        spread=list(map(_rounded, one.spread)),
        deviation=_known(one.deviation) if compared else None,
        reference_mean=_known(one.reference_mean) if compared else None,
        reference_spread=_known(one.reference_spread) if compared else None,
    )


def _classes(found: Findings) -> MonitorClasses:
    """The largest shares of the answers, or of those of the reference."""
    reference, labels = found.manifest.reference, found.manifest.labels
    if not found.sums.images:
        return MonitorClasses(distance=None, shares=[])
    shares = found.class_shares
    normal = np.array(reference.class_shares) if reference else None
    largest = shares if normal is None else np.maximum(shares, normal)
    return MonitorClasses(
        distance=None if found.class_distance is None else _rounded(found.class_distance),
        shares=[
            ClassShare(
                label=labels[index],
                share=_rounded(shares[index]),
                reference=None if normal is None else _rounded(normal[index]),
            )
            for index in np.argsort(-largest, kind="stable")[:_SHARES].tolist()
            if largest[index]
        ],
    )


def _known(values: Float64Array) -> list[float | None]:
    return [None if np.isnan(value) else _rounded(value) for value in values]


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)
