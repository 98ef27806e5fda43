"""The public contract: the answer of every endpoint, as OpenAPI shows it."""

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
    precision: str = Field(description="precision of classification: fp32, fp16 or int8")
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


class Health(_Answer):
    status: str
    models: dict[str, str] = Field(description="provider of each model")
    store: StoreState = Field(description="the store of classified images, and whether it works")
