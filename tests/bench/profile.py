"""Time by operator of a graph, from ONNX Runtime's profiler and OpenVINO's.

Profiling slows operators down a little, the smallest ones most.
"""

import json
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from export.verify import sample_images
from models.arrays import Pixels
from service.errors import StartupError
from service.explain import similarity
from service.inference.cpus import available_cpus
from service.inference.execution import Execution, with_kernels
from service.inference.graphs import Graph, Graphs
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import models
from tests.bench.contenders import Contenders
from tests.bench.record import Record
from tests.bench.tables import by_graph

_RUNS = 50
_BATCH = 8  # in which precisions are compared


def run(name: str) -> None:
    """Print and record times of an image: with similarity and without, and in each precision."""
    folder = models.exported(name)
    facts = models.manifest(folder)
    engine = OnnxEngine(folder, EngineOptions(intra_op_threads=available_cpus()))
    engine.warm_up()
    measures = ["logits", *similarity.outputs(facts, "reattention").values()]
    graphs = Graphs(folder)
    threads = engine.plan.threads
    exact = with_kernels(Execution("cpu", "fp32"))
    explainer = graphs.explainer(measures)
    one = sample_images(1, facts.preprocessing.size)
    found = {
        "classification": _profile(graphs.classifier("fp32", threads), exact, threads, one),
        "with a stage's similarity": _profile(explainer, exact, threads, one),
    }
    threads, images = available_cpus(), sample_images(_BATCH, facts.preprocessing.size)
    for precision in ("fp32", "bf16", "int8"):
        try:
            execution = with_kernels(Execution("cpu", precision))
            graph = graphs.classifier(precision, threads, execution.reduced)
        except (StartupError, KeyError) as exc:
            print(f"not measured: {precision}: {exc}")
        else:
            found[f"{precision}, batch {_BATCH}"] = _profile(graph, execution, threads, images)
    for precision, operators in Contenders(folder, models.PHOTOS).openvino_operators(_BATCH):
        found[f"{precision}, batch {_BATCH}"] = operators
    record = Record("profile", name)
    for what, operators in found.items():
        for operator, ms in operators.items():
            record.add(what=what, operator=operator, ms=round(ms, 4))
    print(f"\n{name}, milliseconds an image\n")
    print(*by_graph(found), sep="\n")


def _profile(graph: Graph, execution: Execution, threads: int, images: Pixels) -> dict[str, float]:
    """Milliseconds an image by operator, the largest first."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_external_initializers([*graph.weights], [*graph.weights.values()])
    options.register_custom_ops_library(str(execution.kernels))
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = f"{place}/profile"
        session = ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
        for _ in range(max(5, _RUNS // len(images))):
            session.run(None, {"images": images})
        events = json.loads(Path(session.end_profiling()).read_text())
    found = _by_operator(events)
    return {operator: ms / len(images) for operator, ms in found.items()}


def _by_operator(events: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The sum of the medians of all nodes of an operator."""
    runs: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        if event["name"].endswith("_kernel_time"):
            runs[event["args"]["op_name"], event["name"]].append(event["dur"])
    found: defaultdict[str, float] = defaultdict(float)
    for (operator, _), microseconds in runs.items():
        found[operator] += statistics.median(microseconds) / 1000
    return dict(sorted(found.items(), key=lambda entry: -entry[1]))
