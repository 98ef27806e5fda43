"""Ways to run a network in this process: PyTorch, other ONNX files and runtimes, and ours.

Each contender is a function without arguments that runs one batch.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from export.pictures import Pictures
from export.verify import normalize, sample_images
from models import checkpoint
from models.arrays import Float32Array, Pixels
from models.deepvit import DeepViT
from service import native
from service.explain import similarity
from service.inference.batching import Batcher
from service.inference.cpus import available_cpus
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from service.native.symbols import multiplies_bf16
from tests.bench import models
from tests.bench.openvino_models import FLOATS, INT8S, OpenVino
from tests.bench.timing import Contender
from tests.support.networks import random_network

EAGER = "PyTorch eager"
_KERNELS = {"fused": "", "plain": ", attention without its kernel"}
# The precisions that run on a CPU, and the file that each needs
_PRECISIONS = {"fp32": "model.onnx", "bf16": "model.onnx", "int8": "model.int8.onnx"}
_CALIBRATION_IMAGES = 300  # of OpenVINO's int8, as many as NNCF takes by default
_COMPARED_IMAGES, _COMPARED_BATCH = 2000, 8


class Contenders:
    """All contenders for one exported model."""

    def __init__(self, folder: Path, pictures: Path) -> None:
        """`pictures`: a folder on which OpenVINO's int8 is calibrated."""
        torch.set_num_threads(available_cpus())
        self.manifest = models.manifest(folder)
        self._network = network(self.manifest.name)
        self._plain = plain_export(self._network, self.manifest.name)
        self._openvinos = OpenVino(self._plain, partial(self._normalized_pictures, pictures))
        self._engines = {
            f"{precision}{_KERNELS[attention]}": _engine(folder, precision, attention)
            for precision, file in _PRECISIONS.items()
            for attention in _KERNELS
            if (folder / file).exists() and _can_run(precision, attention)
        }

    def of(self, batch: int, skipped: dict[str, str]) -> dict[str, Contender]:
        """Contenders by name; puts those that cannot run here into `skipped`, with the reason."""
        found: dict[str, Contender] = {}
        for kind in (
            self._pytorch,
            self._compiled,
            self._plain_onnx,
            self._openvino,
            self._openvino_int8,
            self._ours,
        ):
            try:
                found.update(kind(batch))
            except Exception as exc:  # noqa: BLE001 - other people's compilers and runtimes
                skipped[kind.__name__.strip("_")] = (
                    f"{type(exc).__name__}: {str(exc).strip()[:200]}"
                )
        return found

    def _pytorch(self, batch: int) -> Iterator[tuple[str, Contender]]:
        yield EAGER, torch.inference_mode()(partial(self._network, self._normalized(batch)))

    def _compiled(self, batch: int) -> Iterator[tuple[str, Contender]]:
        compiled = torch.compile(self._network, dynamic=False)
        run = torch.inference_mode()(partial(compiled, self._normalized(batch)))
        run()
        yield "torch.compile", run

    def _plain_onnx(self, batch: int) -> Iterator[tuple[str, Contender]]:
        session = ort.InferenceSession(self._plain, providers=["CPUExecutionProvider"])
        images = self._normalized(batch).numpy()
        yield "plain export, ONNX Runtime", partial(session.run, None, {"images": images})

    def _openvino(self, batch: int) -> Iterator[tuple[str, Contender]]:
        images = self._normalized(batch).numpy()
        for precision in FLOATS:
            yield _openvino_name(precision), self._openvinos.contender(precision, images)

    def _openvino_int8(self, batch: int) -> Iterator[tuple[str, Contender]]:
        images = self._normalized(batch).numpy()
        for precision in INT8S:
            yield _openvino_name(precision), self._openvinos.contender(precision, images)

    def _ours(self, batch: int) -> Iterator[tuple[str, Contender]]:
        images = list(sample_images(batch, self.manifest.preprocessing.size))
        for precision, engine in self._engines.items():
            yield f"ours, {precision}", classifier(engine, images)
        if batch <= self.manifest.max_explain_batch_size:
            engine = self._engines["fp32"]
            for name, outputs in self._explanations().items():
                yield f"ours, {name}", explainer(engine, images, outputs)

    def openvino_operators(self, batch: int) -> Iterator[tuple[str, dict[str, float]]]:
        """OpenVINO's precisions, each with milliseconds an image by kind of operator."""
        images = self._normalized(batch).numpy()
        for precision in (*FLOATS, *INT8S):
            yield _openvino_name(precision), self._openvinos.operators(precision, images)

    def same_answers(self, folder: Path) -> Iterator[tuple[str, float, int]]:
        """Contenders that round, each with the share of a folder's pictures whose first class is
        that of our float32, and the number of pictures.
        """
        classify: dict[str, Callable[[Pixels], Float32Array]] = {
            f"ours, {precision}": partial(_logits, engine)
            for precision, engine in self._engines.items()
            if _KERNELS["plain"] not in precision
        }
        for precision in (*FLOATS, *INT8S):
            classify[_openvino_name(precision)] = partial(self._openvino_logits, precision)
        exact = classify.pop("ours, fp32")
        same: Counter[str] = Counter()
        images = 0
        pictures = Pictures(folder, _COMPARED_IMAGES)
        for _, pixels in pictures.batches(_COMPARED_BATCH, self.manifest.preprocessing):
            if len(pixels) < _COMPARED_BATCH:  # OpenVINO's shapes are fixed
                break
            images += len(pixels)
            first = exact(pixels).argmax(axis=-1)
            for name, run in classify.items():
                same[name] += int((run(pixels).argmax(axis=-1) == first).sum())
        for name in classify:
            yield name, same[name] / images, images

    def _openvino_logits(self, precision: str, pixels: Pixels) -> Float32Array:
        images = normalize(pixels, self.manifest.preprocessing).numpy()
        return self._openvinos.logits(precision, images)

    def _normalized_pictures(self, folder: Path) -> Iterator[Float32Array]:
        rule = self.manifest.preprocessing
        for _, pixels in Pictures(folder, _CALIBRATION_IMAGES).batches(1, rule):
            yield normalize(pixels, rule).numpy()

    def _explanations(self) -> dict[str, tuple[str, ...]]:
        """Outputs of the explain graph in the combinations that the service runs, and all."""
        facts = self.manifest
        last = facts.config.depth - 1
        return {
            "with class token rows": (facts.output("class_rows", "reattention").name,),
            "with one block's map": (facts.output("map", "reattention", last).name,),
            "with a stage's similarity": tuple(similarity.outputs(facts, "reattention").values()),
            "with everything": tuple(output.name for output in facts.outputs),
        }

    def _normalized(self, batch: int) -> torch.Tensor:
        rule = self.manifest.preprocessing
        return normalize(sample_images(batch, rule.size), rule)


