"""Every knob, typed, with its unit in its name: an environment variable `DEEPVIT_...` or a flag."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.errors import StartupError
from service.inference.cpus import available_cpus
from service.telemetry.log import LogFormat

_PREFIX = "DEEPVIT_"


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
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int | None = Field(
        None, ge=0, le=65535, description="port for gRPC, 0 takes a free one; no gRPC if unset"
    )
    model_repository: Path = Field(
        Path("model_repository"), description="folder of exported models"
    )
    default_model: str | None = Field(
        None, description="model for requests that name none; the first by name if unset"
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto", description="where models run; a named provider is demanded, auto takes what works"
    )
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field(
        "auto",
        description="of classification; auto is fp16 on a GPU where it was exported, else fp32; "
        "int8 is faster on processors, and rounds",
    )
    attention: Literal["auto", "fused", "plain"] = Field(
        "auto",
        description="fused demands the compiled kernels, auto takes them where they are there, "
        "plain never does",
    )
    cuda_graphs: bool = Field(
        True,
        description="replay CUDA graphs, one for each of a few batch sizes; "
        "where models run on CUDA",
    )
    intra_op_threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="threads of one inference; more than the processors granted slows it down",
    )
    decode_threads: int = Field(
        default_factory=available_cpus,
        ge=1,
        description="images decoded at once; more use more memory",
    )
    max_batch_size: int = Field(
        32, ge=1, description="largest batch; more is more throughput and more latency"
    )
    max_queue_images: int = Field(
        256, ge=1, description="images that may wait for a model; more wait longer, fewer get a 429"
    )
    max_wait_ms: float = Field(
        0, ge=0, description="wait for a fuller batch; more is fuller batches and more latency"
    )
    request_timeout_s: float = Field(
        30,
        gt=0,
        description="answers later than this are not computed, bodies slower than this not read; "
        "requests may ask for less",
    )
    keep_alive_s: int = Field(
        5,
        ge=1,
        description="how long a connection may idle, or take to send the headers of a request; "
        "a balancer in front should give up idle ones sooner",
    )
    served_versions: int = Field(
        1, ge=1, description="highest versions of each model kept loaded and addressable"
    )
    repository_poll_s: float = Field(
        0, ge=0, description="how often to look for new versions; 0 only when asked to"
    )
    drain_delay_s: float = Field(
        2,
        ge=0,
        description="after SIGTERM, not ready but still reachable; covers a balancer's lag",
    )
    drain_timeout_s: float = Field(
        25, gt=0, description="after that, work under way may take this long; then it is cut off"
    )
    api_keys: SecretStr | None = Field(
        None,
        description="keys with commas between them; any opens the API, none set opens it to all",
    )
    cors_origins: str | None = Field(
        None, description="origins with commas between them whose pages may call; `*` for all"
    )
    log_format: LogFormat = Field("json", description="json for machines, text for people")
    max_upload_bytes: int = Field(
        32 * 2**20, ge=1, description="largest request body; more lets bigger photos in"
    )
    max_image_pixels: int = Field(
        64 * 10**6, ge=1, description="largest image; decoding takes up to 20 bytes a pixel"
    )
    reduced_decode: bool = Field(
        False,
        description="decode JPEGs at least four times too large at 1/2, 1/4 or 1/8; "
        "faster, and pixels differ a little",
    )
    max_request_images: int = Field(
        32, ge=1, description="images in one request, never more than may wait"
    )
    max_answer_bytes: int = Field(
        64 * 2**20, ge=1, description="largest answer of /attention-maps and /v2"
    )
    store_url: SecretStr | None = Field(
        None,
        description="Redis that replicas share, `redis://HOST:PORT/DATABASE` or `rediss://` for "
        "TLS; images are kept in memory if unset",
    )
    store_timeout_s: float = Field(
        0.5, gt=0, description="longest wait for Redis; more delays answers when it hangs"
    )
    store_max_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="memory for inputs of classified images; Redis has its own maxmemory",
    )
    store_ttl_s: float = Field(3600, gt=0, description="how long an image's id stays valid")


def traces_wanted(environment: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces.

    Raises `StartupError` where they ask for what is not there.
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
        raise StartupError(f"OTEL_TRACES_EXPORTER: otlp or none, not {exporter}")
    if protocol not in ("", "http/protobuf"):
        raise StartupError(f"OTEL_EXPORTER_OTLP_PROTOCOL: http/protobuf, not {protocol}")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise StartupError("OTEL_EXPORTER_OTLP_ENDPOINT: begins with http:// or https://")
    return True


def words(text: str | None) -> list[str]:
    """What stands between commas."""
    return [word for word in (part.strip() for part in (text or "").split(",")) if word]


def load(arguments: list[str] | None = None) -> Settings:
    """Settings from flags, then the environment. Raises `StartupError`."""
    known = {_PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(
        name for name in os.environ if name.startswith(_PREFIX) and name.upper() not in known
    )
    if unknown:
        raise StartupError(f"no such setting: {', '.join(unknown)}")
    try:
        return Settings(_cli_parse_args=arguments)  # type: ignore[call-arg]
    except ValidationError as exc:
        wrong = "; ".join(
            f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
        )
        raise StartupError(f"wrong setting: {wrong}") from exc
