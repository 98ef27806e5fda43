"""Starts Ray, its HTTP ingress and the application, and stops them."""

from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from service.cluster.application import application
from service.cluster.engines import Engines
from service.cluster.settings import ClusterSettings
from service.inference.cpus import available_cpus

_LOOPBACK = "127.0.0.1"  # where a Ray that is started here listens


def start(settings: ClusterSettings, engine: type[Engines] | None = None) -> None:
    """Returns once every replica is ready. On one machine, replicas may share its CPUs.

    Raises `StartupError`, or `RuntimeError` and `ConnectionError` as Ray does.
    """
    built = application(settings, engine or Engines)
    here: dict[str, Any] = {}
    if settings.ray_address is None:
        here["num_cpus"] = max(available_cpus(), settings.cpus)
        here["_node_ip_address"] = _LOOPBACK
    address = settings.ray_address or "local"  # whatever other Ray runs here
    ray.init(address, include_dashboard=False, log_to_driver=False, **here)
    serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
    serve.run(built, name="deepvit")


def stop() -> None:
    """Replicas finish what they have under way."""
    serve.shutdown()
    ray.shutdown()
