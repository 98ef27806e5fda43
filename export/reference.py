"""What is normal of a model: its signals over a folder of ordinary images, or read from a file."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from export.pictures import Pictures
from export.progress import Throttle
from export.sessions import cpu_session
from models.arrays import Float64Array
from models.drift import LEAST_IMAGES
from models.manifest import Manifest
from models.reference import Reference
from models.signals import Signals

_PROGRESS_S = 10


def read(path: Path, manifest: Manifest) -> Reference:
    """A reference that was measured before, of the same model. Raises `ValueError`."""
    try:
        found = Reference.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise ValueError(f"{path} is not a reference: {exc.errors()[0]['msg']}") from exc
    unknown = np.isnan(found.moments(Signals(manifest).names).mean)
    if unknown.any() or len(found.class_shares) != len(manifest.labels):
        raise ValueError(f"{path} is the reference of another model: measure it anew, on a folder")
    return found


def measure(
    graph: Path, manifest: Manifest, pictures: Pictures, say: Callable[[str], None]
) -> Reference:
    """Run the explain graph over all pictures. Raises `ValueError` for too few of them."""
    if pictures.chosen < LEAST_IMAGES:
        raise ValueError(
            f"--reference needs at least {LEAST_IMAGES} images, and {pictures.folder} has "
            f"{pictures.chosen}"
        )
    signals = Signals(manifest)
    classes = np.zeros(len(manifest.labels))
    progress = Throttle(say, _PROGRESS_S)
    found = []
    for of_image, answer in values(graph, manifest, signals, pictures):
        found.append(of_image)
        classes[answer] += 1
        progress(pictures.progress)
    say(f"{pictures.progress}, {pictures.unreadable} unreadable files")
    if len(found) < LEAST_IMAGES:
        raise ValueError(f"--reference needs at least {LEAST_IMAGES} images that can be read")
    return Reference.of(signals.names, np.stack(found), classes)


def values(
    graph: Path, manifest: Manifest, signals: Signals, pictures: Pictures
) -> Iterator[tuple[Float64Array, int]]:
    """Of each picture, its signals [S] and the index of the class that is answered."""
    session = cpu_session(graph)
    batches = pictures.batches(manifest.max_explain_batch_size, manifest.preprocessing)
    for batch in batches:
        outputs = session.run(signals.outputs, {"images": batch.pixels})
        for of_image in zip(*outputs, strict=True):
            named = dict(zip(signals.outputs, of_image, strict=True))
            yield signals.read(named).astype(np.float64), int(named["logits"].argmax())
