"""The settings of a server. Those about models and images are in shared.py."""

import os
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from service.errors import StartupError
from service.settings import comma_separated
from service.settings.shared import PREFIX, SharedSettings, readable
from service.telemetry.log import LogFormat

_CLOSING = ("allowed_hosts", "api_keys")  # settings whose absence opens the service


class Settings(SharedSettings):
    """Serve DeepViT models over HTTP."""

    model_config = SettingsConfigDict(cli_prog_name="python -m service")

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 chooses a free port")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port for gRPC; 0 chooses a free port; no gRPC if unset"
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; if unset, the first by name"
    )
    max_queue_images: int = Field(
        256,
        ge=1,
        description="slots in each queue of a model; more mean longer waits, fewer mean more 429s",
    )
    max_wait_ms: float = Field(
        0,
        ge=0,
        description="wait to fill a batch; a longer one gives fuller batches and more latency",
    )
    request_timeout_s: float = Field(
        30,
        gt=0,
        description="longest time to receive a body and to answer a request; a request may ask "
        "for less",
    )
    keep_alive_s: int = Field(
        5,
        ge=1,
        description="how long a connection may be idle, or take to send request headers; a load "
        "balancer in front should close idle connections sooner",
    )
    served_versions: int = Field(
        1, ge=1, description="how many versions of each model to serve, the highest ones"
    )
    require_all_models: bool = Field(
        True,
        description="refuse to start unless every model loads; if false, start with those that do",
    )
    repository_poll_s: float = Field(
        0,
        ge=0,
        description="how often to look for new or changed versions; 0 looks only on request",
    )
    drain_delay_s: float = Field(
        2,
        ge=0,
        description="time to stay reachable but not ready after SIGTERM, until balancers notice",
    )
    drain_timeout_s: float = Field(
        25, gt=0, description="time after that to finish requests in flight; then they are cut off"
    )
    api_keys: Annotated[SecretStr, readable(comma_separated.api_keys)] | None = Field(
        None,
        description="API keys, comma-separated; a request needs one of them; open to all if unset",
    )
    allowed_hosts: Annotated[str, readable(comma_separated.host_names)] | None = Field(
        None,
        description="names that clients reach the service by, comma-separated, `*.example.org` for "
        "all below one, `*` for all; addresses and localhost always are; if unset, names without a "
        "dot on a loopback address, else all",
    )
    cors_origins: Annotated[str, readable(comma_separated.origins)] | None = Field(
        None, description="origins whose pages may call the API, comma-separated; `*` for all"
    )
    model_control: Literal["auto", "on", "off"] = Field(
        "auto",
        description="whether clients may load and unload models; auto where API keys are set, or "
        "on a loopback address",
    )
    root_path: str | None = Field(
        None,
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        description="prefix of every path at a proxy in front, as `/deepvit`; if unset, that of "
        "X-Forwarded-Prefix from trusted proxies",
    )
    monitor_sample: float = Field(
        0,
        ge=0,
        le=1,
        description="share of answered images whose inside is measured while no model has work, "
        "for GET /monitor; 0 measures none",
    )
    log_format: LogFormat = Field("json", description="json for machines, text for people")
    max_upload_bytes: int = Field(
        32 * 2**20, ge=1, description="largest request body; a higher value admits larger photos"
    )
    max_inflight_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="memory for all request bodies at once, until their images are decoded; never "
        "less than max_upload_bytes; beyond it slow uploads and new ones get a 429",
    )
    max_inflight_uploads: int = Field(
        512, ge=1, description="most request bodies that may be arriving at once"
    )
    max_connections: int = Field(
        2048,
        ge=1,
        description="most HTTP connections; at one more, the client that has the most loses one "
        "that waits for a request",
    )
    max_request_images: int = Field(
        32, ge=1, description="most images in one request; never more than max_queue_images"
    )
    max_answer_bytes: int = Field(
        64 * 2**20, ge=1, description="largest answer of /attention-maps, /classify and /v2"
    )
    max_unsent_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="memory for answers that their clients have yet to read; never less than "
        "max_answer_bytes; beyond it slow readers are cut off and new answers get a 429",
    )
    write_timeout_s: float = Field(
        30, gt=0, description="a client that reads nothing of its answer for this long is cut off"
    )
    store_url: SecretStr | None = Field(
        None,
        description="Redis that replicas share, `redis://HOST:PORT/DATABASE` or `rediss://` for "
        "TLS; if unset, images are kept in memory",
    )
    store_timeout_s: float = Field(
        0.5,
        gt=0,
        description="longest wait for Redis; a higher value delays answers when Redis hangs",
    )
    store_max_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="memory for the inputs of classified images; Redis has its own maxmemory",
    )
    store_ttl_s: float = Field(3600, gt=0, description="how long an image's id stays valid")

    @property
    def on_loopback(self) -> bool:
        """Whether nothing but this machine reaches the service by itself."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def keys(self) -> list[str]:
        """API keys; none if the service is open to all."""
        return comma_separated.api_keys(self.api_keys.get_secret_value()) if self.api_keys else []

    @property
    def origins(self) -> list[str]:
        """Origins whose pages may call the API, or `*`."""
        return comma_separated.origins(self.cors_origins) if self.cors_origins else []

    @property
    def host_names(self) -> list[str] | None:
        """What http/hosts.py admits; None for whatever a client calls the service."""
        if self.allowed_hosts is None:
            return [] if self.on_loopback else None
        names = comma_separated.host_names(self.allowed_hosts)
        return None if "*" in names else names

    @property
    def clients_control_models(self) -> bool:
        """Whether clients may load and unload models."""
        if self.model_control == "auto":
            return bool(self.keys) or self.on_loopback
        return self.model_control == "on"

    @classmethod
    def load(cls, arguments: list[str] | None = None) -> Self:
        """As of all settings, and none may be empty whose absence opens the service."""
        _refuse_empty(arguments or ())
        return super().load(arguments)


def traces_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces.

    Raises `StartupError` if they ask for something that is not supported.
    """

    def first(*names: str) -> str:
        values = (environment.get(name, "").strip() for name in names)
        return next(filter(None, values), "")

    endpoint = first("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    protocol = first("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    exporter = first("OTEL_TRACES_EXPORTER") or ("otlp" if endpoint else "none")
    if exporter == "none" or first("OTEL_SDK_DISABLED").lower() == "true":
        return False
    if exporter != "otlp":
        raise StartupError(f"OTEL_TRACES_EXPORTER must be otlp or none, not {exporter}")
    if protocol not in ("", "http/protobuf"):
        raise StartupError(f"OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf, not {protocol}")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StartupError("OTEL_EXPORTER_OTLP_ENDPOINT must begin with http:// or https://")
    return True


def _refuse_empty(arguments: Sequence[str]) -> None:
    """An empty setting means an unset one, which must not open what it was meant to close.

    It is empty where a script that reads a key has failed. Raises `StartupError`.
    """
    for name in _CLOSING:
        flag = "--" + name.replace("_", "-")
        variable = PREFIX + name.upper()
        if (
            any(value == "" for key, value in os.environ.items() if key.upper() == variable)
            or not {f"{flag}=", f"{flag}=None"}.isdisjoint(arguments)
            or not {(flag, ""), (flag, "None")}.isdisjoint(pairwise(arguments))
        ):
            raise StartupError(f"wrong setting: {name}: it is empty; leave it out instead")
