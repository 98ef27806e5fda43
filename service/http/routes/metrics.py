"""GET /metrics: metrics for Prometheus to scrape."""

from fastapi import APIRouter, Response

from service.http.dependencies import RuntimeDep
from service.telemetry.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/metrics", responses={200: {"content": {CONTENT_TYPE: {}}}})
async def show_metrics(runtime: RuntimeDep) -> Response:
    """Requests, images by outcome, batches, queues, stages and models, for Prometheus."""
    return Response(await runtime.scrape(), media_type=CONTENT_TYPE)
