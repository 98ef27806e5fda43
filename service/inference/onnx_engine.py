"""An engine in this process, on ONNX Runtime: one classifier, and a few explain sessions."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort

from models.arrays import Float32Array, Pixels
from models.manifest import Output
from service.errors import InferenceFailed, StartupError
from service.inference.batch import Batch
from service.inference.graph_batches import GraphBatches
from service.inference.graphs import FEATURES
from service.inference.plan import Plan, fastest
from service.inference.sessions import EngineOptions, Sessions
from service.limits.heap import Heap

_logger = logging.getLogger(__name__)

_MAX_EXPLAIN_SESSIONS = 8  # each keeps its own packed copy of the weights


class OnnxEngine:
    """Runs the two graphs of one version of a model.

    The explain graph is cut down to the outputs that a request names, so that no other measure is
    computed. Each combination of output groups has a session of its own.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        """Raises `StartupError`."""
        self._options = options
        self._sessions = Sessions(folder, options)
        self._classifier = self._sessions.first
        self._classifier_alone: ort.InferenceSession | None = None
        self.manifest = self._sessions.manifest
        self._image_shape = (*self.manifest.preprocessing.size, 3)
        self.plan = Plan(1, options.intra_op_threads, self.max_batch_size)
        self._graph_batches = self._make_graph_batches() if self._sessions.cuda_graphs else None
        self._groups = {output.name: _group(output) for output in self.manifest.outputs}
        if self._sessions.has_features:
            self._groups[FEATURES] = FEATURES
        self._explainers: OrderedDict[frozenset[str], _Explainer] = OrderedDict()
        self._explainers_lock = Lock()
        self._attention = "fused" if self._sessions.execution.kernels else "plain"

    @property
    def provider(self) -> str:
        return self._sessions.execution.provider

    @property
    def precision(self) -> str:
        return self._sessions.execution.precision

    @property
    def attention(self) -> str:
        return self._attention

    @property
    def max_batch_size(self) -> int:
        return min(self._options.max_batch_size, self.manifest.max_batch_size)

    @property
    def max_explain_batch_size(self) -> int:
        """Instances share the memory that the manifest grants, so each takes smaller batches."""
        limit = min(self._options.max_batch_size, self.manifest.max_explain_batch_size)
        return max(1, limit // self.plan.explain_instances)

    def warm_up(self) -> None:
        """Plan, then run the largest batch and one image: no request meets a new shape first."""
        self._choose_plan()
        fused = self._sessions.fuses_attention(self._run_each_size)
        if self._attention == "fused" and not fused:
            self._attention = "plain"
            reason = f"no operator of {self.manifest.name} has run on the kernels"
            if self._options.attention == "fused":
                raise StartupError(f"fused attention was asked for, but {reason}")
            _logger.info("attention is not fused: %s", reason)
        self._try_explaining()

    def _try_explaining(self) -> None:
        """Run the explain graph once for a map and the logits, and close the session again."""
        first = next(one.name for one in self.manifest.outputs if one.measure == "map")
        session = self._sessions.explainer(["logits", first], self.plan.explain_threads)
        session.run(None, {"images": np.zeros((1, *self._image_shape), np.uint8)})
        del session
        Heap().trim()

    def _run_each_size(self) -> None:
        sizes = self._graph_batches.sizes if self._graph_batches else (1, self.plan.batch)
        for batch in reversed(sizes):
            self.classify([np.zeros(self._image_shape, np.uint8)] * batch)

    def opening(self, names: Sequence[str]) -> Callable[[], object] | None:
        explainer = self._explainer(names)
        return None if explainer.is_open else explainer.session

    def classify(self, images: Sequence[Pixels]) -> Sequence[Float32Array]:
        if self._graph_batches:
            return list(self._graph_batches.run(images))
        alone = not isinstance(images, Batch) or images.alone
        session = (alone and self._classifier_alone) or self._classifier
        return list(_logits(session, np.stack(images)))

    def explain(
        self, images: Sequence[Pixels], names: Sequence[str]
    ) -> list[dict[str, Float32Array]]:
        session = self._explainer(names).session()
        values = session.run(list(names), {"images": np.stack(images)})
        return [
            {name: value[index] for name, value in zip(names, values, strict=True)}
            for index in range(len(images))
        ]

    def _choose_plan(self) -> None:
        """Find out by trying how many batches to run at once, on how many threads each."""
        threads = self._options.intra_op_threads
        if self.provider != "cpu" or threads == 1:
            return
        single = self._sessions.classifier(threads=1)
        run_threaded, run_single = partial(_logits, self._classifier), partial(_logits, single)
        self.plan = fastest(
            run_threaded, run_single, threads, self._image_shape, self.max_batch_size
        )
        if self.plan.threads == 1:
            self._classifier_alone = self._classifier if self.plan.alone else None
            self._classifier = single

    def _explainer(self, names: Sequence[str]) -> "_Explainer":
        if unknown := set(names) - self._groups.keys():
            raise InferenceFailed(f"the model has no output {', '.join(sorted(unknown))}")
        # Logits cost next to nothing: as part of every session, they never need another one.
        groups = frozenset(self._groups[name] for name in names) | {"logits"}
        with self._explainers_lock:
            if groups not in self._explainers:
                outputs = [name for name, group in self._groups.items() if group in groups]
                self._explainers[groups] = _Explainer(
                    partial(self._sessions.explainer, outputs, self.plan.explain_threads)
                )
            self._explainers.move_to_end(groups)
            while len(self._explainers) > _MAX_EXPLAIN_SESSIONS:
                self._explainers.popitem(last=False)
            return self._explainers[groups]

    def _make_graph_batches(self) -> GraphBatches:
        return GraphBatches(
            self._classifier,
            self.max_batch_size,
            self._image_shape,
            classes=len(self.manifest.labels),
            device="cuda",
        )


class _Explainer:
    """A session that is opened when it is first needed, while others are used."""

    def __init__(self, open_session: Callable[[], ort.InferenceSession]) -> None:
        self._open = open_session
        self._lock = Lock()
        self._session: ort.InferenceSession | None = None

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def session(self) -> ort.InferenceSession:
        with self._lock:
            if self._session is None:
                self._session = self._open()
            return self._session


def _logits(session: ort.InferenceSession, images: Pixels) -> Float32Array:
    logits: Float32Array = session.run(["logits"], {"images": images})[0]
    return logits


def _group(output: Output) -> str:
    """Outputs of a group are computed together: all maps, or most measures of a stage."""
    if output.stage is None or output.measure in ("map", "class_rows", "rollout"):
        return output.measure
    return f"measures of {output.stage}"
