"""The time that a request spends in each stage, noted in `request.state` for the middleware.

It goes into the Server-Timing header, the metrics and the trace. A request with several images
is described by its slowest image.
"""

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from service.inference.batching import Done
from service.pipeline import Classification


def note_classification(
    request: Request, results: Sequence[Classification], postprocess_s: float
) -> None:
    """All five stages. The slowest image to prepare and the slowest to run may be two images:
    none is queued before all are prepared."""
    prepared = max((one.image for one in results), key=lambda one: one.decode_s + one.preprocess_s)
    run = max(results, key=lambda one: one.queue_s + one.inference_s)
    request.state.timings_s = {
        "decode": prepared.decode_s,
        "preprocess": prepared.preprocess_s,
        "queue": run.queue_s,
        "inference": run.inference_s,
        "postprocess": postprocess_s,
    }
    request.state.ends = {"preprocess": prepared.ended, "inference": run.ended}


def note_inference(request: Request, done: Sequence[Done[Any]]) -> None:
    """The two stages of images that were prepared before this request."""
    slowest = max(done, key=lambda one: one.queue_s + one.run_s)
    request.state.timings_s = {"queue": slowest.queue_s, "inference": slowest.run_s}
    request.state.ends = {"inference": slowest.ended}
