"""ONNX Runtime's sessions for one exported version."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnxruntime as ort

from models.manifest import Manifest
from service.errors import StartupError
from service.inference.execution import (
    PROVIDERS,
    Execution,
    one_line,
    resolve_precision,
    resolve_provider,
    with_kernels,
)
from service.inference.graphs import Graph, Graphs
from service.native.symbols import attention_calls

_logger = logging.getLogger(__name__)

ort.set_default_logger_severity(4)  # its errors are raised too, and reported by this service
# One arena for all sessions: the explain sessions of a model run one after the other, so each can
# use the memory that another has freed. With an arena each, twice the memory would stay allocated.
_MEMORY = ort.OrtMemoryInfo(
    "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
)
ort.create_and_register_allocator(_MEMORY, ort.OrtArenaCfg({}))


@dataclass(frozen=True)
class EngineOptions:
    provider: str = "auto"  # or cpu, cuda, tensorrt, which is then demanded
    precision: str = "auto"  # fp32, bf16, fp16, int8; auto is fp16 on a GPU where it was exported
    attention: str = "auto"  # plain, or fused, which is demanded; auto is fused where it can be
    kernel: str = "auto"  # the best copy that may run: avx512, avx2 or baseline
    cuda_graphs: bool = True  # where the model runs on CUDA
    intra_op_threads: int = 1
    max_batch_size: int = 32


class Sessions:
    """Opens sessions as `execution` says; `first` is the classifier with which that was tried."""

    def __init__(self, folder: Path, options: EngineOptions) -> None:
        """Raises `StartupError`."""
        self._options = options
        self._graphs = Graphs(folder)
        provider = resolve_provider(options.provider)
        self.execution, self.first = self._open_on(provider)
        active = self.first.get_providers()[0]
        if active != PROVIDERS[provider]:
            if options.provider != "auto":
                raise StartupError(f"{provider} was asked for, but ONNX Runtime took {active}")
            self.execution, self.first = self._open_on("cpu")  # the GPU does not work

    @property
    def manifest(self) -> Manifest:
        return self._graphs.manifest

    @property
    def has_features(self) -> bool:
        return self._graphs.has_features

    @property
    def cuda_graphs(self) -> bool:
        return self._uses_cuda_graphs(self.execution)

    def classifier(self, threads: int) -> ort.InferenceSession:
        return self._open_classifier(self.execution, threads)

    def explainer(self, outputs: Sequence[str], threads: int) -> ort.InferenceSession:
        """The part of the explain graph that leads to these outputs."""
        return self._open(self.execution, self._graphs.explainer(outputs), threads)

    def fuses_attention(self, run: Callable[[], None]) -> bool:
        """Whether `run`, which runs the classifier on this thread, has attention run by kernels."""
        kernels = self.execution.kernels
        calls = attention_calls(kernels) if kernels else 0
        run()
        return kernels is not None and attention_calls(kernels) > calls

    def _open_on(self, provider: str) -> tuple[Execution, ort.InferenceSession]:
        """A classifier, with fused attention if that is wanted and can be had."""
        options = self._options
        precision = resolve_precision(options.precision, provider, self._graphs)
        plain = Execution(provider, precision)
        demanded = "fused attention" if options.attention == "fused" else ""
        if precision == "bf16":
            if options.attention == "plain":
                raise StartupError("bf16 runs on the compiled kernels, and attention is plain")
            demanded = precision
        if options.attention == "plain":
            return plain, self._open_classifier(plain, options.intra_op_threads)
        try:
            fused = with_kernels(plain, options.kernel)
            return fused, self._open_classifier(fused, options.intra_op_threads)
        except StartupError as exc:
            if demanded:
                raise StartupError(f"{demanded} was asked for, but {exc.detail}") from exc
            reason = exc.detail
        session = self._open_classifier(plain, options.intra_op_threads)  # may fail just as well
        _say_why_plain(reason)
        return plain, session

    def _open_classifier(self, execution: Execution, threads: int) -> ort.InferenceSession:
        graph = self._graphs.classifier(execution.precision, threads, execution.reduced)
        return self._open(execution, graph, threads, self._uses_cuda_graphs(execution))

    def _uses_cuda_graphs(self, execution: Execution) -> bool:
        return self._options.cuda_graphs and execution.provider == "cuda"

    def _open(
        self, execution: Execution, graph: Graph, threads: int, cuda_graphs: bool = False
    ) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # Threads wait for each other hundreds of times in a run, too shortly to sleep. Between runs
        # they would take the processors from image decoding.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.use_env_allocators", "1")
        if execution.kernels:
            options.register_custom_ops_library(str(execution.kernels))
        options.add_external_initializers([*graph.weights], [*graph.weights.values()])
        settings = {"enable_cuda_graph": "1"} if cuda_graphs else {}
        providers = [(PROVIDERS[execution.provider], settings)]
        if execution.provider != "cpu":
            providers.append((PROVIDERS["cpu"], {}))
        try:
            return ort.InferenceSession(graph.content, options, providers=providers)
        except Exception as exc:  # ONNX Runtime's errors have no common class
            raise StartupError(f"{self._graphs.folder} cannot be loaded: {one_line(exc)}") from exc


@cache  # once, however many models it holds for
def _say_why_plain(reason: str) -> None:
    _logger.info("attention is not fused: %s", reason)
