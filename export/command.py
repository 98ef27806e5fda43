"""From a checkpoint to a published version: read, build, verify, compare, publish."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from export import reference, repository
from export.build import Build, build
from export.comparison import compare, in_words
from export.options import IMAGENET_1K, export_parser, overrides
from export.pictures import Pictures
from export.progress import Progress
from export.record import record_of
from export.reuse.donor import Choice, choose
from export.reuse.sharing import shared, write_classifier
from export.verify import VerificationError, verify, verify_int8
from models import checkpoint
from models.checkpoint import Checkpoint
from models.manifest import AttentionReuse, Comparison, Manifest
from models.reference import Reference

# How many images are enough, evenly spread over those given.
_JUDGED_IMAGES = 1000  # for a verdict on attention
_CALIBRATION_IMAGES = 512  # for the ranges of int8


def main(arguments: list[str]) -> int:
    options = export_parser().parse_args(arguments)
    try:
        written = export(options, Progress())
    except (checkpoint.CheckpointError, VerificationError, OSError, ValueError) as exc:
        print("export:", " ".join(str(exc).splitlines()), file=sys.stderr)
        return 1
    print(written)
    return 0


def export(options: argparse.Namespace, say: Progress) -> Path:
    """Returns the folder that was written."""
    _check_images(options)
    trained = _read(options, say)
    labels = _labels(options.labels, trained)
    choice = _choose_donor(options, trained, say)
    source = trained if choice is None else shared(trained, choice.donor)
    calibration = _pictures(options, _CALIBRATION_IMAGES) if options.precision == "int8" else None
    built = build(source, options.precision, calibration, say)
    record = record_of(
        built,
        source,
        name=options.name,
        version=repository.next_version(options.output, options.name),
        file=options.checkpoint.name,
        labels=labels,
        max_batch_size=options.max_batch_size,
    )
    with repository.staging(options.output) as folder:
        built.save(folder)
        record = _verify(folder, built, record, say)
        if choice is not None:
            reuse = _compare_reuse(options, folder, trained, choice, labels, say)
            record = record.model_copy(update={"attention_reuse": reuse})
        if options.precision == "int8":
            int8 = _compare_int8(options, folder, source, labels, say)
            record = record.model_copy(update={"int8": int8})
        if options.reference is not None:
            normal = _reference(options.reference, folder, record, say)
            record = record.model_copy(update={"reference": normal})
        built.embed(folder, record)
        return repository.publish(folder, options.output, record)


def _check_images(options: argparse.Namespace) -> None:
    needs_images = {
        "--precision int8": options.precision == "int8",
        "--reuse-attention": options.reuse_attention is not None,
    }
    for option, wanted in needs_images.items():
        if wanted and options.images is None:
            raise ValueError(f"{option} needs --images: a folder to measure on")


def _read(options: argparse.Namespace, say: Progress) -> Checkpoint:
    say(f"read {options.checkpoint}")
    source = checkpoint.load(options.checkpoint, options.arch, **overrides(options))
    for note in source.notes:
        say.detail(note)
    return source


def _labels(given: str | None, source: Checkpoint) -> tuple[str, ...]:
    """From a file, built in, from the checkpoint, or numbered."""
    classes = source.config.num_classes
    if given is None:
        labels = source.labels or tuple(f"class {index}" for index in range(classes))
    else:
        labels = checkpoint.imagenet_1k() if given == IMAGENET_1K else _lines(Path(given))
    if len(labels) != classes:
        raise ValueError(f"{given} names {len(labels)} classes, the checkpoint has {classes}")
    for label in labels:
        if "\n" in label or "\r" in label or not _is_unicode(label):
            raise ValueError(f"the label {label!r} is not one line of text: give others (--labels)")
    return labels


def _lines(path: Path) -> tuple[str, ...]:
    """The lines of a text file in UTF-8, with or without a byte order mark. Raises `ValueError`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as exc:
        raise ValueError(f"{path} is not text in UTF-8: save it in that encoding") from exc
    return tuple(text.removesuffix("\n").split("\n")) if text else ()  # labels may have U+2028


