"""ONNX Runtime's sessions for one exported model: where they run, in which precision, with which
kernels.
"""

import logging
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from service import native
from service.errors import StartupError

_logger = logging.getLogger(__name__)

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_WEIGHTS = "weights.bin"

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
    cuda_graphs: bool = True  # where the model runs on CUDA
    intra_op_threads: int = 1
    max_batch_size: int = 32


class Sessions:
    """What is asked for in the options, or the fastest there is; `first` is the classifier.

    Raises `StartupError`.
    """

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        self._folder = folder
        self._options = options
        # Held: sessions for explanations open later, when the folder may have been removed.
        self._graphs, self._weights = _held(folder)
        self.provider = _choose_provider(options.provider)
        self.first = self._settle()
        active = self.first.get_providers()[0]
        if active != _PROVIDERS[self.provider]:
            if options.provider != "auto":
                raise StartupError(f"{self.provider} was asked for, but ONNX Runtime took {active}")
            self.provider = "cpu"  # the GPU does not work
            self.first = self._settle()

    def classifier(self, threads: int | None = None) -> ort.InferenceSession:
        return self._open(self._graphs[self.precision], threads, self.cuda_graphs)

    def explainer(self, outputs: Sequence[str], threads: int) -> ort.InferenceSession:
        """What leads to these outputs of the explain graph."""
        return self._open(subgraph(self._graphs["explain"], outputs), threads)

    @property
    def cuda_graphs(self) -> bool:
        return self._options.cuda_graphs and self.provider == "cuda"

    def _settle(self) -> ort.InferenceSession:
        """The classifier, with the attention and the precision in which it could be opened."""
        self.precision = self._choose_precision()
        wanted, reason = self._options.attention, None
        if wanted != "plain":
            try:
                self._kernel: Path | None = self._choose_kernel()
                self.attention = "fused"
                return self.classifier()
            except StartupError as exc:
                if wanted == "fused":
                    raise StartupError(f"fused attention was asked for, but {exc}") from exc
                reason = exc
        self.attention, self._kernel = "plain", None
        session = self.classifier()  # which may well fail for the same reason
        if reason is not None:
            _logger.info("attention is not fused: %s", reason)
        return session

    def _choose_precision(self) -> str:
        wanted = self._options.precision
        if wanted == "auto":
            return "fp16" if self.provider == "cuda" and "fp16" in self._graphs else "fp32"
        if wanted not in self._graphs:
            raise StartupError(f"{self._folder} has no {wanted}: export with --precision {wanted}")
        return wanted

    def _choose_kernel(self) -> Path:
        if self.provider == "cpu" and self.precision != "fp16":
            kernel = native.LIBRARY
        elif (self.provider, self.precision) == ("cuda", "fp16"):
            kernel = native.CUDA_LIBRARY
        else:
            raise StartupError(f"there is no kernel for {self.precision} on {self.provider}")
        try:
            ort.SessionOptions().register_custom_ops_library(str(kernel))
        except Exception as exc:  # ONNX Runtime's errors have no common class
            raise StartupError(
                f"python -m service.native has not made a kernel that loads here: {_line(exc)}"
            ) from exc
        return kernel

    def _open(
        self, graph: bytes, threads: int | None = None, cuda_graphs: bool = False
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or self._options.intra_op_threads
        options.inter_op_num_threads = 1
        # Threads that spin between batches would take the processors from image decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        if self._kernel:
            options.register_custom_ops_library(str(self._kernel))
        if (self._folder / _WEIGHTS).exists():
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self._folder)
            )
        else:  # ONNX Runtime copies them first, which takes memory
            options.add_external_initializers_from_files_in_memory(
                [_WEIGHTS], [self._weights], [len(self._weights)]
            )
        own = {"enable_cuda_graph": "1"} if cuda_graphs else {}
        providers = [(_PROVIDERS[self.provider], own)]
        if self.provider != "cpu":
            providers.append((_PROVIDERS["cpu"], {}))
        try:
            return ort.InferenceSession(graph, options, providers=providers)
        except Exception as exc:  # ONNX Runtime's errors have no common class
            raise StartupError(f"{self._folder} cannot be loaded: {_line(exc)}") from exc


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())


def _choose_provider(name: str) -> str:
    """What a session is asked to try. Raises `StartupError`."""
    available = ort.get_available_providers()
    if _PROVIDERS["cuda"] in available and name != "cpu":
        ort.preload_dlls()  # CUDA and cuDNN as pip installed them, which no loader path names
    if name == "auto":
        return "cuda" if _PROVIDERS["cuda"] in available else "cpu"
    if _PROVIDERS[name] not in available:
        raise StartupError(f"provider {name} was asked for, but ONNX Runtime has {available}")
    return name


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


def subgraph(graph: bytes, outputs: Sequence[str]) -> bytes:
    """The part of a graph that leads to some of its outputs; weights stay in their file."""
    import onnx  # only explanations need it

    model: onnx.ModelProto = onnx.load_model_from_string(graph)
    whole = model.graph
    needed = set(outputs)
    kept = []
    for node in reversed(whole.node):  # nodes stand in topological order
        if not needed.isdisjoint(node.output):
            if node.op_type.startswith("Open"):  # its kernel writes what is asked for
                node.output[:] = [name if name in needed else "" for name in node.output]
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
