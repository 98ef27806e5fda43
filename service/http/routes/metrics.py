"""GET /metrics: metrics for Prometheus to scrape."""

from fastapi import APIRouter, Response

from service.http.dependencies import RuntimeDep
from service.http.problems import problems
from service.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses=problems(public=True)
    | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def show_metrics(runtime: RuntimeDep) -> Response:
    """Requests, images by outcome, batches, queues, stages and models, for Prometheus."""
    return Response(await runtime.scrape(), media_type=CONTENT_TYPE)
