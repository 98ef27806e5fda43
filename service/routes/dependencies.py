"""What every route needs: the running service, and errors for OpenAPI."""

from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request

from service.errors import InvalidRequest, ServiceError
from service.pipeline import Pipeline
from service.routes.uploads import UploadLimits
from service.schemas import Problem


@dataclass
class Runtime:
    """Everything that runs in one process."""

    pipeline: Pipeline
    upload_limits: UploadLimits
    max_answer_bytes: int
    render_pool: Executor  # of one thread: matplotlib shares state
    draining: bool = False

    @property
    def alive(self) -> bool:
        return all(model.alive for model in self.pipeline.models)

    @property
    def ready(self) -> bool:
        return self.alive and not self.draining


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


def problems(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for the errors that a route can answer with."""
    responses: dict[int | str, dict[str, Any]] = {}
    listed: tuple[type[ServiceError], ...] = (*errors, InvalidRequest, ServiceError)
    for error in listed:
        response = responses.setdefault(
            error.status,
            {
                "description": "",
                "content": {
                    "application/problem+json": {
                        "schema": Problem.model_json_schema(),
                        "examples": {},
                    }
                },
            },
        )
        response["description"] += f"{'; ' if response['description'] else ''}{error.title}"
        response["content"]["application/problem+json"]["examples"][error.code] = {
            "value": {
                "type": f"urn:deepvit:problem:{error.code}",
                "title": error.title,
                "status": error.status,
                "code": error.code,
            }
        }
    return responses
