"""The settings of everything that runs models on pictures: which models, how, what is decoded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.imaging import COMMON_FORMATS, MAX_BYTES_PER_PIXEL, MAX_PIXELS
from service.errors import StartupError
from service.inference.cpus import available_cpus
from service.settings import comma_separated

PREFIX = "DEEPVIT_"


def readable(read: Callable[[str], Any]) -> Any:
    """A validator of text, or of a secret, that `read` takes without a `ValueError`."""

    def check(value: Any) -> Any:
        try:
            read(value.get_secret_value() if isinstance(value, SecretStr) else value)
        except ValueError as exc:
            raise PydanticCustomError("unreadable", "{reason}", {"reason": str(exc)}) from None
        return value

    return AfterValidator(check)


class SharedSettings(BaseSettings):
    """What a server and a bulk run are both told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        allow_inf_nan=False,
        frozen=True,
        cli_kebab_case=True,
        cli_avoid_json=True,
    )

    of_others: ClassVar[frozenset[str]] = frozenset()  # settings whose variables may be there too

    model_repository: Path = Field(
        Path("model_repository"), description="folder of exported models"
    )
    provider: Literal["auto", "cpu", "cuda", "tensorrt"] = Field(
        "auto",
        description="where models run; auto takes the best that works, a named one must work",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = Field(
        "auto",
        description="precision of classification; auto is fp16 on a GPU if the model has it, else "
        "fp32; bf16 and int8 are faster on a CPU and less exact; bf16 needs AVX512-BF16 and no "
        "export of its own",
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
    max_image_pixels: int = Field(
        MAX_PIXELS,
        ge=1,
        description="largest image; a process that decodes may take 128 MiB, and "
        f"{MAX_BYTES_PER_PIXEL} bytes for each of so many pixels",
    )
    max_decode_s: int = Field(
        5, ge=1, description="processor time that decoding one image may take, in whole seconds"
    )
    image_formats: Annotated[str, readable(comma_separated.image_formats)] | None = Field(
        None,
        description="image formats that are read, comma-separated, or `all`; if unset jpeg, png, "
        "webp, gif, bmp, avif and, where it can be read, heif",
    )
    reduced_decode: bool = Field(
        False,
        description="decode JPEGs that are four or more times too large at 1/2, 1/4 or 1/8 of "
        "their size; faster, and pixels differ a little",
    )

    @property
    def formats(self) -> list[str]:
        """Formats of images, as their reader names them."""
        if self.image_formats is None:
            return list(COMMON_FORMATS)
        return comma_separated.image_formats(self.image_formats)

    @classmethod
    def load(cls, arguments: list[str] | None = None) -> Self:
        """Settings from flags, which come first, and the environment. Raises `StartupError`."""
        known = {PREFIX + name.upper() for name in cls.model_fields.keys() | cls.of_others}
        unknown = sorted(
            name for name in os.environ if name.startswith(PREFIX) and name.upper() not in known
        )
        if unknown:
            raise StartupError(f"no such setting: {', '.join(unknown)}")
        try:
            return cls(_cli_parse_args=arguments)  # type: ignore[call-arg]
        except ValidationError as exc:
            wrong = "; ".join(
                f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors()
            )
            raise StartupError(f"wrong setting: {wrong}") from exc