def _openvino_name(precision: str) -> str:
    return f"plain export, OpenVINO {precision}"


def _logits(engine: OnnxEngine, pixels: Pixels) -> Float32Array:
    return np.stack(engine.classify(list(pixels)))


def classifier(engine: OnnxEngine, images: Sequence[Pixels]) -> Contender:
    """One batch as the service runs it: through the queue, unless it is a single run."""
    return _through_queue(engine.classify, images, engine.plan.batch, engine.plan.instances)


def explainer(engine: OnnxEngine, images: Sequence[Pixels], outputs: Sequence[str]) -> Contender:
    """One batch of outputs of the explain graph, as the service runs it."""
    run = partial(engine.explain, names=outputs)
    return _through_queue(run, images, engine.max_explain_batch_size, engine.plan.explain_instances)


def _through_queue(
    run: Callable[[Sequence[Pixels]], Sequence[object]],
    images: Sequence[Pixels],
    batch: int,
    instances: int,
) -> Contender:
    if len(images) <= batch and (instances == 1 or len(images) == 1):
        return partial(run, images)
    queue: Batcher[Pixels, object] = Batcher(
        lambda items, _: run(items),
        max_batch_size=batch,
        max_queue_items=len(images),
        threads=instances,
    )
    return lambda: [answer.result() for answer in queue.submit(images)]


def _can_run(precision: str, attention: str) -> bool:
    """What is in bf16 has no other form than that of the kernels, for processors that have it."""
    return precision != "bf16" or (attention == "fused" and multiplies_bf16(native.LIBRARY))


def _engine(folder: Path, precision: str, attention: str) -> OnnxEngine:
    """An engine with the settings of the service, warmed up."""
    threads = available_cpus()
    engine = OnnxEngine(
        folder, EngineOptions(precision=precision, attention=attention, intra_op_threads=threads)
    )
    engine.warm_up()
    return engine


def network(name: str) -> DeepViT:
    """The network with the weights that were exported, or with random ones."""
    weights = models.checkpoint(name)
    if weights.exists():
        return checkpoint.load(weights).network()
    return random_network(models.manifest(models.exported(name)).config)


def plain_export(network: DeepViT, name: str) -> Path:
    """PyTorch's own export: normalised float images, nothing folded. Cached, because it is slow."""
    content = hashlib.sha256(next(network.parameters()).numpy(force=True).tobytes()).hexdigest()
    path = models.CACHE / "plain" / f"{name}-{content[:8]}" / "model.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        size = network.config.img_size
        torch.onnx.export(
            network,
            (torch.zeros(4, 3, *size),),
            path,
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes={"images": {0: "batch"}},
        )
    return path
