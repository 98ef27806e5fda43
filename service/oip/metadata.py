"""Metadata, configuration and statistics of models, as the Open Inference Protocol has them."""

from collections.abc import Sequence
from typing import Any

from models.manifest import Manifest
from service import __version__
from service.inference.repository import ModelRepository
from service.inference.served import ServedModel
from service.inference.statistics import Duration
from service.oip.inference import INPUT, INPUT_DATATYPE, LOGITS, OUTPUT_DATATYPE, Contract
from service.oip.schemas import (
    BatchStatistics,
    DurationStatistic,
    IndexEntry,
    InferStatistics,
    ModelMetadata,
    ModelStatistics,
    ServerMetadata,
    TensorMetadata,
)

_PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")
_NEVER = DurationStatistic(count=0, ns=0)


def server(*extensions: str) -> ServerMetadata:
    """`extensions` are those of one transport, beside those of every transport."""
    return ServerMetadata(
        name="deepvit-inference", version=__version__, extensions=[*extensions, *_EXTENSIONS]
    )


def contract(served: ServedModel, max_images: int) -> Contract:
    """What a request to a model may contain; `max_images` is the limit of every request."""
    manifest = served.manifest
    return Contract(
        size=manifest.preprocessing.size,
        max_batch_size=min(served.engine.max_batch_size, max_images),
        outputs=_outputs(manifest),
        labels=manifest.labels,
    )


def model(served: ServedModel, versions: Sequence[int]) -> ModelMetadata:
    """One output: what a request gets that names none, as clients of classifiers expect.

    `config` has the others.
    """
    manifest = served.manifest
    size = manifest.preprocessing.size
    return ModelMetadata(
        name=manifest.name,
        versions=[str(version) for version in versions],
        platform=_PLATFORM,
        inputs=[TensorMetadata(name=INPUT, datatype=INPUT_DATATYPE, shape=[-1, *size, 3])],
        outputs=[
            TensorMetadata(name=LOGITS, datatype=OUTPUT_DATATYPE, shape=[-1, len(manifest.labels)])
        ],
    )


def config(served: ServedModel, models: ModelRepository, max_images: int) -> dict[str, Any]:
    """Triton's model configuration, with every output that may be requested."""
    manifest = served.manifest
    size = manifest.preprocessing.size
    return {
        "name": manifest.name,
        "platform": _PLATFORM,
        "backend": "onnxruntime",
        "version_policy": {"latest": {"num_versions": models.versions}},
        "max_batch_size": contract(served, max_images).max_batch_size,
        "input": [
            {
                "name": INPUT,
                "data_type": f"TYPE_{INPUT_DATATYPE}",
                "format": "FORMAT_NHWC",
                "dims": [*size, 3],
                "is_shape_tensor": False,
                "allow_ragged_batch": False,
                "optional": False,
            }
        ],
        "output": [
            {
                "name": name,
                "data_type": f"TYPE_{OUTPUT_DATATYPE}",
                "dims": list(shape),
                "label_filename": "labels.txt" if name == LOGITS else "",
                "is_shape_tensor": False,
            }
            for name, shape in _outputs(manifest).items()
        ],
        "instance_group": [
            {
                "name": f"{manifest.name}_0",
                "kind": "KIND_CPU" if served.engine.provider == "cpu" else "KIND_GPU",
                "count": 1,
            }
        ],
        "default_model_filename": "model.onnx",
        "dynamic_batching": {
            "preferred_batch_size": [],
            "max_queue_delay_microseconds": round(models.queue.max_wait_s * 1e6),
        },
        "parameters": {"scores": {"string_value": manifest.config.scores}},
    }


def statistics(served: ServedModel) -> ModelStatistics:
    snapshot = served.statistics.snapshot()
    return ModelStatistics(
        name=served.manifest.name,
        version=str(served.manifest.version),
        last_inference=int(snapshot.last_s * 1e3),
        inference_count=snapshot.images,
        execution_count=snapshot.executions,
        inference_stats=InferStatistics(
            success=_duration(snapshot.success),
            fail=_duration(snapshot.failure),
            queue=_duration(snapshot.queue),
            compute_input=_NEVER,
            compute_infer=_duration(snapshot.inference),
            compute_output=_NEVER,
            cache_hit=_NEVER,
            cache_miss=_NEVER,
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=size,
                compute_input=_NEVER,
                compute_infer=_duration(duration),
                compute_output=_NEVER,
            )
            for size, duration in snapshot.batches.items()
        ],
    )


async def index(models: ModelRepository, *, ready: bool = False) -> list[IndexEntry]:
    """The served versions and, unless `ready`, the models of the folder that are not served."""
    return [
        IndexEntry(
            name=listed.name,
            version="" if listed.version is None else str(listed.version),
            state="READY" if listed.ready else "UNAVAILABLE" if listed.reason else "",
            reason=listed.reason,
        )
        for listed in await models.index()
        if listed.ready or not ready
    ]


def _outputs(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    return {output.name: output.shape for output in manifest.outputs}


def _duration(duration: Duration) -> DurationStatistic:
    return DurationStatistic(count=duration.count, ns=int(duration.seconds * 1e9))
