"""Decoding JPEGs at reduced size: the time it saves and its effect on answers.

Pictures of a data set of 32 px, enlarged to the size of a photograph, stand in for labelled
photographs.
"""

import io
import statistics
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from models.arrays import Pixels
from models.imaging import MAX_PIXELS
from models.preprocess import Preprocessing, preprocess
from models.size import Size
from service.imaging.decoder import Decoder
from service.inference.cpus import available_cpus
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import models
from tests.bench.record import Record
from tests.support.server import ROOT

TEST_SET = ROOT.parent / "shared" / "cifar10" / "test.tar"
_SIDE = 512  # pixels along a side of an enlarged picture
_PHOTO = (4000, 3000)  # twelve megapixels
_INPUTS = (32, 224)
_ROUNDS = 9
_BATCH = 32
_WAYS = {"whole": False, "reduced": True}


def run(name: str, pictures: Path = TEST_SET) -> None:
    """Record the time to decode a large photograph, and the accuracy on a test set."""
    record = Record("decode", name)
    photo = _jpeg(Image.open(sorted(models.PHOTOS.glob("*.jpg"))[0]), _PHOTO)
    for size in _INPUTS:
        spent = _milliseconds(photo, Preprocessing(size=Size.of(size)))
        for way, ms in spent.items():
            record.add(what=f"12 megapixels to {size} px, {way}", ms=round(ms, 1))
    folder = models.exported(name)
    right, same, count = _answers(folder, pictures)
    for way, share in right.items():
        record.add(what=f"right of {count} pictures, {way}", share=round(share, 4))
    record.add(what="the same answer either way", share=round(same, 4))


def _milliseconds(jpeg: bytes, rule: Preprocessing) -> dict[str, float]:
    """Median time to decode and preprocess, with both ways taking turns."""
    spent: dict[str, list[float]] = {way: [] for way in _WAYS}
    for _ in range(_ROUNDS):
        for way, reduced in _WAYS.items():
            started = time.perf_counter()
            preprocess(Decoder(MAX_PIXELS, reduced).decode(jpeg, rule.resize), rule)
            spent[way].append((time.perf_counter() - started) * 1e3)
    return {way: statistics.median(found) for way, found in spent.items()}


def _answers(folder: Path, pictures: Path) -> tuple[dict[str, float], float, int]:
    """Shares of right answers and of equal answers, and the number of pictures."""
    engine = OnnxEngine(folder, EngineOptions(intra_op_threads=available_cpus()))
    engine.warm_up()
    rule, labels = engine.manifest.preprocessing, engine.manifest.labels
    decoders = {way: Decoder(MAX_PIXELS, reduced) for way, reduced in _WAYS.items()}
    truth: list[int] = []
    inputs: dict[str, list[Pixels]] = {way: [] for way in _WAYS}
    with tarfile.open(pictures) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or Path(member.name).parent.name not in labels:
                continue
            truth.append(labels.index(Path(member.name).parent.name))
            jpeg = _jpeg(Image.open(io.BytesIO(file.read())), (_SIDE, _SIDE))
            for way, decoder in decoders.items():
                inputs[way].append(preprocess(decoder.decode(jpeg, rule.resize), rule))
    found = {
        way: np.concatenate(
            [
                np.argmax(engine.classify(images[start : start + _BATCH]), axis=1)
                for start in range(0, len(images), _BATCH)
            ]
        )
        for way, images in inputs.items()
    }
    right = {way: float((answers == truth).mean()) for way, answers in found.items()}
    return right, float((found["whole"] == found["reduced"]).mean()), len(truth)


def _jpeg(image: Image.Image, size: tuple[int, int]) -> bytes:
    encoded = io.BytesIO()
    image.convert("RGB").resize(size, Image.Resampling.BICUBIC).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()
