"""OpenTelemetry traces: FastAPI's span of every request, with its model and its stages.

The only file that imports OpenTelemetry, and imported only if tracing is on. The SDK itself reads
the standard OTEL_ variables, which say what is exported, how and where to.
"""

import threading
import time
from collections.abc import MutableMapping
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_SERVICE = "deepvit-inference"
_FLUSH_S = 3


class Tracing:
    """A thread exports spans in batches; spans that do not fit into its queue are dropped."""

    def __init__(self) -> None:
        resource = Resource.create({"service.name": _SERVICE}).merge(
            OTELResourceDetector().detect()
        )
        self.provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer(_SERVICE)

    @property
    def trace_id(self) -> str | None:
        """The trace of the current request, as 32 hex digits."""
        context = trace.get_current_span().get_span_context()
        return trace.format_trace_id(context.trace_id) if context.is_valid else None

    def describe(self, state: MutableMapping[str, Any]) -> None:
        """Add what is known of a request to its span, just before the response starts."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.set_attribute("deepvit.request_id", state["request_id"])
        if model := state.get("model"):
            span.set_attributes({"deepvit.model": model[0], "deepvit.model_version": model[1]})
        if problem := state.get("problem"):
            span.set_attribute("deepvit.problem", problem)
        self._add_stages(state.get("timings_s", {}), state.get("ends", {}))

    def _add_stages(self, timings_s: dict[str, float], ends: dict[str, float]) -> None:
        """A span for each stage.

        A stage without a known end ends where the next one begins, the last one now.
        """
        now = end = time.perf_counter()
        now_ns = time.time_ns()
        for stage, seconds in reversed(timings_s.items()):
            end = ends.get(stage, end)
            ended_ns = now_ns - round((now - end) * 1e9)
            end -= seconds
            started_ns = ended_ns - round(seconds * 1e9)
            self._tracer.start_span(stage, start_time=started_ns).end(ended_ns)

    def close(self) -> None:
        """Export the remaining spans, within a few seconds."""
        flushing = threading.Thread(target=self.provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(_FLUSH_S)
