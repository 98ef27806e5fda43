"""An upload as the network takes it, and how long its preparation took."""

import time
from dataclasses import dataclass

from PIL.Image import Image

from models.arrays import Pixels
from models.preprocess import Preprocessing, preprocess
from service.imaging.decoder import Decoder


@dataclass(frozen=True)
class Prepared:
    pixels: Pixels  # [height, width, 3]
    decode_s: float
    preprocess_s: float
    ended: float  # a time of time.perf_counter


def prepare(decoder: Decoder, upload: bytes, rule: Preprocessing) -> Prepared:
    """Raises what the decoder raises."""
    started = time.perf_counter()
    return _preprocessed(decoder.decode(upload, rule.resize), rule, started)


def prepare_small(decoder: Decoder, upload: bytes, rule: Preprocessing) -> Prepared | None:
    """The same for an image so small that a thread would cost more; None for every other."""
    started = time.perf_counter()
    image = decoder.decode_small(upload, rule.resize)
    return None if image is None else _preprocessed(image, rule, started)


def _preprocessed(image: Image, rule: Preprocessing, started: float) -> Prepared:
    decoded = time.perf_counter()
    pixels = preprocess(image, rule)
    ended = time.perf_counter()
    return Prepared(pixels, decoded - started, ended - decoded, ended)
