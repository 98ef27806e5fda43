"""Counts of images by outcome, read from a server's metrics.

They add up when every accepted image has exactly one outcome.
"""

import time
from collections import Counter

import httpx
from prometheus_client.parser import text_string_to_metric_families

WAITING = "waiting"  # beside the outcomes: images in the queue now
OUTCOMES = ("answered", "failed", "cancelled", "expired")
_TIMEOUT_S = 60

Queue = tuple[str, str, str]  # model, version, queue
Counts = dict[str, int]  # by outcome; also images that were accepted and refused, and that wait
QueueCounts = dict[Queue, Counts]


def settled_queue_counts(client: httpx.Client) -> QueueCounts:
    """Counts of each queue, read once all of them add up, or after a minute."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        counts = _counts(client)
        if all(map(add_up, counts.values())) or time.monotonic() > deadline:
            return counts


def settled_counts(client: httpx.Client) -> Counts:
    """Counts of all queues together; fails unless they add up within a minute."""
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        counts: Counter[str] = Counter()
        for of_queue in _counts(client).values():
            counts.update(of_queue)
        if add_up(counts) and not counts[WAITING]:
            return counts
        assert counts["accepted"] > _outcomes(counts), counts
        assert time.monotonic() < deadline, counts


def add_up(counts: Counts) -> bool:
    return counts["accepted"] == _outcomes(counts)


def _outcomes(counts: Counts) -> int:
    return sum(counts[outcome] for outcome in OUTCOMES)


def _counts(client: httpx.Client) -> QueueCounts:
    counts: QueueCounts = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name in ("deepvit_images_total", "deepvit_queue_depth"):
                labels = sample.labels
                queue = labels["model"], labels["version"], labels["queue"]
                outcome = labels.get("fate", WAITING)
                counts.setdefault(queue, {})[outcome] = int(sample.value)
    return counts
