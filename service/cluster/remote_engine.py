"""One version of a model on the engines of a cluster, to a front what `OnnxEngine` is to a server.

A call takes a whole batch; engines merge what several fronts send.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.arrays import Float32Array, Pixels
from service.cluster import wire
from service.cluster.calls import EngineCalls
from service.cluster.engines import Described
from service.inference.batch import Batch
from service.inference.plan import Plan


class RemoteEngine:
    def __init__(self, folder: Path, calls: EngineCalls, in_flight: int) -> None:
        """Every engine loads the version first. Raises `StartupError`."""
        self._calls = calls
        self._version = folder.parent.name, int(folder.name)
        described: list[Described] = calls.every("prepare", *self._version)
        self._described = first = described[0]
        self.manifest = first.manifest
        self.plan = Plan(in_flight, first.threads, first.max_batch_size)

    @property
    def max_batch_size(self) -> int:
        return self._described.max_batch_size

    @property
    def max_explain_batch_size(self) -> int:
        return self._described.max_explain_batch_size

    @property
    def provider(self) -> str:
        return self._described.provider

    @property
    def precision(self) -> str:
        return self._described.precision

    @property
    def attention(self) -> str:
        return self._described.attention

    def warm_up(self) -> None:
        """Engines are warm once they have the version."""

    def opening(self, names: Sequence[str]) -> None:
        """Engines open what they need by themselves."""

    def classify(self, images: Batch[Pixels]) -> Sequence[Float32Array]:
        packed = self._calls.call(
            "classify", *self._version, wire.pack_images(images), batch=images
        )
        return wire.unpack_logits(packed, len(self.manifest.labels))

    def explain(
        self, images: Batch[Pixels], names: Sequence[str]
    ) -> Sequence[Mapping[str, Float32Array]]:
        packed = self._calls.call(
            "explain", *self._version, wire.pack_images(images), tuple(names), batch=images
        )
        return wire.unpack_outputs(packed, len(images))
