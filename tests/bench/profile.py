"""Time by operator of a graph, from ONNX Runtime's profiler.

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
from service import native
from service.explain import similarity
from service.inference.cpus import available_cpus
from service.inference.graphs import Graph, Graphs
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import models
from tests.bench.record import Record
from tests.bench.tables import by_graph

_RUNS = 50


def run(name: str) -> None:
    """Print and record the time of one image: classification, and with a stage's similarity."""
    folder = models.exported(name)
    facts = models.manifest(folder)
    engine = OnnxEngine(folder, EngineOptions(intra_op_threads=available_cpus()))
    engine.warm_up()
    measures = ["logits", *similarity.outputs(facts, "reattention").values()]
    graphs = Graphs(folder)
    found = {
        "classification": _profile(graphs.classifier("fp32", available_cpus()), engine),
        "with a stage's similarity": _profile(graphs.explainer(measures), engine),
    }
    record = Record("profile", name)
    for what, operators in found.items():
        for operator, ms in operators.items():
            record.add(what=what, threads=engine.plan.threads, operator=operator, ms=round(ms, 4))
    print(f"\n{name}, one image, threads: {engine.plan.threads}\n")
    print(*by_graph(found), sep="\n")


def _profile(graph: Graph, engine: OnnxEngine) -> dict[str, float]:
    """Milliseconds by operator, the largest first."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = engine.plan.threads
    options.enable_profiling = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_external_initializers([*graph.weights], [*graph.weights.values()])
    if engine.attention == "fused":
        options.register_custom_ops_library(str(native.LIBRARY))
    images = {"images": sample_images(1, engine.manifest.preprocessing.size)}
    with tempfile.TemporaryDirectory() as place:
        options.profile_file_prefix = f"{place}/profile"
        session = ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
        for _ in range(_RUNS):
            session.run(None, images)
        events = json.loads(Path(session.end_profiling()).read_text())
    return _by_operator(events)


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
