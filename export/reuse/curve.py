"""`python -m export reuse CHECKPOINT --images FOLDER`: what each donor costs and saves."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib
from matplotlib.figure import Figure

from export.comparison import compare, in_words
from export.options import overrides, reuse_parser
from export.pictures import Pictures
from export.progress import Progress
from export.reuse.sharing import shared, write_classifier
from models import checkpoint
from models.manifest import Comparison


def main(arguments: list[str]) -> int:
    """Exit status 0, or 1 with one line that says what to do."""
    options = reuse_parser().parse_args(arguments)
    try:
        written = curve(options, Progress())
    except (checkpoint.CheckpointError, OSError, ValueError) as exc:
        print(f"export reuse: {exc}", file=sys.stderr)
        return 1
    print(written)
    return 0


def curve(options: argparse.Namespace, say: Progress) -> Path:
    """Write reuse.json and reuse.png; returns the picture that was written."""
    source = checkpoint.load(options.checkpoint, options.arch, **overrides(options))
    pictures = Pictures(options.images, options.limit)
    donors = options.donors or range(source.config.depth - 1)
    sources = {str(donor): shared(source, donor) for donor in donors}
    options.output.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        exact = write_classifier(source, Path(folder, "exact"))
        cheaper = {}
        for donor, changed in sources.items():
            say(f"trace with block {donor} as donor")
            cheaper[donor] = write_classifier(changed, Path(folder, donor))
        say(f"compare {len(cheaper)} donors over {options.images}")
        rule, labels, scores = source.preprocessing, source.labels or (), source.config.scores
        found = compare(exact, cheaper, pictures, rule, labels, scores, say.detail)
    for donor, comparison in found.items():
        print(f"donor {donor}: {in_words(comparison)}")
    record = {donor: comparison.model_dump() for donor, comparison in found.items()}
    (options.output / "reuse.json").write_text(json.dumps(record, indent=1))
    picture = Path(options.output, "reuse.png")
    draw(found, options.checkpoint.stem, picture)
    return picture


def draw(found: Mapping[str, Comparison], name: str, path: Path) -> None:
    """Accuracy against speed, a point for each donor; agreement where accuracy is not known."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
        axes = figure.subplots()
        known = next(iter(found.values()))
        for style, index in (("o-", 0), ("s--", 1)):
            points = list(_points(found, index))
            batch = known.speed[index].batch
            axes.plot(*zip(*points, strict=True), style, ms=4, label=f"batch of {batch}")
            if index:
                for donor, point in zip(found, points, strict=True):
                    axes.annotate(
                        donor, point, xytext=(5, 3), textcoords="offset points", fontsize=8
                    )
        if known.exact_accuracy is not None:
            axes.axhline(100 * known.exact_accuracy, color="0.5", lw=1, label="without reuse")
            axes.set_ylabel("accuracy, %")
        else:
            axes.set_ylabel("answers as without reuse, %")
        axes.set_xlabel("times as fast as without reuse")
        axes.set_title(f"{name}: attention reuse, by donor; {known.images:,} images", fontsize=9)
        axes.spines["right"].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path)


def _points(found: Mapping[str, Comparison], index: int) -> Iterator[tuple[float, float]]:
    for comparison in found.values():
        speed = comparison.speed[index]
        share = comparison.agreement if comparison.accuracy is None else comparison.accuracy
        yield speed.exact_ms / speed.ms, 100 * share
