"""What the service needs of an engine: something that runs one version of a model.

`OnnxEngine` runs it in this process. Another runtime, another process or a test may provide an
engine of its own: nothing here knows ONNX, nor anything of files but the version's folder.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from models.arrays import Float32Array, Pixels
from models.manifest import Manifest
from service.inference.batch import Batch
from service.inference.plan import Plan


class Engine(Protocol):
    """Runs the classifier and the explain graph of one version.

    After `warm_up`, `classify` and `explain` are each called from as many threads at once as the
    plan has instances, and never with more images than the limits below; `explain` also from one
    thread more, with one image, while there is nothing else to do.
    """

    @property
    def manifest(self) -> Manifest: ...
    @property
    def plan(self) -> Plan:
        """How many batches run at the same time, and how large; settled by `warm_up`."""
        ...

    @property
    def max_batch_size(self) -> int:
        """The most images that a request may ask for; `plan.batch` may be smaller."""
        ...

    @property
    def max_explain_batch_size(self) -> int: ...
    @property
    def provider(self) -> str:
        """Where the model really runs: cpu, cuda or tensorrt."""
        ...

    @property
    def precision(self) -> str:
        """Of classification: fp32, bf16, fp16 or int8."""
        ...

    @property
    def attention(self) -> str:
        """fused, by compiled kernels, or plain, as any runtime computes the graph.

        Settled by `warm_up`, which sees what runs.
        """
        ...

    def warm_up(self) -> None:
        """Get ready to answer at full speed. Raises `StartupError`."""
        ...

    def opening(self, names: Sequence[str]) -> Callable[[], object] | None:
        """What is left to do before `explain` can give these outputs, which may take seconds.

        It is called on any thread, beside everything else; `explain` does it where nobody has.
        """
        ...

    def classify(self, images: Batch[Pixels]) -> Sequence[Float32Array]:
        """Inputs [height, width, 3] to logits [classes], one for each image."""
        ...

    def explain(
        self, images: Batch[Pixels], names: Sequence[str]
    ) -> Sequence[Mapping[str, Float32Array]]:
        """Inputs [height, width, 3] to the named outputs of the explain graph, for each image."""
        ...


EngineMaker = Callable[[Path], Engine]  # from a version's folder; raises `StartupError`
