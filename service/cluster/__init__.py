"""The same service on Ray Serve: many processes, machines and GPUs behind one address.

`python -m service.cluster` starts it, as does `serve run service.cluster:app`. Fronts are the whole
HTTP application, whose engines are remote; engines run the models for all fronts. Ray and its HTTP
ingress are configured by environment variables, which must be set before Ray is imported.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve import Application

ENVIRONMENT = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",  # requests go from HAProxy straight to a front
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # gRPC between replicas, one event loop in each
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # HAProxy hears of it at once
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # on a busy machine HAProxy starts slowly
    "RAY_USAGE_STATS_ENABLED": "0",
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)


def app(arguments: dict[str, Any]) -> "Application":
    """For Ray Serve: built from the `args` of its config file, or from the environment.

    Raises `StartupError`.
    """
    from service.cluster.application import application
    from service.cluster.settings import ClusterSettings

    settings = ClusterSettings(**arguments) if arguments else ClusterSettings.load([])
    return application(settings.listening_as_ray_says())
