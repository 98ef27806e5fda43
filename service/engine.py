"""One exported model in ONNX Runtime: sessions, providers, warm-up.

Not thread-safe on purpose: `classify` and `explain` each belong to one thread, their batcher's.
"""

import json
import logging
import mmap
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.manifest import METADATA_KEY, Manifest, Output
from models.preprocess import Pixels
from service import native
from service.buckets import Buckets
from service.errors import InferenceFailed, StartupError
from service.lanes import Lanes, fastest

Array = npt.NDArray[np.float32]

_logger = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_WEIGHTS = "weights.bin"
_MAX_EXPLAIN_SESSIONS = 8  # each keeps the weights, packed its own way

ort.set_default_logger_severity(4)  # its errors are raised too, and told by us
# One arena for all sessions: the explain sessions of a model run one after the other, and what
# one leaves the next one takes. With an arena each, twice the memory would stay with them.
_MEMORY = ort.OrtMemoryInfo(
    "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
)
ort.create_and_register_allocator(_MEMORY, ort.OrtArenaCfg({}))


@dataclass(frozen=True)
class EngineOptions:
    provider: str = "auto"  # or a key of _PROVIDERS, which is then demanded
    precision: str = "auto"  # fp32, fp16, int8, or fp16 where a GPU has it to run
    attention: str = "auto"  # plain, or fused, which is demanded; auto is fused where it can be
    cuda_graphs: bool = False
    intra_op_threads: int = 1
    max_batch_size: int = 32


class Engine:
    """Runs the two graphs of one version of a model.

    The explain graph is cut down to what is asked for, one session for each kind of
    question, so that a measure nobody asked for is never computed.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._folder = folder
        self._options = options
        self._demanded = options.provider != "auto"
        self._providers = _choose_providers(options.provider)
        # Held: sessions for explanations open later, when the folder may have been removed.
        graphs, self._weights = _held(folder)
        self._explain_graph = graphs["explain"]
        self.precision = self._choose_precision(graphs)
        self.attention = self._choose_attention()
        self._classifier = self._open(graphs[self.precision], cuda_graphs=options.cuda_graphs)
        if (self.provider, self.precision, options.precision) == ("cpu", "fp16", "auto"):
            self.precision = "fp32"  # the GPU that fp16 was meant for does not work
            self._classifier = self._open(graphs["fp32"])
        self._graph = graphs[self.precision]
        self.manifest = self._embedded_manifest()
        self._lanes: Lanes | None = None  # how batches run, once that is known
        self._piece = 0  # images in a lane at once
        self._buckets = self._captured() if options.cuda_graphs else None
        self._explainers: OrderedDict[frozenset[str], ort.InferenceSession] = OrderedDict()

    @property
    def provider(self) -> str:
        """Where the model really runs: cpu, cuda or tensorrt."""
        active = self._classifier.get_providers()[0]
        return next(name for name, provider in _PROVIDERS.items() if provider == active)

    @property
    def max_batch_size(self) -> int:
        return min(self._options.max_batch_size, self.manifest.max_batch_size)

    def warm_up(self) -> None:
        """Run the largest batch, then one image, so that no request meets a new shape first."""
        self._take_fastest_way()
        size = self.manifest.preprocessing.size
        sizes = self._buckets.sizes if self._buckets else (1, self.max_batch_size)
        for batch in reversed(sizes):
            self.classify([np.zeros((size, size, 3), np.uint8)] * batch)

    def classify(self, images: Sequence[Pixels]) -> Sequence[Array]:
        """Inputs [S, S, 3] to logits [classes], one for each image."""
        if self._buckets:
            return list(self._buckets.run(np.stack(images)))
        batch = np.stack(images)
        if self._lanes and len(batch) > 1:
            return list(self._lanes.run(batch, self._piece))
        return list(_logits(self._classifier, batch))

    def explain(self, images: Sequence[Pixels], names: Sequence[str]) -> list[dict[str, Array]]:
        """Inputs [S, S, 3] to the named outputs of the explain graph, one dict for each image."""
        session = self._explainer(names)
        values = session.run(list(names), {"images": np.stack(images)})
        return [
            {name: value[index] for name, value in zip(names, values, strict=True)}
            for index in range(len(images))
        ]

    def _take_fastest_way(self) -> None:
        """Find out by trying in what pieces batches are run, and whether in lanes."""
        lanes, size = self._options.intra_op_threads, self.manifest.preprocessing.size
        if self.provider != "cpu" or not 1 < lanes <= self.max_batch_size:
            return
        alone = self._open(self._graph, threads=1)
        run_whole, run_alone = partial(_logits, self._classifier), partial(_logits, alone)
        ways = fastest(run_whole, run_alone, lanes, (size, size, 3), self.max_batch_size)
        if not ways.single_whole:
            self._classifier = alone
        batches = run_alone if ways.lanes > 1 else partial(_logits, self._classifier)
        self._lanes, self._piece = Lanes(batches, ways.lanes), ways.piece

    def _explainer(self, names: Sequence[str]) -> ort.InferenceSession:
        outputs = {output.name: output for output in self.manifest.outputs}
        if unknown := set(names) - outputs.keys():
            raise InferenceFailed(f"the model has no output {', '.join(sorted(unknown))}")
        # Logits cost next to nothing: in every session, they make no other one necessary.
        kinds = frozenset(_kind(outputs[name]) for name in names) | {"logits"}
        if kinds not in self._explainers:
            wanted = [name for name, output in outputs.items() if _kind(output) in kinds]
            self._explainers[kinds] = self._open(_subgraph(self._explain_graph, wanted))
        self._explainers.move_to_end(kinds)
        while len(self._explainers) > _MAX_EXPLAIN_SESSIONS:
            self._explainers.popitem(last=False)
        return self._explainers[kinds]

    def _choose_precision(self, graphs: Mapping[str, bytes]) -> str:
        wanted = self._options.precision
        if wanted == "auto":
            gpu = self._providers[0] != _PROVIDERS["cpu"]
            return "fp16" if gpu and "fp16" in graphs else "fp32"
        if wanted not in graphs:
            raise StartupError(f"{self._folder} has no {wanted}: export with --precision {wanted}")
        return wanted

    def _choose_attention(self) -> str:
        """Fused by its compiled kernel, or plain, as the graph spells it out for any runtime."""
        wanted = self._options.attention
        if wanted == "plain":
            return "plain"
        reason = self._not_fused()
        if reason is None:
            return "fused"
        if wanted == "fused":
            raise StartupError(f"fused attention was asked for, but {reason}")
        _logger.info("attention is not fused: %s", reason)
        return "plain"

    def _not_fused(self) -> str | None:
        """Why attention's kernel cannot be used; None where it can."""
        if self._providers != [_PROVIDERS["cpu"]] or self.precision == "fp16":
            return f"its kernel is none for {self._providers[0]} with {self.precision}"
        try:
            ort.SessionOptions().register_custom_ops_library(str(native.LIBRARY))
        except Exception as exc:  # noqa: BLE001 - ONNX Runtime's errors have no common class
            reason = " ".join(str(exc).split())
            return f"python -m service.native has not made a kernel that loads here: {reason}"
        return None

    def _captured(self) -> Buckets:
        if self.provider != "cuda":
            raise StartupError(f"CUDA graphs were asked for, but the model runs on {self.provider}")
        size, classes = self.manifest.preprocessing.size, len(self.manifest.labels)
        return Buckets(self._classifier, self.max_batch_size, (size, size, 3), classes, "cuda")

    def _open(
        self, graph: bytes, *, threads: int | None = None, cuda_graphs: bool = False
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or self._options.intra_op_threads
        options.inter_op_num_threads = 1
        # Threads that spin between batches would take the processors from image decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        if self.attention == "fused":
            options.register_custom_ops_library(str(native.LIBRARY))
        if (self._folder / _WEIGHTS).exists():
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self._folder)
            )
        else:  # ONNX Runtime copies them first, which takes memory
            options.add_external_initializers_from_files_in_memory(
                [_WEIGHTS], [self._weights], [len(self._weights)]
            )
        try:
            session = ort.InferenceSession(
                graph,
                options,
                providers=self._providers,
                provider_options=[
                    {"enable_cuda_graph": "1"}
                    if cuda_graphs and provider == _PROVIDERS["cuda"]
                    else {}
                    for provider in self._providers
                ],
            )
        except Exception as exc:  # ONNX Runtime's errors have no common class
            reason = " ".join(str(exc).split())
            raise StartupError(f"{self._folder} cannot be loaded: {reason}") from exc
        active = session.get_providers()[0]
        if self._demanded and active != self._providers[0]:
            raise StartupError(
                f"{self._providers[0]} was asked for, but ONNX Runtime fell back to {active}"
            )
        return session

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


