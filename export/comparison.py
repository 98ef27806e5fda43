"""Cheaper classifiers against the exact one: what they cost in answers, and save in time.

Knows files of graphs and pictures, not how a classifier was made cheaper.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from export.pictures import Pictures
from export.progress import Throttle
from export.sessions import cpu_session
from models.arrays import Pixels
from models.config import Scores
from models.manifest import Comparison, Speed
from models.preprocess import Preprocessing

_BATCH = 8  # timings are at batches of 1 and of this
_ROUNDS = 15
_PROGRESS_S = 5.0


def compare(
    exact: Path,
    cheaper: Mapping[str, Path],
    pictures: Pictures,
    rule: Preprocessing,
    labels: Sequence[str],
    scores: Scores,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Comparison]:
    """Compare each of the cheaper classifiers, by name, in one pass over the pictures.

    Classifiers agree on a picture if their top classes are the same or, where they have one logit,
    both are above 0 or neither is. Accuracy is known if exactly one class is right (softmax) and
    every picture lies in a folder that stands for a class. Such folders are named like the labels,
    or there are as many as classes, in the classes' order (as torchvision's ImageFolder counts
    them).
    Raises `FileNotFoundError` if there is no picture.
    """
    sessions = {name: cpu_session(path) for name, path in cheaper.items()}
    before = cpu_session(exact)
    contenders = [(None, before), *sessions.items()]
    agreed: Counter[str | None] = Counter()
    right: Counter[str | None] = Counter()
    classes = _classes(pictures.folder, labels) if scores == "softmax" else {}
    labelled = 0
    tell = Throttle(progress, _PROGRESS_S)
    for batch, images in pictures.batches(_BATCH, rule):
        truth = np.array([classes.get(picture.path.parts[0], -1) for picture in batch])
        labelled += int((truth >= 0).sum())
        answers = {name: _best(session, images) for name, session in contenders}
        for name, answer in answers.items():
            agreed[name] += int((answer == answers[None]).sum())
            right[name] += int((answer == truth).sum())
        tell(pictures.progress)
    read, has_labels = pictures.read, labelled == pictures.read
    return {
        name: Comparison(
            images=read,
            agreement=agreed[name] / read,
            accuracy=right[name] / read if has_labels else None,
            exact_accuracy=right[None] / read if has_labels else None,
            speed=tuple(_speeds(before, session, images)),
        )
        for name, session in sessions.items()
    }


def in_words(found: Comparison) -> str:
    """One line: equal answers, accuracy where it is known, and time."""
    parts = [f"{found.agreement:.2%} of {found.images:,} answers as before"]
    if found.accuracy is not None and found.exact_accuracy is not None:
        parts.append(f"accuracy {found.accuracy:.2%}, before {found.exact_accuracy:.2%}")
    parts += [
        f"{speed.ms:.3g} ms for a batch of {speed.batch}, before {speed.exact_ms:.3g} "
        f"({speed.exact_ms / speed.ms:.2f}x)"
        for speed in found.speed
    ]
    return "; ".join(parts)


def _classes(folder: Path, labels: Sequence[str]) -> dict[str, int]:
    """The class that each folder stands for, by its name; empty if they stand for none."""
    names = sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
    index = {label: number for number, label in enumerate(labels)}
    if index.keys() >= {*names}:
        return {name: index[name] for name in names}
    if len(names) == len(labels):
        return {name: number for number, name in enumerate(names)}
    return {}


def _best(session: ort.InferenceSession, images: Pixels) -> npt.NDArray[np.int64]:
    """The top class of each image, or for one logit whether it is above 0."""
    logits = session.run(["logits"], {"images": images})[0]
    best: npt.NDArray[np.int64] = logits.argmax(axis=-1)
    return best if logits.shape[-1] > 1 else (logits[:, 0] > 0).astype(np.int64)


def _speeds(
    exact: ort.InferenceSession, cheaper: ort.InferenceSession, images: Pixels
) -> Iterator[Speed]:
    """Median times of both, taken in turns, so that a busy moment slows down both."""
    for batch in (1, _BATCH):
        repeated = np.resize(images, (batch, *images.shape[1:]))
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(_ROUNDS + 1):
            for session, taken in zip((exact, cheaper), seconds, strict=True):
                started = time.perf_counter()
                _best(session, repeated)
                if turn:  # the first one warms up
                    taken.append(time.perf_counter() - started)
        exact_s, cheaper_s = map(statistics.median, seconds)
        yield Speed(batch=batch, ms=1e3 * cheaper_s, exact_ms=1e3 * exact_s)
