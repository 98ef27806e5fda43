"""The manifest of a model that was built, before anything is measured."""

from datetime import UTC, datetime
from importlib.metadata import version as installed

import onnxruntime
from torch import Tensor

from export.build import Build
from export.fold import fold_mixing
from export.to_onnx import OPSET
from models.checkpoint import Checkpoint
from models.config import DeepViTConfig
from models.deepvit import DeepViT
from models.manifest import Checkpoint as CheckpointRecord
from models.manifest import Manifest, ReAttention, Versions
from models.sums import SUMS

_MAX_EXPLAIN_BYTES = 256 * 2**20  # of attention maps in one batch
_MAX_EXPLAIN_BATCH = 8


def record_of(
    built: Build,
    source: Checkpoint,
    *,
    name: str,
    version: int,
    file: str,
    labels: tuple[str, ...],
    max_batch_size: int,
) -> Manifest:
    """`file` is the name of the checkpoint's file."""
    return Manifest(
        name=name,
        version=version,
        exported_at=datetime.now(UTC).isoformat(timespec="seconds"),
        config=source.config,
        preprocessing=source.preprocessing,
        labels=labels,
        max_batch_size=max_batch_size,
        max_explain_batch_size=_explain_batch(source.config, max_batch_size),
        reattention=_reattention(built.network),
        outputs=built.outputs,
        checkpoint=CheckpointRecord(
            file=file,
            sha256=source.sha256,
            format=source.format,
            arch=source.arch,
            notes=source.notes,
        ),
        versions=Versions(
            torch=installed("torch"),
            onnx=installed("onnx"),
            onnxruntime=onnxruntime.__version__,
            opset=OPSET,
        ),
        parity=(),
        sums=SUMS,
    )


def _explain_batch(config: DeepViTConfig, max_batch_size: int) -> int:
    """How many images fit the memory for maps; at least one."""
    image_bytes = int(4 * config.depth * config.num_heads * config.num_tokens**2)
    return max(1, min(max_batch_size, _MAX_EXPLAIN_BATCH, _MAX_EXPLAIN_BYTES // image_bytes))


def _reattention(network: DeepViT) -> tuple[ReAttention, ...]:
    tokens = network.config.num_tokens
    mixings = {block: fold_mixing(network, block) for block in network.config.reatten_blocks}
    return tuple(
        ReAttention(
            block=block,
            theta=_rows(mixing.theta),
            matrix=_rows(mixing.matrix),
            offset=tuple(mixing.offset.tolist()),
            gain=_row(mixing.gain),
            row_sum=_row(mixing.row_sum(tokens)),
        )
        for block, mixing in mixings.items()
    )


def _row(vector: Tensor | None) -> tuple[float, ...] | None:
    return None if vector is None else tuple(vector.tolist())


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))
