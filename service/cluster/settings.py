"""The settings of a cluster: those of the service, and how many processes do what."""

import math
from typing import Literal, Self

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service.errors import StartupError
from service.settings.server import Settings


class ClusterSettings(Settings):
    """Serve DeepViT models from many processes and machines, on Ray Serve."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service.cluster")

    layout: Literal["fronts", "whole"] = Field(
        "fronts",
        description="fronts answer HTTP and leave models to engines; whole replicas do both",
    )
    fronts: int = Field(
        2, ge=1, description="fewest fronts, or whole replicas; each is one process of HTTP"
    )
    max_fronts: int = Field(
        0, ge=0, description="most fronts; more than the fewest are started as requests need them"
    )
    engines: int = Field(1, ge=1, description="fewest engines, usually one a GPU")
    max_engines: int = Field(
        0, ge=0, description="most engines; more than the fewest are started as batches need them"
    )
    front_cpus: float = Field(
        1, ge=0, description="CPUs that Ray sets aside for a front, or a whole replica"
    )
    engine_cpus: float = Field(1, ge=0, description="CPUs that Ray sets aside for an engine")
    engine_gpus: float = Field(
        0, ge=0, description="GPUs that Ray sets aside for an engine, or a whole replica"
    )
    requests_per_front: int = Field(
        32, ge=1, description="requests in flight on each front; at more, another is started"
    )
    batches_per_engine: int = Field(
        4, ge=1, description="batches in flight on each engine; at more, another is started"
    )
    scale_up_delay_s: float = Field(
        10, ge=0, description="how long more must be needed before a replica is started"
    )
    scale_down_delay_s: float = Field(
        300, ge=0, description="how long fewer must be enough before a replica is stopped"
    )
    batches_in_flight: int = Field(
        2,
        ge=1,
        description="batches that a front has under way for each queue; more hide the way there, "
        "and leave less that can be cancelled",
    )
    ray_address: str | None = Field(
        None, description="Ray cluster to join, or `auto`; if unset, one is started here"
    )

    @property
    def cpus(self) -> int:
        """CPUs that Ray sets aside for all replicas that there may be."""
        fronts = max(self.fronts, self.max_fronts) * self.front_cpus
        engines = max(self.engines, self.max_engines) * self.engine_cpus
        return math.ceil(fronts + engines)

    def sharing(self) -> Self:
        """With the threads of a process bounded by its CPUs, unless they were set."""
        front, engine = (max(1, int(cpus)) for cpus in (self.front_cpus, self.engine_cpus))
        threads = {
            "decode_threads": front,
            "intra_op_threads": front if self.layout == "whole" else engine,
        }
        unset = threads.keys() - self.model_fields_set
        return self.model_copy(update={name: threads[name] for name in unset})

    def listening_as_ray_says(self) -> Self:
        """With all interfaces as the host, unless one was set.

        Ray's own configuration has the real one, which need not be the default, a loopback address.
        """
        if "host" in self.model_fields_set:
            return self
        return self.model_copy(update={"host": "0.0.0.0"})

    def check(self) -> None:
        """Refuse what cannot work in a cluster. Raises `StartupError`."""
        if self.store_url is None and max(self.fronts, self.max_fronts) > 1:
            raise StartupError(
                "an image classified by one front is unknown to the others unless they share a "
                "store: set store_url to a Redis, or fronts to 1"
            )
        if self.grpc_port is not None:
            raise StartupError("a cluster answers HTTP only: grpc_port is for one process")
        if not self.port:
            raise StartupError("a cluster needs a port that is known: port cannot be 0")
