"""One exported model: its classifier, its explainers, warm-up.

`classify` and `explain` each belong to as many threads, their batcher's, as the plan has instances.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort

from models.arrays import Float32Array, Pixels
from models.manifest import METADATA_KEY, Manifest, Output
from service.errors import InferenceFailed, StartupError
from service.inference.graph_batches import Buckets
from service.inference.plan import Plan, fastest
from service.inference.sessions import EngineOptions, Sessions

_MAX_EXPLAIN_SESSIONS = 8  # each keeps the weights, packed its own way


class Engine:
    """Runs the two graphs of one version of a model.

    The explain graph is cut down to what is asked for, one session for each kind of
    question, so that a measure nobody asked for is never computed.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._folder = folder
        self._options = options
        self._sessions = Sessions(folder, options)
        self._classifier = self._sessions.first
        self.manifest = self._embedded_manifest()
        self.plan = Plan(1, options.intra_op_threads, self.max_batch_size)
        self._buckets = self._captured() if self._sessions.cuda_graphs else None
        self._kinds = {output.name: _kind(output) for output in self.manifest.outputs}
        self._explainers: OrderedDict[frozenset[str], ort.InferenceSession] = OrderedDict()
        self._opening = Lock()  # of explainers

    @property
    def provider(self) -> str:
        """Where the model really runs: cpu, cuda or tensorrt."""
        return self._sessions.provider

    @property
    def precision(self) -> str:
        return self._sessions.precision

    @property
    def attention(self) -> str:
        """Fused by its compiled kernel, or plain, as the graph spells it out for any runtime."""
        return self._sessions.attention

    @property
    def max_batch_size(self) -> int:
        return min(self._options.max_batch_size, self.manifest.max_batch_size)

    @property
    def max_explain_batch_size(self) -> int:
        """Of each instance: together they need the memory that one would."""
        most = min(self._options.max_batch_size, self.manifest.max_explain_batch_size)
        return max(1, most // self.plan.instances)

    def warm_up(self) -> None:
        """Plan, then run the largest batch and one image: no request meets a new shape first."""
        self._take_fastest_way()
        size = self.manifest.preprocessing.size
        sizes = self._buckets.sizes if self._buckets else (1, self.plan.batch)
        for batch in reversed(sizes):
            self.classify([np.zeros((size, size, 3), np.uint8)] * batch)

    def classify(self, images: Sequence[Pixels]) -> Sequence[Float32Array]:
        """Inputs [S, S, 3] to logits [classes], one for each image."""
        if self._buckets:
            return list(self._buckets.run(images))
        return list(_logits(self._classifier, np.stack(images)))

    def explain(
        self, images: Sequence[Pixels], names: Sequence[str]
    ) -> list[dict[str, Float32Array]]:
        """Inputs [S, S, 3] to the named outputs of the explain graph, one dict for each image."""
        session = self._explainer(names)
        values = session.run(list(names), {"images": np.stack(images)})
        return [
            {name: value[index] for name, value in zip(names, values, strict=True)}
            for index in range(len(images))
        ]

    def _take_fastest_way(self) -> None:
        """Find out by trying how many images are run at once, on how many threads."""
        threads, size = self._options.intra_op_threads, self.manifest.preprocessing.size
        if self.provider != "cpu" or threads == 1:
            return
        alone = self._sessions.classifier(threads=1)
        run_whole, run_alone = partial(_logits, self._classifier), partial(_logits, alone)
        self.plan = fastest(run_whole, run_alone, threads, (size, size, 3), self.max_batch_size)
        if self.plan.threads == 1:
            self._classifier = alone

    def _explainer(self, names: Sequence[str]) -> ort.InferenceSession:
        if unknown := set(names) - self._kinds.keys():
            raise InferenceFailed(f"the model has no output {', '.join(sorted(unknown))}")
        # Logits cost next to nothing: in every session, they make no other one necessary.
        kinds = frozenset(self._kinds[name] for name in names) | {"logits"}
        with self._opening:
            if kinds not in self._explainers:
                wanted = [name for name, kind in self._kinds.items() if kind in kinds]
                self._explainers[kinds] = self._sessions.explainer(wanted, self.plan.threads)
            self._explainers.move_to_end(kinds)
            while len(self._explainers) > _MAX_EXPLAIN_SESSIONS:
                self._explainers.popitem(last=False)
            return self._explainers[kinds]

    def _captured(self) -> Buckets:
        size, classes = self.manifest.preprocessing.size, len(self.manifest.labels)
        return Buckets(self._classifier, self.max_batch_size, (size, size, 3), classes, "cuda")

    def _embedded_manifest(self) -> Manifest:
        """The manifest in the graph, which must be the one beside it."""
        embedded = self._classifier.get_modelmeta().custom_metadata_map.get(METADATA_KEY, "null")
        try:
            beside = json.loads((self._folder / "manifest.json").read_text())
            if json.loads(embedded) != beside:
                raise StartupError(f"{self._folder}: manifest.json is not that of model.onnx")
            return Manifest.model_validate(beside)
        except (OSError, ValueError) as exc:
            raise StartupError(f"{self._folder} has no readable manifest: {exc}") from exc


def _logits(session: ort.InferenceSession, images: Pixels) -> Float32Array:
    logits: Float32Array = session.run(["logits"], {"images": images})[0]
    return logits


def _kind(output: Output) -> str:
    """Outputs of a kind are computed together: all maps, or most measures of a stage."""
    if output.stage is None or output.measure in ("map", "class_rows", "rollout"):
        return output.measure
    return f"measures of {output.stage}"
