"""`python -m export CHECKPOINT --name NAME`: a trained checkpoint to a served model.

`python -m export inspect CHECKPOINT` says what was recognised, and writes nothing;
`report` and `reuse` measure attention, and what sharing it would do.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir
import onnxruntime
from torch import Tensor

from export import quantize, repository, to_onnx, tracing
from export.comparison import batches, compare, in_words
from export.fold import FoldedDeepViT, fold_mixing
from export.graphs import Classifier, Explainer
from export.half import half
from export.options import IMAGENET_1K, export_parser, overrides
from export.pictures import Pictures
from export.reuse.donor import Choice, choose
from export.reuse.sharing import shared, write_classifier
from export.verify import VerificationError, verify, verify_int8
from models import checkpoint, manifest
from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.preprocess import Preprocessing, preprocess

# First arguments that mean something else than a checkpoint, and who takes the others.
_COMMANDS = {
    "inspect": "export.describe",
    "report": "export.report.command",
    "reuse": "export.reuse.curve",
}
_MAX_EXPLAIN_BYTES = 256 * 2**20  # of attention maps in one explain batch
_MAX_EXPLAIN_BATCH = 8
# Evenly spread over those given: enough for a verdict, and for the ranges of int8.
_JUDGED_IMAGES = 1000
_CALIBRATION_IMAGES = 512
_CALIBRATION_BATCH = 8


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 with one line that says what to do."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in _COMMANDS:
        command = import_module(_COMMANDS[arguments[0]])
        return int(command.main(arguments[1:]))
    try:
        written = export(export_parser(_COMMANDS).parse_args(arguments))
    except (checkpoint.CheckpointError, VerificationError, OSError, ValueError) as exc:
        print(f"export: {exc}", file=sys.stderr)
        return 1
    print(written)
    return 0


def export(options: argparse.Namespace) -> Path:
    """Read, fold, trace, verify and publish; the folder that was written."""
    say = _Progress()
    asked = {
        "--precision int8": options.precision == "int8",
        "--reuse-attention": options.reuse_attention is not None,
    }
    for option, wanted in asked.items():
        if wanted and options.images is None:
            raise ValueError(f"{option} needs --images: a folder to measure on")
    say(f"read {options.checkpoint}")
    source = checkpoint.load(options.checkpoint, options.arch, **overrides(options))
    for note in source.notes:
        say.detail(note)
    labels = _labels(options.labels, source)
    trained, choice = source, None
    if options.reuse_attention is not None:
        say(f"judge attention over {options.images}")
        choice = _choice(options, trained, say)
        source = shared(trained, choice.donor)
        say.detail(f"blocks after block {choice.donor} share its softmax map")
    network = source.network()
    say("fold norms and scales")
    folded = FoldedDeepViT(network, source.preprocessing).eval()
    explainer = Explainer(folded)
    size = source.config.img_size
    say("trace the classifier")
    classifier_graph = to_onnx.trace(Classifier(folded), size, ["logits"])
    say(f"trace the explainer, {len(explainer.outputs)} outputs")
    names = [output.name for output in explainer.outputs]
    explainer_graph = to_onnx.trace(explainer, size, names)
    record = manifest.Manifest(
        name=options.name,
        version=repository.next_version(options.output, options.name),
        exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=source.config,
        preprocessing=source.preprocessing,
        labels=labels,
        max_batch_size=options.max_batch_size,
        max_explain_batch_size=_explain_batch(source.config, options.max_batch_size),
        reattention=_mixings(network),
        outputs=explainer.outputs,
        checkpoint=manifest.Checkpoint(
            file=options.checkpoint.name,
            sha256=source.sha256,
            format=source.format,
            arch=source.arch,
            notes=source.notes,
        ),
        versions=manifest.Versions(
            torch=version("torch"),
            onnx=version("onnx"),
            onnxruntime=onnxruntime.__version__,
            opset=tracing.OPSET,
        ),
        parity=(),
    )
    with repository.staging(options.output) as folder:
        graphs = {folder / "model.onnx": classifier_graph, folder / "explain.onnx": explainer_graph}
        if options.precision == "fp16":
            graphs[folder / "model.fp16.onnx"] = half(classifier_graph)
        if options.precision == "int8":
            say(f"scale int8 to {options.images}")
            graphs[folder / "model.int8.onnx"] = _quantized(
                classifier_graph, options, source.preprocessing
            )
        to_onnx.save_weights(graphs.values(), folder)
        for path, graph in graphs.items():
            to_onnx.save_graph(graph, path)
        say("verify against PyTorch")
        parity = verify(folder, network, record, progress=say.detail)
        record = record.model_copy(update={"parity": parity})
        if choice is not None:
            say("compare with the classifier without attention reuse")
            reuse = _reuse(choice, trained, folder / "model.onnx", _pictures(options), labels)
            say.detail(in_words(reuse.comparison))
            record = record.model_copy(update={"attention_reuse": reuse})
        if options.precision == "int8":
            say("compare int8 with the exact classifier")
            rounded = {"int8": folder / "model.int8.onnx"}
            int8 = compare(
                folder / "model.onnx",
                rounded,
                _pictures(options),
                source.preprocessing,
                labels,
                say.detail,
            )["int8"]
            say.detail(in_words(int8))
            if not options.force:
                verify_int8(int8)
            record = record.model_copy(update={"int8": int8})
        for path, graph in graphs.items():
            to_onnx.save_graph(graph, path, {manifest.METADATA_KEY: record.model_dump_json()})
        written = repository.publish(folder, options.output, record)
    worst: dict[str, float] = {}
    for row in record.parity:
        if row.output == "logits":
            worst[row.graph] = max(row.max_abs_difference, worst.get(row.graph, 0))
    for name, difference in worst.items():
        say(f"{name}.onnx: logits within {difference:.1e} of PyTorch")
    return written


def _quantized(graph: ir.Model, options: argparse.Namespace, rule: Preprocessing) -> ir.Model:
    images = (
        np.stack([preprocess(picture.image, rule) for picture in batch])
        for batch in batches(_pictures(options, _CALIBRATION_IMAGES), _CALIBRATION_BATCH)
    )
    return quantize.quantize(graph, quantize.calibrate(graph, images))


def _pictures(options: argparse.Namespace, at_most: int | None = None) -> Pictures:
    return Pictures(options.images, min(filter(None, (options.limit, at_most)), default=None))


def _choice(
    options: argparse.Namespace, trained: checkpoint.Checkpoint, say: "_Progress"
) -> Choice:
    wanted = None if options.reuse_attention == "auto" else options.reuse_attention
    pictures = _pictures(options, _JUDGED_IMAGES)
    return choose(trained, wanted, pictures, options.force, say.detail)


def _reuse(
    choice: Choice,
    trained: checkpoint.Checkpoint,
    classifier: Path,
    pictures: Pictures,
    labels: Sequence[str],
) -> manifest.AttentionReuse:
    """What sharing the donor's map cost and saved."""
    with TemporaryDirectory() as folder:
        exact = write_classifier(trained, Path(folder, "exact"))
        cheaper = {"reuse": classifier}
        comparison = compare(exact, cheaper, pictures, trained.preprocessing, labels)["reuse"]
    return manifest.AttentionReuse(
        verdict=" ".join(choice.verdict.sentences), forced=choice.forced, comparison=comparison
    )


