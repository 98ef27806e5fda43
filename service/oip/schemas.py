"""What the Open Inference Protocol's endpoints answer, as OpenAPI shows it.

The protocol's own words, with Triton's extensions; nothing here is ours to change.
"""

from typing import Any

from pydantic import BaseModel, Field

PREFIX = "/v2"  # of every path of the protocol


class ProtocolError(BaseModel):
    error: str


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    name: str
    datatype: str = Field(examples=["FP32"])
    shape: list[int] = Field(description="-1 stands for the batch")


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InferInput(BaseModel):
    name: str = Field(examples=["images"])
    datatype: str = Field(examples=["UINT8"])
    shape: list[int] = Field(examples=[[1, 32, 32, 3]])
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size")
    data: list[Any] | None = Field(None, description="row by row, flat or nested as the shape")


class InferRequestedOutput(BaseModel):
    name: str = Field(examples=["logits"])
    parameters: dict[str, Any] | None = Field(None, description="binary_data, classification")


class InferRequestBody(BaseModel):
    """Inputs [B, S, S, 3]; logits are answered where no output is named."""

    id: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="binary_data_output")
    inputs: list[InferInput]
    outputs: list[InferRequestedOutput] | None = None


class InferOutput(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size")
    data: list[float | str] | None = Field(None, description="row by row")


class InferAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class DurationStatistic(BaseModel):
    count: int
    ns: int


class InferStatistics(BaseModel):
    """Requests: of each, the seconds of the image that was answered last."""

    success: DurationStatistic
    fail: DurationStatistic
    queue: DurationStatistic
    compute_input: DurationStatistic = Field(description="part of compute_infer here")
    compute_infer: DurationStatistic
    compute_output: DurationStatistic = Field(description="part of compute_infer here")
    cache_hit: DurationStatistic
    cache_miss: DurationStatistic


class BatchStatistics(BaseModel):
    batch_size: int
    compute_input: DurationStatistic
    compute_infer: DurationStatistic
    compute_output: DurationStatistic


class ModelStatistics(BaseModel):
    """Of all requests to a model, whichever endpoint they came by."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since the epoch; 0 before the first")
    inference_count: int = Field(description="images")
    execution_count: int = Field(description="batches")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class StatisticsAnswer(BaseModel):
    model_stats: list[ModelStatistics]


class IndexEntry(BaseModel):
    name: str
    version: str = Field(description="empty where no version was served")
    state: str = Field(
        examples=["READY"], description="READY, UNAVAILABLE, or empty before the first load"
    )
    reason: str = Field("", description="why the model is unavailable")


def in_one_piece(model: type[BaseModel]) -> dict[str, Any]:
    """A schema without `$defs`, for places in OpenAPI where references to them lead nowhere."""
    schema = model.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(node: Any) -> Any:
        if isinstance(node, list):
            return [filled(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return filled(parts[node["$ref"].rpartition("/")[2]])
        return {key: filled(value) for key, value in node.items()}

    return {key: filled(value) for key, value in schema.items()}
