"""The application that Ray Serve runs: which deployments there are, how many replicas of each."""

from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from service.cluster.engines import Engines
from service.cluster.front import Front
from service.cluster.settings import ClusterSettings

_UNBOUNDED = 2**31 - 1  # the service's own queues refuse what is too much


def application(settings: ClusterSettings, engine: type[Engines] = Engines) -> Application:
    """Fronts bound to engines, or whole replicas. Raises `StartupError`."""
    settings.check()
    settings = settings.sharing()
    front: Any = serve.deployment(serve.ingress()(Front)).options(
        name="front",
        ray_actor_options={"num_cpus": settings.front_cpus},
        **_replicas(settings, settings.fronts, settings.max_fronts, settings.requests_per_front),
        **_lifetime(settings),
    )
    gpus = {"num_gpus": settings.engine_gpus} if settings.engine_gpus else {}
    if settings.layout == "whole":
        whole: Application = front.options(
            ray_actor_options={"num_cpus": settings.front_cpus, **gpus}
        ).bind(settings)
        return whole
    engines: Any = serve.deployment(engine).options(
        name="engine",
        ray_actor_options={"num_cpus": settings.engine_cpus, **gpus},
        **_replicas(settings, settings.engines, settings.max_engines, settings.batches_per_engine),
        **_lifetime(settings),
    )
    apart: Application = front.bind(settings, engines.bind(settings))
    return apart


def _replicas(settings: ClusterSettings, fewest: int, most: int, ongoing: int) -> dict[str, Any]:
    """A fixed number, or as many as keep the requests in flight on each at `ongoing`."""
    if most <= fewest:
        return {"num_replicas": fewest}
    return {
        "autoscaling_config": {
            "min_replicas": fewest,
            "max_replicas": most,
            "target_ongoing_requests": ongoing,
            "upscale_delay_s": settings.scale_up_delay_s,
            "downscale_delay_s": settings.scale_down_delay_s,
        }
    }


def _lifetime(settings: ClusterSettings) -> dict[str, Any]:
    """Replicas finish what they have under way before they stop."""
    return {
        "max_ongoing_requests": _UNBOUNDED,
        "logging_config": LoggingConfig(enable_access_log=False),  # fronts log requests themselves
        "graceful_shutdown_wait_loop_s": 0.5,
        "graceful_shutdown_timeout_s": settings.drain_delay_s + settings.drain_timeout_s,
        "health_check_period_s": 2,
    }
