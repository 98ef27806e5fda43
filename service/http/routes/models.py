"""GET /models: the served models, and everything that is known about each."""

from urllib.parse import quote

from fastapi import APIRouter, Request
from pydantic import BaseModel

from service.errors import UnknownModel
from service.http.dependencies import RuntimeDep
from service.http.parameters import ModelVersion, documented, read_parameters
from service.http.problems import problems
from service.http.schemas import ModelDetail, ModelList, ModelSummary
from service.inference.served import ServedModel

router = APIRouter(prefix="/models", tags=["models"])


class ModelParameters(BaseModel):
    version: ModelVersion = None


@router.get("", responses=problems())
async def list_models(request: Request, runtime: RuntimeDep) -> ModelList:
    """Every version of every served model; what is used by default is marked."""
    models = runtime.pipeline.models
    root_path = request.scope["root_path"]
    return ModelList(
        models=[_summary(model, models.is_default(model), root_path) for model in models]
    )


@router.get("/{name}", openapi_extra=documented(ModelParameters), responses=problems(UnknownModel))
async def show_model(request: Request, runtime: RuntimeDep, name: str) -> ModelDetail:
    """A model's manifest: architecture, preprocessing, labels, Theta, outputs, parity."""
    models = runtime.pipeline.models
    model = models.get(name, read_parameters(request, ModelParameters).version)
    return ModelDetail(
        provider=model.provider,
        precision=model.precision,
        attention=model.attention,
        default=models.is_default(model),
        manifest=model.manifest,
    )


def _summary(model: ServedModel, default: bool, root_path: str) -> ModelSummary:
    manifest = model.manifest
    return ModelSummary(
        name=manifest.name,
        version=manifest.version,
        default=default,
        provider=model.provider,
        precision=model.precision,
        attention=model.attention,
        input_size=manifest.preprocessing.size,
        classes=len(manifest.labels),
        scores=manifest.config.scores,
        blocks=manifest.config.depth,
        heads=manifest.config.num_heads,
        reattention_blocks=list(manifest.config.reatten_blocks),
        attention_donor=manifest.config.attention_donor,
        url=f"{root_path}/models/{quote(manifest.name, safe='')}?version={manifest.version}",
    )
