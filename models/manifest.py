"""The manifest of an exported model: everything that serving needs and no setting may contradict.

Written by export/, read by service/, free of torch. The same JSON is in manifest.json and in the
metadata of each graph, under `METADATA_KEY`.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from models.config import DeepViTConfig
from models.preprocess import Preprocessing
from models.reference import Reference
from models.stages import STAGE_WORDS, Stage

METADATA_KEY = "deepvit.manifest"
_TOLD = 5  # errors that one line tells
_TOLD_LENGTH = 80  # characters of what the manifest itself says

Graph = Literal["model", "model.fp16", "explain"]
NAME_RULE = (
    "at most 64 letters, digits, '.', '_' and '-', of which the first is a letter or a digit, and "
    "not 'stats'"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")


def is_model_name(text: str) -> bool:
    """Whether a model may be called so: names are parts of paths, headers and metrics.

    `/v2/models/stats` is not about a model.
    """
    return _NAME.fullmatch(text) is not None and text != "stats"


def version_folders(model: Path) -> list[Path]:
    """The folders of a model's versions in a model repository, the highest one last.

    None if there is no such folder; raises `OSError` if it cannot be read.
    """
    try:
        found = [folder for folder in model.iterdir() if _VERSION.fullmatch(folder.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=lambda folder: int(folder.name))


class ManifestError(ValueError):
    """A manifest is not valid; the message is one line."""


class NewerManifest(ManifestError):
    """A manifest has fields or values that this version does not know."""


def _in_one_line(errors: Sequence[ErrorDetails]) -> ManifestError:
    unknown: list[str] = []
    for error in errors:
        field = _field(error)
        if error["type"] == "extra_forbidden":
            unknown.append(field)
        elif error["type"] == "literal_error":
            unknown.append(f"{field} {repr(error['input'])[:_TOLD_LENGTH]}")
    if unknown:
        return NewerManifest(
            "a newer version wrote the manifest, with what this one does not know: "
            + _few(unknown, ", ")
        )
    return ManifestError(_few([f"{_field(error)}: {error['msg']}" for error in errors], "; "))


def _few(found: Sequence[str], between: str) -> str:
    """The first ones, since a damaged manifest may have any number of errors."""
    different = list(dict.fromkeys(found))
    more = f" and {len(different) - _TOLD:,} more" if len(different) > _TOLD else ""
    return between.join(different[:_TOLD]) + more


def _field(error: ErrorDetails) -> str:
    """Its path, without the places in lists: a field of all outputs is one field."""
    parts = [part[:_TOLD_LENGTH] for part in error["loc"] if isinstance(part, str)]
    return ".".join(parts) or "the manifest"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Output(_Record):
    """One output of the explain graph."""

    name: str
    measure: str = Field(description="what is measured, or map, class_rows, rollout or logits")
    axes: tuple[str, ...] = Field(description="the meaning of each dimension, batch first")
    shape: tuple[NonNegativeInt, ...] = Field(description="without the batch")
    stage: Stage | None = Field(
        default=None,
        description="; ".join(f"{name}: {words}" for name, words in STAGE_WORDS.items()),
    )
    block: int | None = None


class ReAttention(_Record):
    """How one block mixes its heads: A' = matrix A + offset, with an offset for each head.

    If a LayerNorm over heads stays in the graph, A' = gain * matrix A / deviation + offset, with
    the deviation over heads at each entry; rows do not sum to a constant then.
    """

    block: int
    theta: tuple[tuple[float, ...], ...] = Field(description="as trained, [H out, H in]")
    matrix: tuple[tuple[float, ...], ...] = Field(description="with the norm folded in")
    offset: tuple[float, ...] = Field(description="added to every entry of a head's map")
    gain: tuple[float, ...] | None = Field(
        default=None, description="the gain of the LayerNorm over heads, if there is one"
    )
    row_sum: tuple[float, ...] | None = Field(
        description="the constant to which every row of a head's map sums, if there is one"
    )


class Parity(_Record):
    """The difference between ONNX Runtime and PyTorch, measured when the model was exported."""

    graph: Graph
    output: str
    batch: int
    max_abs_difference: float
    tolerance: float


class Undefined(_Record):
    """A measure that is rounding noise in some blocks, because their maps are near-uniform."""

    stage: Stage
    measure: str
    blocks: tuple[int, ...]


class Speed(_Record):
    """Median times of alternating runs, on the machine that exported."""

    batch: int
    ms: float
    exact_ms: float = Field(description="time of the exact classifier for the same batch")


class Comparison(_Record):
    """A cheaper classifier against the exact one, over a folder of images."""

    images: int
    agreement: float = Field(
        description="share of images with the same top class or, for one logit, the same sign of it"
    )
    accuracy: float | None = Field(
        description="share with the right class, if exactly one is right and folders are named "
        "after classes"
    )
    exact_accuracy: float | None
    speed: tuple[Speed, ...]


class AttentionReuse(_Record):
    """Why blocks after `config.attention_donor` share its map, and what that costs and saves."""

    verdict: str = Field(description="on the model as trained, at the softmax stage")
    forced: bool = Field(description="whether blocks share it that have not collapsed")
    comparison: Comparison


class Checkpoint(_Record):
    """Where the weights came from."""

    file: str
    sha256: str
    format: str = Field(default="official DeepViT", description="the code base that saved it")
    arch: str | None
    notes: tuple[str, ...]


class Versions(_Record):
    torch: str
    onnx: str
    onnxruntime: str
    opset: int


class Manifest(_Record):
    """The contract between export and service."""

    schema_version: Literal[1] = 1
    name: str
    version: int = Field(ge=1, lt=10**18)
    exported_at: str
    config: DeepViTConfig
    preprocessing: Preprocessing
    normalization: Literal["in_graph"] = Field(
        default="in_graph", description="graphs take raw uint8 pixels"
    )
    labels: tuple[str, ...]
    max_batch_size: int = Field(ge=1)
    max_explain_batch_size: int = Field(ge=1)
    reattention: tuple[ReAttention, ...] = Field(
        description="an entry for each block that mixes heads"
    )
    outputs: tuple[Output, ...] = Field(description="outputs of the explain graph")
    attention_reuse: AttentionReuse | None = None
    int8: Comparison | None = Field(
        default=None,
        description="model.int8 against model; up to 512 of the images also calibrated it",
    )
    checkpoint: Checkpoint
    versions: Versions
    parity: tuple[Parity, ...]
    undefined: tuple[Undefined, ...] = Field(
        default=(), description="measures that are not defined in some blocks, found by the export"
    )
    reference: Reference | None = Field(
        default=None, description="what is normal, if the model was exported with a reference"
    )
    sums: Literal["SHA256SUMS"] | None = Field(
        default=None,
        description="the file beside this one with the SHA-256 of every file of the version; "
        "earlier exports have none",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> "Manifest":
        if not is_model_name(self.name):
            raise ValueError(
                f"{self.name[:_TOLD_LENGTH]!r} is not the name of a model: {NAME_RULE}"
            )
        if len(self.labels) != self.config.num_classes:
            raise ValueError(f"{len(self.labels)} labels for {self.config.num_classes} classes")
        if self.preprocessing.size != self.config.img_size:
            raise ValueError(
                f"pictures are prepared at {self.preprocessing.size} pixels for a network of "
                f"{self.config.img_size}"
            )
        if len({output.name for output in self.outputs}) != len(self.outputs):
            raise ValueError("two outputs have one name")
        return self

    @classmethod
    def read(cls, text: str) -> "Manifest":
        """From its JSON, of this version or an earlier one. Raises `ManifestError`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as exc:
            raise _in_one_line(exc.errors()) from exc

    @property
    def digest(self) -> str:
        """Differs between exports, also of the same version. 64 hex digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def output(self, measure: str, stage: Stage | None = None, block: int | None = None) -> Output:
        """The output that holds a measure.

        A block that does not mix has one map for both stages, and blocks that share a map have one
        for all of them; such a map is one output. Raises `KeyError` for a measure that this model
        does not have.
        """
        for candidate in self._candidates(stage, block):
            for output in self.outputs:
                if (measure, *candidate) == (output.measure, output.stage, output.block):
                    return output
        raise KeyError(f"{measure} of stage {stage} and block {block}")

    def undefined_blocks(self, measure: str, stage: Stage) -> tuple[int, ...]:
        """Blocks in which a measure is rounding noise. Raises `KeyError` as `output` does."""
        of = self.output(measure, stage).stage
        found = (one for one in self.undefined if (one.measure, one.stage) == (measure, of))
        return tuple(block for one in found for block in one.blocks)

    def _candidates(
        self, stage: Stage | None, block: int | None
    ) -> Iterator[tuple[Stage | None, int | None]]:
        yield stage, block
        if stage == "reattention":
            yield "softmax", block
        if block is not None:
            yield "softmax", self.config.map_source(block)
