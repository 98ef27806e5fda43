"""What /attention-maps and /similarity share: explaining an image that was classified before."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import Request
from pydantic import Field

from models.arrays import Float32Array, Pixels
from service.errors import (
    AnswersUnread,
    DeadlineExceeded,
    EngineUnavailable,
    ExpiredImage,
    InferenceFailed,
    InputMismatch,
    QueueFull,
    Stopped,
    StoreUnavailable,
    UnknownImage,
    UnknownModel,
)
from service.http.conditional import entity_tag
from service.http.dependencies import runtime_of
from service.http.disconnects import while_connected
from service.http.parameters import DeadlineParameters, ModelName, ModelVersion, StageName
from service.http.stages import note_inference
from service.inference.served import ServedModel

TAG = "look inside"
ERRORS = (
    UnknownModel,
    UnknownImage,
    ExpiredImage,
    InputMismatch,
    QueueFull,
    AnswersUnread,
    InferenceFailed,
    EngineUnavailable,
    Stopped,
    DeadlineExceeded,
    StoreUnavailable,
)

ImageId = Annotated[
    str, Field(pattern="^[0-9a-f]{32}$", description="the id of a classified image, from /classify")
]


class LookInsideParameters(DeadlineParameters):
    id: ImageId
    model: ModelName = None
    version: ModelVersion = None
    stage: StageName = "reattention"


def answer_tag(served: ServedModel, params: LookInsideParameters) -> str:
    """The entity tag of the answer to these parameters."""
    said = params.model_dump(exclude={"model", "version", "timeout_ms"})
    made_by = served.digest, served.provider, served.attention
    return entity_tag(type(params).__name__, said, made_by)


async def explain(
    request: Request, served: ServedModel, pixels: Pixels, outputs: Sequence[str], deadline: float
) -> Mapping[str, Float32Array]:
    """The named outputs of the explain graph for what the model saw of an image [S, S, 3].

    Raises one of `ERRORS`, or `ClientGone`.
    """
    pipeline = runtime_of(request).pipeline
    with pipeline.admit(served, deadline, outputs) as ticket:
        done = await while_connected(request, pipeline.explain(ticket, pixels))
    note_inference(request, [done])
    return done.value
