"""GET /models: what is served, with everything known of each model."""

from fastapi import APIRouter

from service.errors import UnknownModel
from service.http.dependencies import ModelVersion, RuntimeDep
from service.http.problems import problems
from service.http.schemas import ModelDetail, ModelList, ModelSummary
from service.inference.repository import ServedModel

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", responses=problems())
async def list_models(runtime: RuntimeDep) -> ModelList:
    """Every served model, the default one marked."""
    models = runtime.pipeline.models
    return ModelList(models=[_summary(model, models.default) for model in models])


@router.get("/{name}", responses=problems(UnknownModel))
async def show_model(runtime: RuntimeDep, name: str, version: ModelVersion = None) -> ModelDetail:
    """A model's manifest: architecture, preprocessing, labels, Theta, outputs, parity."""
    models = runtime.pipeline.models
    model = models.get(name, version)
    return ModelDetail(
        provider=model.provider,
        precision=model.precision,
        attention=model.attention,
        default=name == models.default,
        manifest=model.manifest,
    )


def _summary(model: ServedModel, default: str) -> ModelSummary:
    manifest = model.manifest
    return ModelSummary(
        name=manifest.name,
        version=manifest.version,
        default=manifest.name == default,
        provider=model.provider,
        precision=model.precision,
        attention=model.attention,
        input_size=manifest.preprocessing.size,
        classes=len(manifest.labels),
        blocks=manifest.config.depth,
        heads=manifest.config.num_heads,
        reattention_blocks=list(manifest.config.reatten_blocks),
        attention_donor=manifest.config.attention_donor,
        url=f"/models/{manifest.name}",
    )
