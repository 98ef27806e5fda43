"""GET /similarity: the paper's measures of an image classified before."""

from fastapi import APIRouter, Response

from service import similarity as measures
from service.errors import (
    ExpiredImage,
    InferenceFailed,
    InputMismatch,
    QueueFull,
    Stopped,
    UnknownImage,
    UnknownModel,
)
from service.routes import answers
from service.routes.attention import ImageId
from service.routes.classify import ModelName, StageName, Threshold
from service.routes.dependencies import RuntimeDep, problems
from service.schemas import SimilarityAnswer

router = APIRouter(tags=["look inside"])


@router.get(
    "/similarity",
    response_model=SimilarityAnswer,
    responses=problems(
        UnknownModel,
        UnknownImage,
        ExpiredImage,
        InputMismatch,
        QueueFull,
        InferenceFailed,
        Stopped,
    ),
)
async def similarity(
    runtime: RuntimeDep,
    id: ImageId,
    model: ModelName = None,
    stage: StageName = "reattention",
    threshold: Threshold = 0.9,
) -> Response:
    """How alike blocks, heads and features are, with the count of similar blocks."""
    served = runtime.pipeline.models.get(model)
    names = measures.outputs(served.manifest, stage)
    values = await runtime.pipeline.explain(served, id, tuple(names.values()))
    found = measures.measure(served.manifest, stage, threshold, values)
    return answers.json_response(answers.similarity(found, served.manifest, id))
