"""What every route needs: the running service, and errors for OpenAPI."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from service.errors import InvalidRequest, ServiceError
from service.pipeline import Pipeline
from service.routes.uploads import UploadLimits
from service.schemas import Problem
from service.schemas_v2 import ProtocolError


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
    return _responses("application/problem+json", Problem, [*errors, InvalidRequest], _problem)


def protocol_errors(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The same for routes of the Open Inference Protocol, which has its own form of errors."""
    return _responses("application/json", ProtocolError, [*errors], _protocol_error)


def _problem(error: type[ServiceError]) -> dict[str, Any]:
    return {
        "type": f"urn:deepvit:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
    }


def _protocol_error(error: type[ServiceError]) -> dict[str, Any]:
    return {"error": error.title}


def _responses(
    media_type: str,
    form: type[BaseModel],
    errors: list[type[ServiceError]],
    example: Callable[[type[ServiceError]], dict[str, Any]],
) -> dict[int | str, dict[str, Any]]:
    responses: dict[int | str, dict[str, Any]] = {}
    listed: list[type[ServiceError]] = [*errors, ServiceError]
    for error in listed:
        response = responses.setdefault(
            error.status,
            {
                "description": "",
                "content": {media_type: {"schema": form.model_json_schema(), "examples": {}}},
            },
        )
        response["description"] += f"{'; ' if response['description'] else ''}{error.title}"
        examples = response["content"][media_type]["examples"]
        examples[error.code] = {"value": example(error)}
    return responses
