"""Bodies of the Open Inference Protocol's REST endpoints, for OpenAPI.

The protocol and Triton's extensions of it define these fields; nothing here is ours to change.
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
    shape: list[int] = Field(description="-1 is the batch size")


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
    data: list[Any] | None = Field(
        None, description="in row-major order, flat or nested like the shape"
    )


class InferRequestedOutput(BaseModel):
    name: str = Field(examples=["logits"])
    parameters: dict[str, Any] | None = Field(None, description="binary_data, classification")


class InferRequestBody(BaseModel):
    """Inputs [B, height, width, 3]; without `outputs`, the response has the logits."""

    id: str | None = None
    parameters: dict[str, Any] | None = Field(None, description="binary_data_output")
    inputs: list[InferInput]
    outputs: list[InferRequestedOutput] | None = None


class InferOutput(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = Field(None, description="binary_data_size")
    data: list[float | str] | None = Field(None, description="in row-major order")


class InferResponse(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class DurationStatistic(BaseModel):
    count: int
    ns: int


class InferStatistics(BaseModel):
    """Counts and total times of requests; a request takes as long as its slowest image."""

    success: DurationStatistic
    fail: DurationStatistic
    queue: DurationStatistic
    compute_input: DurationStatistic = Field(description="included in compute_infer")
    compute_infer: DurationStatistic
    compute_output: DurationStatistic = Field(description="included in compute_infer")
    cache_hit: DurationStatistic
    cache_miss: DurationStatistic


class BatchStatistics(BaseModel):
    batch_size: int
    compute_input: DurationStatistic
    compute_infer: DurationStatistic
    compute_output: DurationStatistic


class ModelStatistics(BaseModel):
    """Statistics over all requests to a model, whatever the endpoint or protocol."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since the epoch; 0 before the first")
    inference_count: int = Field(description="images")
    execution_count: int = Field(description="batches")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class StatisticsResponse(BaseModel):
    model_stats: list[ModelStatistics]


class IndexEntry(BaseModel):
    name: str
    version: str = Field("", description="left out if no version was ever served")
    state: str = Field(
        "", examples=["READY"], description="READY or UNAVAILABLE; left out before the first load"
    )
    reason: str = Field("", description="why the model is unavailable")
