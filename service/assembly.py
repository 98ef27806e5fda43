"""Engines, decoders and optional packages, as the settings ask for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from models.imaging import MAX_BYTES_PER_PIXEL
from service.errors import StartupError
from service.imaging.process import DecodeOptions
from service.inference.engine import EngineMaker
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from service.settings.shared import SharedSettings

# Of memory that a decoding process may take besides what it needs for each pixel: the upload, and
# what libraries allocate once.
_DECODER_BYTES = 128 * 2**20


def local_engines(settings: SharedSettings) -> EngineMaker:
    """Engines that run models in this process."""
    options = EngineOptions(
        provider=settings.provider,
        precision=settings.precision,
        attention=settings.attention,
        kernel=settings.kernel,
        cuda_graphs=settings.cuda_graphs,
        intra_op_threads=settings.intra_op_threads,
        max_batch_size=settings.max_batch_size,
    )
    return partial(OnnxEngine, options=options)


def decode_options(settings: SharedSettings) -> DecodeOptions:
    """What is decoded, and what it may cost."""
    return DecodeOptions(
        max_pixels=settings.max_image_pixels,
        max_bytes=_DECODER_BYTES + MAX_BYTES_PER_PIXEL * settings.max_image_pixels,
        max_s=settings.max_decode_s,
        formats=settings.formats,
        reduced=settings.reduced_decode,
    )


@contextmanager
def needs_extra(need: str, extra: str) -> Iterator[None]:
    """Around imports that need an optional extra of pyproject.toml. Raises `StartupError`."""
    try:
        yield
    except ModuleNotFoundError as exc:
        install = f"pip install --constraint constraints.txt '.[{extra}]'"
        raise StartupError(f"{need}: {install}") from exc
