"""Everything that runs in one process, whichever protocol asks. Knows nothing of HTTP."""

from concurrent.futures import Executor
from dataclasses import dataclass

from service.errors import Stopped
from service.pipeline import Pipeline
from service.telemetry.metrics import Metrics


@dataclass(frozen=True)
class UploadLimits:
    max_bytes: int
    max_images: int
    timeout_s: float  # for a body to arrive


@dataclass
class Runtime:
    pipeline: Pipeline
    upload_limits: UploadLimits
    max_answer_bytes: int
    request_timeout_s: float
    render_pool: Executor  # of one thread: matplotlib shares state
    metrics: Metrics
    draining: bool = False

    @property
    def alive(self) -> bool:
        return all(model.alive for model in self.pipeline.models)

    @property
    def ready(self) -> bool:
        return self.alive and not self.draining

    def check_working(self) -> None:
        """No work is begun once the process is to end. Raises `Stopped`."""
        if self.draining:
            raise Stopped("the server is shutting down; ask another one", retry_after_s=1)