def _logits(session: ort.InferenceSession, images: npt.NDArray[np.uint8]) -> Array:
    logits: Array = session.run(["logits"], {"images": images})[0]
    return logits


def _kind(output: Output) -> str:
    """Outputs of a kind are computed together: all maps, or most measures of a stage."""
    if output.stage is None or output.measure in ("map", "class_rows", "rollout"):
        return output.measure
    return f"measures of {output.stage}"


def _choose_providers(name: str) -> list[str]:
    """What a session is asked to try, best first. Raises `StartupError`."""
    available = ort.get_available_providers()
    if _PROVIDERS["cuda"] in available and name != "cpu":
        ort.preload_dlls()  # CUDA and cuDNN as pip installed them, which no loader path names
    if name == "auto":
        chosen = "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    elif _PROVIDERS[name] in available:
        chosen = name
    else:
        raise StartupError(f"provider {name} was asked for, but ONNX Runtime has {available}")
    fallback = [] if chosen == "cpu" else [_PROVIDERS["cpu"]]
    return [_PROVIDERS[chosen], *fallback]


def _held(folder: Path) -> tuple[dict[str, bytes], mmap.mmap]:
    """The graphs, and their weights as mapped into memory. Raises `StartupError`."""
    files = {"fp32": "model.onnx", "explain": "explain.onnx"}
    reduced = {precision: f"model.{precision}.onnx" for precision in ("fp16", "int8")}
    try:
        with (folder / _WEIGHTS).open("rb") as file:
            weights = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        graphs = {
            name: (folder / file).read_bytes()
            for name, file in (files | reduced).items()
            if name not in reduced or (folder / file).exists()
        }
        return graphs, weights
    except (OSError, ValueError) as exc:
        raise StartupError(f"{folder} cannot be read: {exc}") from exc


def _subgraph(graph: bytes, outputs: Sequence[str]) -> bytes:
    """The part of a graph that leads to some of its outputs; weights stay in their file."""
    import onnx  # only explanations need it

    model: onnx.ModelProto = onnx.load_model_from_string(graph)
    whole = model.graph
    needed = set(outputs)
    kept = []
    for node in reversed(whole.node):  # nodes stand in topological order
        if not needed.isdisjoint(node.output):
            kept.append(node)
            needed.update(node.input)
    trimmed = onnx.helper.make_graph(
        list(reversed(kept)),
        whole.name,
        list(whole.input),
        [value for value in whole.output if value.name in outputs],
        [value for value in whole.initializer if value.name in needed],
    )
    model.graph.CopyFrom(trimmed)
    content: bytes = model.SerializeToString()
    return content