def _is_unicode(text: str) -> bool:
    """Not so half of a surrogate pair, which JSON can spell and no encoding can hold."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


def _choose_donor(options: argparse.Namespace, trained: Checkpoint, say: Progress) -> Choice | None:
    """The block whose map later blocks share, or None without attention reuse."""
    if options.reuse_attention is None:
        return None
    say(f"measure attention over {options.images}")
    wanted = None if options.reuse_attention == "auto" else options.reuse_attention
    pictures = _pictures(options, _JUDGED_IMAGES)
    choice = choose(trained, wanted, pictures, options.force, say.detail)
    say.detail(f"blocks after block {choice.donor} share its softmax map")
    return choice


def _verify(folder: Path, built: Build, record: Manifest, say: Progress) -> Manifest:
    """The record with the differences from PyTorch, which are within tolerance."""
    say("verify the graphs against PyTorch")
    found = verify(folder, built.network, record, say.detail)
    worst: dict[str, float] = {}
    for row in found.parity:
        if row.output == "logits":
            worst[row.graph] = max(row.max_abs_difference, worst.get(row.graph, 0))
    for name, difference in worst.items():
        say.detail(f"{name}.onnx: logits within {difference:.1e} of PyTorch")
    for one in found.undefined:
        say.detail(
            f"{one.stage} {one.measure} is rounding noise in blocks "
            f"{', '.join(map(str, one.blocks))}, whose maps are near-uniform: not defined there"
        )
    return record.model_copy(update={"parity": found.parity, "undefined": found.undefined})


def _compare_reuse(
    options: argparse.Namespace,
    folder: Path,
    trained: Checkpoint,
    choice: Choice,
    labels: Sequence[str],
    say: Progress,
) -> AttentionReuse:
    """What sharing the donor's map costs in answers and saves in time."""
    say("compare with the classifier without attention reuse")
    cheaper = {"reuse": folder / "model.onnx"}
    pictures, rule = _pictures(options), trained.preprocessing
    with TemporaryDirectory() as scratch:
        exact = write_classifier(trained, Path(scratch, "exact"))
        scores = trained.config.scores
        comparison = compare(exact, cheaper, pictures, rule, labels, scores, say.detail)["reuse"]
    say.detail(in_words(comparison))
    return AttentionReuse(
        verdict=" ".join(choice.verdict.sentences), forced=choice.forced, comparison=comparison
    )


def _compare_int8(
    options: argparse.Namespace,
    folder: Path,
    source: Checkpoint,
    labels: Sequence[str],
    say: Progress,
) -> Comparison:
    """What rounding costs in answers and saves in time; refused if it costs too much."""
    say("compare int8 with the exact classifier")
    exact, cheaper = folder / "model.onnx", {"int8": folder / "model.int8.onnx"}
    pictures, rule, scores = _pictures(options), source.preprocessing, source.config.scores
    comparison = compare(exact, cheaper, pictures, rule, labels, scores, say.detail)["int8"]
    say.detail(in_words(comparison))
    if not options.force:
        verify_int8(comparison)
    return comparison


def _reference(source: Path, folder: Path, record: Manifest, say: Progress) -> Reference:
    """What is normal of the model, for the monitor."""
    if source.is_file():
        say(f"read what is normal from {source}")
        return reference.read(source, record)
    say(f"measure what is normal over {source}")
    found = reference.measure(folder / "explain.onnx", record, Pictures(source), say.detail)
    say.detail(f"drift beyond {found.threshold:.2f} is an alarm")
    return found


def _pictures(options: argparse.Namespace, at_most: int | None = None) -> Pictures:
    return Pictures(options.images, min(filter(None, (options.limit, at_most)), default=None))
