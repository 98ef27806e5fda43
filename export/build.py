"""The graphs of a model: the classifier, the explainer, and a cheaper classifier if asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from export import quantize, to_onnx
from export.fold import FoldedDeepViT
from export.graphs import Classifier, Explainer
from export.half import half
from export.pictures import Pictures
from models.checkpoint import Checkpoint
from models.deepvit import DeepViT
from models.manifest import METADATA_KEY, Manifest, Output

Precision = Literal["fp32", "fp16", "int8"]

_CALIBRATION_BATCH = 8


@dataclass(frozen=True)
class Build:
    network: DeepViT  # as trained, what the graphs are verified against
    outputs: tuple[Output, ...]  # of the explain graph
    graphs: dict[str, ir.Model]  # by file name

    def save(self, folder: Path) -> None:
        """Write the graphs and the file of weights that they share."""
        to_onnx.save_weights(self.graphs.values(), folder)
        for name, graph in self.graphs.items():
            to_onnx.save_graph(graph, folder / name)

    def embed(self, folder: Path, record: Manifest) -> None:
        """Write the graphs again, with the manifest in their metadata."""
        metadata = {METADATA_KEY: record.model_dump_json()}
        for name, graph in self.graphs.items():
            to_onnx.save_graph(graph, folder / name, metadata)


def build(
    source: Checkpoint,
    precision: Precision,
    calibration: Pictures | None,
    say: Callable[[str], None],
) -> Build:
    """Fold and trace. int8 takes its ranges from the `calibration` pictures."""
    say("fold norms and scales into the weights")
    network = source.network()
    folded = FoldedDeepViT(network, source.preprocessing).eval()
    say("trace the classifier")
    classifier = trace_classifier(folded)
    explainer = Explainer(folded)
    say(f"trace the explainer, {len(explainer.outputs)} outputs")
    names = [output.name for output in explainer.outputs]
    graphs = {
        "model.onnx": classifier,
        "explain.onnx": to_onnx.trace(explainer, source.config.img_size, names),
    }
    if precision == "fp16":
        graphs["model.fp16.onnx"] = half(classifier)
    if precision == "int8":
        assert calibration is not None
        say(f"find the ranges of int8 over {calibration.chosen:,} images")
        batches = calibration.batches(_CALIBRATION_BATCH, source.preprocessing)
        ranges = quantize.calibrate(classifier, (batch.pixels for batch in batches))
        graphs["model.int8.onnx"] = quantize.quantize(classifier, ranges)
    return Build(network, explainer.outputs, graphs)


def trace_classifier(folded: FoldedDeepViT) -> ir.Model:
    return to_onnx.trace(Classifier(folded), folded.config.img_size, ["logits"])
