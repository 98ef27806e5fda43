"""The public contract: the answer of every endpoint, as OpenAPI shows it."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.config import Scores
from models.manifest import Manifest
from models.size import Size
from models.stages import Stage
from service.explain.selection import Direction
from service.store import StoreState

# Contents of responses that are not JSON, for OpenAPI.
BINARY = {"schema": {"type": "string", "format": "binary"}}
PNG_RESPONSE: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": BINARY}}}


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:deepvit:problem:corrupt-image"])
    title: str = Field(examples=["The image cannot be decoded"])
    status: int = Field(examples=[400])
    detail: str = Field(examples=["the image is truncated or damaged"])
    instance: str = Field(examples=["/classify"])
    code: str = Field(examples=["corrupt-image"])
    request_id: str


class Prediction(_Answer):
    index: int
    label: str
    probability: float = Field(description="see `scores`")


class Timings(_Answer):
    """Milliseconds; `inference` is the time of the whole batch that the image was in."""

    decode: float
    preprocess: float
    queue: float
    inference: float
    postprocess: float


class AttentionMapsAnswer(_Answer):
    """Values [layer, head, token] or [layer, head, query, key].

    The tokens are the class token if there is one, any other prefix tokens (the manifest's
    `prefix_tokens` counts both), then the patches row by row. At the `reattention` stage of a
    block that mixes heads, values can be negative and rows do not sum to 1.
    """

    id: str
    model: str
    version: int
    stage: Stage
    layers: list[int | str]
    heads: list[int | str]
    query: str = Field(description="cls, all, or a patch as row,column")
    direction: Direction
    grid: list[int] = Field(min_length=2, max_length=2, description="rows and columns of patches")
    axes: list[str]
    shape: list[int]
    range: list[float] = Field(min_length=2, max_length=2, description="smallest and largest value")
    values: list[Any] = Field(description="nested lists of numbers, one level for each axis")


class Neighbours(_Answer):
    mean: list[float] = Field(description="block l + 1 against block l, for l from 0")
    above_threshold: list[float]
    below_negative: list[float]


class SimilarBlocks(_Answer):
    threshold: float
    count: int
    share: float
    blocks: list[int]


class SimilarityAnswer(_Answer):
    """Measures of one image at one stage; `definitions` explains each of them."""

    id: str
    model: str
    version: int
    stage: Stage
    definitions: dict[str, str]
    matrix: dict[str, list[list[float | None]]] = Field(
        description="by variant, block by block; null where a measure is not defined"
    )
    neighbours: Neighbours
    similar_blocks: SimilarBlocks
    heads: list[list[list[float]]]
    features: list[float]
    entropy: list[list[float]] | None = Field(description="softmax stage only")
    attention_distance: list[list[float]] | None = Field(description="softmax stage only")


class Links(_Answer):
    attention_maps: str
    similarity: str


class ImageAnswer(_Answer):
    """What the model says about one image."""

    id: str
    predictions: list[Prediction]
    timings_ms: Timings
    links: Links
    attention: AttentionMapsAnswer | None = None
    similarity: SimilarityAnswer | None = None


class ClassifyAnswer(_Answer):
    """One result for each image, in the order of the request."""

    model: str
    version: int
    scores: Scores = Field(
        description="softmax: one class is right, and the probabilities of all sum to 1; sigmoid: "
        "each class is right or not, with a probability of its own"
    )
    results: list[ImageAnswer]


class ModelSummary(_Answer):
    name: str
    version: int
    default: bool
    provider: str = Field(description="where the model runs")
    precision: str = Field(description="precision of classification: fp32, bf16, fp16 or int8")
    attention: str = Field(description="fused (compiled kernels) or plain")
    input_size: Size = Field(description="in pixels: one number for a square, or height and width")
    classes: int
    scores: Scores = Field(description="how logits become probabilities")
    blocks: int
    heads: int
    reattention_blocks: list[int]
    attention_donor: int | None = Field(
        description="block whose softmax map the blocks after it reuse"
    )
    url: str


class ModelList(_Answer):
    models: list[ModelSummary]


class ModelDetail(_Answer):
    """Everything known about a model; `manifest.reattention` holds Theta of each mixing block."""

    provider: str
    precision: str
    attention: str
    default: bool
    manifest: Manifest


class Samples(_Answer):
    """What became of the images that were drawn to be measured: the sum of all four."""

    measured: int
    dropped: int = Field(description="the service had no time for them, or stopped")
    failed: int = Field(description="the model could not be run, or its inside was not finite")
    waiting: int


class MonitorWindow(_Answer):
    """The newest measured images."""

    images: int
    size: int = Field(description="the most images, for each replica")
    since: datetime | None = Field(description="when the oldest was measured")


class MonitorReference(_Answer):
    """The ordinary images with which the window is compared."""

    images: int
    window: int = Field(description="images in a window for which the threshold was found")
    threshold: float = Field(description="drift beyond it is an alarm")
    false_alarms: float = Field(description="share of windows of ordinary images beyond it")


class Deviation(_Answer):
    measure: str
    stage: Stage | None
    block: int | None
    deviation: float = Field(description="standardised difference to the reference")


class MonitorMeasure(_Answer):
    """A measure at one stage; lists have a value for each block, or one if there are no blocks.

    Null where the reference has no such value.
    """

    measure: str
    stage: Stage | None
    blocks: list[int]
    mean: list[float]
    spread: list[float] = Field(description="standard deviation over images")
    deviation: list[float | None] | None
    reference_mean: list[float | None] | None
    reference_spread: list[float | None] | None


class ClassShare(_Answer):
    label: str
    share: float
    reference: float | None


class MonitorClasses(_Answer):
    distance: float | None = Field(
        description="total variation between the answers and those of the reference"
    )
    shares: list[ClassShare] = Field(description="the 20 largest here or in the reference")


class DriftPoint(_Answer):
    time: datetime
    drift: float
    images: int


class MonitoredModel(_Answer):
    """One version, over all replicas. Nothing is compared with fewer than 50 images."""

    model: str
    version: int
    samples: Samples
    window: MonitorWindow
    reference: MonitorReference | None
    drift: float | None = Field(description="the largest absolute deviation")
    alarm: bool | None
    strongest: list[Deviation] = Field(description="the five largest deviations")
    measures: list[MonitorMeasure] = Field(description="none if the window is empty")
    similar_blocks: dict[Stage, list[int]] = Field(
        description="blocks that are similar on average of the window, by stage"
    )
    collapsed_blocks: dict[Stage, list[int]] = Field(
        description="those of them that attend to the same keys too"
    )
    classes: MonitorClasses
    history: list[DriftPoint] = Field(description="every 10 measured images, oldest first")


class MonitorAnswer(_Answer):
    """Whether served models still behave inside as they did when they were exported."""

    sample: float = Field(description="share of answered images that is measured; 0 if it is off")
    models: list[MonitoredModel]


class Health(_Answer):
    status: str
    models: dict[str, str] = Field(description="provider of each model")
    store: StoreState = Field(description="the store of classified images, and whether it works")
