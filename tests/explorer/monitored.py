"""Answers of /monitor in states that real traffic reaches slowly, such as an alarm after hours."""

import datetime
import math
from typing import Any

from tests.conftest import DEEPVIT

BLOCKS = 16
THRESHOLD = 4.61
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def answer(
    images: int = 100, drift: float | None = 3.2, points: int = 60, **changes: Any
) -> dict[str, Any]:
    """Of one model whose softmax entropy in block 7 deviates by -`drift`; changes of its fields."""
    reference = {"images": 3291, "window": 100, "threshold": THRESHOLD, "false_alarms": 0.0001}
    alarm = None if drift is None else drift > THRESHOLD
    measures = [_measure(name, stage, blocks, drift) for name, stage, blocks in _SIGNALS]
    model = {
        "model": DEEPVIT,
        "version": 1,
        "samples": {"measured": 10 * points + 7, "dropped": 17, "failed": 0, "waiting": 3},
        "window": {"images": images, "size": 100, "since": _time(0) if images else None},
        "reference": reference,
        "drift": drift,
        "alarm": alarm,
        "strongest": [] if drift is None else _strongest(measures),
        "measures": measures if images else [],
        "similar_blocks": {"softmax": [12, 13, 14, 15], "reattention": []},
        "collapsed_blocks": {"softmax": [13], "reattention": []},
        "classes": {"distance": 0.312, "shares": _shares()},
        "history": [
            {"time": _time(number), "drift": _drift(number, points, drift), "images": 100}
            for number in range(0 if drift is None else points)
        ],
    }
    return {"sample": 0.01, "models": [model | changes]}


def without_reference() -> dict[str, Any]:
    """As `answer()`, of a model whose manifest has no reference."""
    found = answer(drift=None)
    (model,) = found["models"]
    for measure in model["measures"]:
        measure |= {"deviation": None, "reference_mean": None, "reference_spread": None}
    for share in model["classes"]["shares"]:
        share["reference"] = None
    model["classes"]["distance"] = model["reference"] = None
    return found


_EACH = list(range(BLOCKS))
_SIGNALS = [
    *(
        (f"similarity.{variant}", stage, _EACH[1:])
        for stage in ("softmax", "reattention")
        for variant in ("column", "row", "centred")
    ),
    ("entropy", "softmax", _EACH),
    ("attention_distance", "softmax", _EACH),
    ("feature_similarity", None, _EACH[:-1]),
    ("confidence", None, []),
]
_LEVELS = {"entropy": 3.0, "attention_distance": 16.0, "confidence": 0.7}


def _measure(
    name: str, stage: str | None, blocks: list[int], drift: float | None
) -> dict[str, Any]:
    places = blocks or [0]
    level = _LEVELS.get(name, 0.8 if stage == "softmax" else 0.1)
    means = [level * (1 + 0.15 * math.sin(place / 2)) for place in places]
    spreads = [0.12 * level * (1 + 0.3 * math.cos(place)) for place in places]
    deviations = [2.4 * math.sin(place + len(name)) for place in places]
    if name == "entropy" and drift is not None:
        deviations[7] = -drift
    error = math.sqrt(1 / 100 + 1 / 3291)
    return {
        "measure": name,
        "stage": stage,
        "blocks": blocks,
        "mean": [
            mean + spread * deviation * error
            for mean, spread, deviation in zip(means, spreads, deviations, strict=True)
        ],
        "spread": spreads,
        "deviation": deviations,
        "reference_mean": means,
        "reference_spread": spreads,
    }


def _strongest(measures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {"measure": one["measure"], "stage": one["stage"], "block": block, "deviation": deviation}
        for one in measures
        for block, deviation in zip(one["blocks"] or [None], one["deviation"], strict=True)
    ]
    return sorted(found, key=lambda one: -abs(one["deviation"]))[:5]


def _shares() -> list[dict[str, Any]]:
    return [
        {"label": label, "share": 2 * (10 - place) / 110, "reference": 0.1}
        for place, label in enumerate(LABELS)
    ]


def _time(number: int) -> str:
    start = datetime.datetime(2026, 11, 29, 7, tzinfo=datetime.UTC)
    return (start + datetime.timedelta(minutes=2 * number)).isoformat().replace("+00:00", "Z")


def _drift(number: int, points: int, last: float | None) -> float | None:
    """Ordinary for two thirds of the time, and then on its way to the last value."""
    if last is None:
        return None
    ordinary = 3.0 + 0.6 * math.sin(number)
    return ordinary + max(0.0, 3 * number / points - 2) * (last - ordinary)
