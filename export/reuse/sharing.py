"""A network whose later blocks share one map, and its classifier alone, for comparisons."""

from dataclasses import replace
from pathlib import Path

from export import to_onnx
from export.build import trace_classifier
from export.fold import FoldedDeepViT
from models.checkpoint import Checkpoint


def shared(source: Checkpoint, donor: int) -> Checkpoint:
    """The same weights with the softmax map of block `donor` in all blocks after it.

    Raises `ValueError` if none comes after it.
    """
    last = source.config.depth - 2
    if donor > last:
        raise ValueError(f"no block comes after block {donor}: donors are 0 to {last}")
    return replace(source, config=source.config.model_copy(update={"attention_donor": donor}))


def write_classifier(source: Checkpoint, folder: Path) -> Path:
    """Write nothing but the classifier, to a new folder; returns the graph's path."""
    folder.mkdir()
    folded = FoldedDeepViT(source.network(), source.preprocessing).eval()
    graph = trace_classifier(folded)
    to_onnx.save_weights([graph], folder)
    to_onnx.save_graph(graph, folder / "model.onnx")
    return folder / "model.onnx"
