"""How soon the monitor's alarm comes when pictures change, and how seldom when they do not.

Half of a folder's images are the reference, the others are traffic: streams of ordinary images, and
streams in which every image is changed after a while. Counts images, not seconds.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

from models.arrays import Float64Array
from models.drift import LEAST_IN_WINDOW, WINDOW, deviations, drift
from models.imaging import Reader
from models.manifest import Manifest
from models.preprocess import preprocess
from models.reference import Reference
from models.signals import Signals
from tests.bench.record import Record, table
from tests.support import small
from tests.support.crops import CHANGES
from tests.support.server import ROOT

_SPLITS, _STREAMS = 10, 40  # into reference and traffic; and streams of the traffic of each
_ORDINARY, _CHANGED = 1000, 400  # images in a stream, of the second after `WINDOW` ordinary ones
_MEASURED = 800  # images of each change
Bools = npt.NDArray[np.bool_]
SignalsOf = Callable[[Image.Image], Float64Array]


def run(name: str, images: Path) -> None:
    manifest, signals_of = _model(name)
    paths = sorted(path for path in images.rglob("*") if path.is_file())
    np.random.default_rng(0).shuffle(paths)
    ordinary = _measured(signals_of, paths, lambda image: image)
    changed = {
        change: _measured(signals_of, paths[:_MEASURED], alter) for change, alter in CHANGES.items()
    }
    record = Record("drift", name)
    record.add(images=len(paths), splits=_SPLITS, streams=_SPLITS * _STREAMS, stream=_ORDINARY)
    splits = [_Split(manifest, ordinary, changed, seed) for seed in range(_SPLITS)]
    alarmed = [split.alarmed(seed) for split in splits for seed in range(_STREAMS)]
    figures = {
        "threshold": round(float(np.mean([split.reference.threshold for split in splits])), 2),
        "streams_with_false_alarm": round(float(np.mean([any(one) for one in alarmed])), 4),
        "moments_with_false_alarm": round(float(np.mean(alarmed)), 6),
    }
    record.add(**figures)
    print(figures)
    rows = []
    for change in CHANGES:
        delays = np.array(
            [split.delay(change, seed) for split in splits for seed in range(_STREAMS)]
        )
        found = delays[delays <= _CHANGED]
        median, late = np.percentile(delays, [50, 95], method="inverted_cdf").tolist()
        row = {"median": median, "late": late, "found": round(len(found) / len(delays), 4)}
        record.add(change=change, **row)
        rows.append([change, *(f"> {_CHANGED}" if x > _CHANGED else x for x in (median, late))])
        rows[-1].append(f"{row['found']:.1%}")
    headings = ["change", "images until the alarm, median", "95 %", f"alarm within {_CHANGED}"]
    print("\n".join(table(headings, rows)))


class _Split:
    """One half of the images as the reference, the other half as traffic."""

    def __init__(
        self,
        manifest: Manifest,
        ordinary: Float64Array,
        changed: dict[str, Float64Array],
        seed: int,
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(ordinary))
        names = Signals(manifest).names
        half = len(order) // 2
        self.reference = Reference.of(names, ordinary[order[:half]], np.ones(len(manifest.labels)))
        self._moments = self.reference.moments(names)
        self._traffic = ordinary[order[half:]]
        # A changed image is of the traffic, too: the reference has not seen its original.
        self._changed = {
            change: values[np.isin(np.arange(len(values)), order[half:])]
            for change, values in changed.items()
        }

    def alarmed(self, seed: int) -> Bools:
        """Whether there is an alarm after each image of a stream of ordinary ones."""
        return self._alarms(_drawn(self._traffic, _ORDINARY, seed))

    def delay(self, change: str, seed: int) -> int:
        """Changed images until the alarm; one more than there are if there is none."""
        before = _drawn(self._traffic, WINDOW, seed)
        after = _drawn(self._changed[change], _CHANGED, seed)
        alarms = self._alarms(np.concatenate([before, after]))[WINDOW - LEAST_IN_WINDOW + 1 :]
        return int(alarms.argmax()) + 1 if alarms.any() else _CHANGED + 1

    def _alarms(self, values: Float64Array) -> Bools:
        sums = np.pad(values.cumsum(axis=0), ((1, 0), (0, 0)))
        end = np.arange(LEAST_IN_WINDOW, len(values) + 1)
        begin = (end - WINDOW).clip(0)
        count = (end - begin)[:, None]
        found = drift(deviations((sums[end] - sums[begin]) / count, count, self._moments))
        beyond: Bools = found > self.reference.threshold
        return beyond


def _drawn(values: Float64Array, count: int, seed: int) -> Float64Array:
    """Without replacement, if there are as many."""
    draw = np.random.default_rng(seed)
    return values[draw.choice(len(values), count, replace=count > len(values))]


def _measured(
    signals_of: SignalsOf, paths: list[Path], alter: Callable[[Image.Image], Image.Image]
) -> Float64Array:
    return np.stack([signals_of(alter(image)) for image in _pictures(paths)])


def _pictures(paths: list[Path]) -> Iterator[Image.Image]:
    reader = Reader()
    for path in paths:
        with path.open("rb") as file:
            yield reader.read(file)


def _model(name: str) -> tuple[Manifest, SignalsOf]:
    repository = (
        small.REPOSITORY if (small.REPOSITORY / name).exists() else ROOT / "model_repository"
    )
    version = repository / name / "1"
    manifest = Manifest.read((version / "manifest.json").read_text(encoding="utf-8"))
    signals = Signals(manifest)
    session = ort.InferenceSession(version / "explain.onnx", providers=["CPUExecutionProvider"])

    def signals_of(image: Image.Image) -> Float64Array:
        pixels = preprocess(image, manifest.preprocessing)[None]
        outputs = session.run(signals.outputs, {"images": pixels})
        named = {key: one[0] for key, one in zip(signals.outputs, outputs, strict=True)}
        return signals.read(named).astype(np.float64)

    return manifest, signals_of