def _labels(given: str | None, source: checkpoint.Checkpoint) -> tuple[str, ...]:
    """From a file, built in, from the checkpoint, or numbered."""
    classes = source.config.num_classes
    if given is None:
        return source.labels or tuple(f"class {index}" for index in range(classes))
    if given == IMAGENET_1K:
        labels = checkpoint.imagenet_1k()
    else:
        labels = tuple(Path(given).read_text(encoding="utf-8").splitlines())
    if len(labels) != classes:
        raise ValueError(f"{given} names {len(labels)} classes, the checkpoint has {classes}")
    return labels


def _explain_batch(config: DeepViTConfig, max_batch_size: int) -> int:
    maps = int(4 * config.depth * config.num_heads * config.num_tokens**2)
    return max(1, min(max_batch_size, _MAX_EXPLAIN_BATCH, _MAX_EXPLAIN_BYTES // maps))


def _mixings(network: DeepViT) -> tuple[manifest.ReAttention, ...]:
    tokens = network.config.num_tokens
    folded = {block: fold_mixing(network, block) for block in network.config.reatten_blocks}
    return tuple(
        manifest.ReAttention(
            block=block,
            theta=_rows(mixing.theta),
            matrix=_rows(mixing.matrix),
            offset=tuple(mixing.offset.tolist()),
            gain=_row(mixing.gain),
            row_sum=_row(mixing.row_sum(tokens)),
        )
        for block, mixing in folded.items()
    )


def _row(vector: Tensor | None) -> tuple[float, ...] | None:
    return None if vector is None else tuple(vector.tolist())


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))


class _Progress:
    """Steps with the seconds since the start, on standard error."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def __call__(self, step: str) -> None:
        print(f"[{time.perf_counter() - self._start:5.1f} s] {step}", file=sys.stderr, flush=True)

    def detail(self, text: str) -> None:
        print(f"          {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
