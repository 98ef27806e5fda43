"""GET /monitor: whether served models still behave inside as they did when they were exported."""

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.errors import UnknownModel
from service.http.dependencies import RuntimeDep
from service.http.monitored import monitored
from service.http.parameters import ModelName, ModelVersion, documented, read_parameters
from service.http.problems import problems
from service.http.schemas import MonitorAnswer
from service.inference.served import ServedModel
from service.monitor.monitor import export_of
from service.monitor.record import Record, Records

router = APIRouter(tags=["models"])


class MonitorParameters(BaseModel):
    model: ModelName = None
    version: ModelVersion = None


@router.get(
    "/monitor", openapi_extra=documented(MonitorParameters), responses=problems(UnknownModel)
)
async def monitor(request: Request, response: Response, runtime: RuntimeDep) -> MonitorAnswer:
    """Drift from the reference and collapse of one version, or of all that are served."""
    params = read_parameters(request, MonitorParameters)
    models = runtime.pipeline.models
    if params.model is None and params.version is None:
        chosen = list(models)
    else:
        chosen = [models.get(params.model, params.version)]
    records = await runtime.records()
    response.headers["Cache-Control"] = "no-store"
    return MonitorAnswer(
        sample=runtime.pipeline.monitor.sample,
        models=[monitored(model, _record(model, records)) for model in chosen],
    )


def _record(model: ServedModel, records: Records) -> Record:
    """An empty one where nothing has been measured, or monitoring is off."""
    return records.get(export_of(model)) or Record.empty(model.manifest)
