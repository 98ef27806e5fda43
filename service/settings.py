"""Settings, typed, with their units in their names; each is an environment variable and a flag."""

import os
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.imaging import COMMON_FORMATS, MAX_BYTES_PER_PIXEL, MAX_PIXELS
from service import comma_separated
from service.errors import StartupError
from service.inference.cpus import available_cpus
from service.telemetry.log import LogFormat

_PREFIX = "DEEPVIT_"
_CLOSING = ("allowed_hosts", "api_keys")  # settings whose absence opens the service


def _readable(read: Callable[[str], Any]) -> Any:
    """A validator of text, or of a secret, that `read` takes without a `ValueError`."""

    def check(value: Any) -> Any:
        try:
            read(value.get_secret_value() if isinstance(value, SecretStr) else value)
        except ValueError as exc:
            raise PydanticCustomError("unreadable", "{reason}", {"reason": str(exc)}) from None
        return value

    return AfterValidator(check)


class Settings(BaseSettings):
    """Serve DeepViT models over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_ignore_empty=True,
        allow_inf_nan=False,
        frozen=True,
        cli_kebab_case=True,
        cli_prog_name="python -m service",
        cli_avoid_json=True,
    )

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 chooses a free port")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port for gRPC; 0 chooses a free port; no gRPC if unset"
    )
    model_repository: Path = Field(
        Path("model_repository"), description="folder of exported models"
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; if unset, the first by name"
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="where models run; auto takes the best that works, a named one must work",
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field(
        "auto",
        description="precision of classification; auto is fp16 on a GPU if the model has it, else "
        "fp32; int8 is faster on a CPU and less exact",
    )
    attention: Literal["auto", "fused", "plain"] = Field(
        "auto",
        description="fused requires the compiled kernels, auto uses them if they are there, "
        "plain never uses them",
    )
    kernel: Literal["auto", "avx512", "avx2", "baseline"] = Field(
        "auto",
        description="the best copy of the CPU's compiled kernels that may run; a processor that "
        "lacks it takes the next lower",
    )
    cuda_graphs: bool = Field(
        True,
        description="on CUDA, record a CUDA graph for each of a few batch sizes and replay it",
    )
    intra_op_threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="threads of one inference; more threads than CPUs slow it down",
    )
    decode_threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="images decoded at once, on threads and in processes; a higher value uses more "
        "memory",
    )
    max_batch_size: int = Field(
        32, ge=1, description="largest batch; a larger one gives more throughput and more latency"
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
    api_keys: Annotated[SecretStr, _readable(comma_separated.api_keys)] | None = Field(
        None,
        description="API keys, comma-separated; a request needs one of them; open to all if unset",
    )
    allowed_hosts: Annotated[str, _readable(comma_separated.host_names)] | None = Field(
        None,
        description="names that clients reach the service by, comma-separated, `*.example.org` for "
        "all below one, `*` for all; addresses and localhost always are; if unset, names without a "
        "dot on a loopback address, else all",
    )
    cors_origins: Annotated[str, _readable(comma_separated.origins)] | None = Field(
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
    max_image_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="largest image; a process that decodes may take 128 MiB, and "
        f"{MAX_BYTES_PER_PIXEL} bytes for each of so many pixels",
    )
    max_decode_s: int = Field(
        5, ge=1, description="processor time that decoding one image may take, in whole seconds"
    )
    image_formats: Annotated[str, _readable(comma_separated.image_formats)] | None = Field(
        None,
        description="image formats that are read, comma-separated, or `all`; if unset jpeg, png, "
        "webp, gif, bmp, avif and, where it can be read, heif",
    )
    reduced_decode: bool = Field(
        False,
        description="decode JPEGs that are four or more times too large at 1/2, 1/4 or 1/8 of "
        "their size; faster, and pixels differ a little",
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
    def formats(self) -> list[str]:
        """Formats of images, as their reader names them."""
        if self.image_formats is None:
            return list(COMMON_FORMATS)
        return comma_separated.image_formats(self.image_formats)

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
        """Settings from flags, which come first, and the environment. Raises `StartupError`."""
        known = {_PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(
            name for name in os.environ if name.startswith(_PREFIX) and name.upper() not in known
        )
        if unknown:
            raise StartupError(f"no such setting: {', '.join(unknown)}")
        _refuse_empty(arguments or ())
        try:
            return cls(_cli_parse_args=arguments)  # type: ignore[call-arg]
        except ValidationError as exc:
            wrong = "; ".join(
                f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
            )
            raise StartupError(f"wrong setting: {wrong}") from exc


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
        variable = _PREFIX + name.upper()
        if (
            any(value == "" for key, value in os.environ.items() if key.upper() == variable)
            or not {f"{flag}=", f"{flag}=None"}.isdisjoint(arguments)
            or not {(flag, ""), (flag, "None")}.isdisjoint(pairwise(arguments))
        ):
            raise StartupError(f"wrong setting: {name}: it is empty; leave it out instead")
