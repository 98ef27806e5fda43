"""The running service in one process, shared by all protocols. Knows nothing of HTTP."""

import time
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Protocol

from service.errors import ModelControlOff, Stopped
from service.limits.inflight import InflightUploads
from service.monitor.record import Records
from service.pipeline import Pipeline
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class UploadLimits:
    max_bytes: int
    max_images: int
    timeout_s: float  # for a whole body to arrive


class Replicas(Protocol):
    """All processes that answer at one address, this one among them."""

    async def load(self, model: str) -> None:
        """Raises `UnknownModel` or `LoadFailed`."""
        ...

    async def unload(self, model: str) -> None:
        """Raises `UnknownModel`."""
        ...

    async def metrics(self) -> bytes:
        """The text of a scrape."""
        ...

    async def records(self) -> Records:
        """What the monitors of all processes have found."""
        ...


@dataclass
class Runtime:
    pipeline: Pipeline
    upload_limits: UploadLimits
    uploads: InflightUploads
    max_answer_bytes: int
    request_timeout_s: float
    render_pool: Executor  # one thread: the largest picture takes 0.3 GiB while it is drawn
    metrics: Metrics
    model_control: bool = False  # whether clients may load and unload models
    replicas: Replicas | None = None  # none: this process is alone
    draining: bool = False

    @property
    def alive(self) -> bool:
        return all(model.alive for model in self.pipeline.models)

    @property
    def ready(self) -> bool:
        """Whether requests are answered; not if no model is served."""
        return self.alive and not self.draining and any(True for _ in self.pipeline.models)

    def check_working(self) -> None:
        """Refuse new work once the process shuts down. Raises `Stopped`."""
        if self.draining:
            raise Stopped("the server is shutting down; ask another one", retry_after_s=1)

    def check_model_control(self) -> None:
        """Refuse a client that asks to load or unload a model.

        Raises `ModelControlOff`, or `Stopped` once the process shuts down.
        """
        if not self.model_control:
            raise ModelControlOff(
                "DEEPVIT_MODEL_CONTROL=on allows it to all, and with DEEPVIT_REPOSITORY_POLL_S the "
                "service finds new versions by itself"
            )
        self.check_working()

    def deadline(self, timeout_s: float | None = None) -> float:
        """The deadline of a request that starts now, as a time of `time.perf_counter`.

        A request may ask for a shorter timeout than the service's own, not for a longer one.
        """
        longest_s = self.request_timeout_s
        return time.perf_counter() + min(longest_s if timeout_s is None else timeout_s, longest_s)

    async def load(self, model: str) -> None:
        """Serve the versions of a model that the folder holds now, in every replica.

        Raises `UnknownModel` or `LoadFailed`.
        """
        await (self.replicas or self.pipeline.models).load(model)

    async def unload(self, model: str) -> None:
        """Stop serving a model, in every replica. Raises `UnknownModel`."""
        await (self.replicas or self.pipeline.models).unload(model)

    async def scrape(self) -> bytes:
        """The metrics of every replica, as Prometheus reads them."""
        return await self.replicas.metrics() if self.replicas else self.metrics.render()

    async def records(self) -> Records:
        """What the monitors of every replica have found."""
        return await self.replicas.records() if self.replicas else self.pipeline.monitor.records()
