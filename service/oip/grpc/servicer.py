"""GRPCInferenceService: the methods of the protocol, on the same code as the REST endpoints."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import ServicerContext
from pydantic import BaseModel
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceServicer

from service.errors import LoadFailed, ServiceError, UnknownModel
from service.inference.served import ServedModel
from service.oip import metadata
from service.oip.grpc import codec
from service.oip.inference import version_number
from service.oip.schemas import StatisticsResponse
from service.runtime import Runtime

Response = TypeVar("Response", bound=Message)


class InferenceServicer(GRPCInferenceServiceServicer):
    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._models = runtime.pipeline.models

    async def ServerLive(self, _: Any, context: ServicerContext) -> pb.ServerLiveResponse:
        return pb.ServerLiveResponse(live=self._runtime.alive)

    async def ServerReady(self, _: Any, context: ServicerContext) -> pb.ServerReadyResponse:
        return pb.ServerReadyResponse(ready=self._runtime.ready)

    async def ModelReady(
        self, request: pb.ModelReadyRequest, context: ServicerContext
    ) -> pb.ModelReadyResponse:
        """A model that is not served is not ready, which is no error: clients poll until it is."""
        try:
            with self._use(request.name, request.version) as served:
                return pb.ModelReadyResponse(ready=served.alive and not self._runtime.draining)
        except UnknownModel:
            return pb.ModelReadyResponse(ready=False)

    async def ServerMetadata(self, _: Any, context: ServicerContext) -> pb.ServerMetadataResponse:
        return _to_message(metadata.server(), pb.ServerMetadataResponse())

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: ServicerContext
    ) -> pb.ModelMetadataResponse:
        with self._use(request.name, request.version) as served:
            versions = self._models.served_versions(served.manifest.name)
            return _to_message(metadata.model(served, versions), pb.ModelMetadataResponse())

    async def ModelConfig(
        self, request: pb.ModelConfigRequest, context: ServicerContext
    ) -> pb.ModelConfigResponse:
        with self._use(request.name, request.version) as served:
            limits = self._runtime.upload_limits
            config = metadata.config(served, self._models, limits.max_images)
            return ParseDict({"config": config}, pb.ModelConfigResponse())

    async def ModelStatistics(
        self, request: pb.ModelStatisticsRequest, context: ServicerContext
    ) -> pb.ModelStatisticsResponse:
        """Without a name, the statistics of every model."""
        if not request.name:
            statistics = [metadata.statistics(served) for served in self._models]
        else:
            with self._use(request.name, request.version) as served:
                statistics = [metadata.statistics(served)]
        return _to_message(StatisticsResponse(model_stats=statistics), pb.ModelStatisticsResponse())

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: ServicerContext
    ) -> pb.RepositoryIndexResponse:
        entries = await metadata.index(self._models, ready=request.ready)
        return ParseDict(
            {"models": [entry.model_dump() for entry in entries]}, pb.RepositoryIndexResponse()
        )

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        self._runtime.check_model_control()
        if request.parameters:
            raise LoadFailed("models are loaded as the repository holds them: send no parameters")
        await self._runtime.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        self._runtime.check_model_control()
        await self._runtime.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: ServicerContext
    ) -> pb.ModelInferResponse:
        return await self._infer(request, context)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: ServicerContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Responses in the order of requests; a failed request does not end the stream."""
        async for request in requests:
            try:
                response = await self._infer(request, context)
            except ServiceError as exc:
                yield pb.ModelStreamInferResponse(
                    error_message=f"{exc.title}: {exc.detail}",
                    infer_response=pb.ModelInferResponse(id=request.id),
                )
            else:
                yield pb.ModelStreamInferResponse(infer_response=response)

    async def _infer(
        self, request: pb.ModelInferRequest, context: ServicerContext
    ) -> pb.ModelInferResponse:
        runtime = self._runtime
        runtime.check_working()
        timeout_s, remaining_s = runtime.request_timeout_s, context.time_remaining()
        if remaining_s is not None:
            timeout_s = min(timeout_s, remaining_s)
        deadline = time.perf_counter() + timeout_s
        with self._use(request.model_name, request.model_version) as served:
            contract = metadata.contract(served, runtime.upload_limits.max_images)
            decode = partial(codec.decode, request, contract)
            infer_request = await runtime.pipeline.in_pool(deadline, decode)
            infer_request.check_response_size(contract, runtime.max_answer_bytes)
            with runtime.pipeline.admit(served, deadline, infer_request.explain_outputs) as ticket:
                done = await runtime.pipeline.infer(ticket, infer_request.images)
            runtime.metrics.stage("queue", max(result.queue_s for result in done))
            runtime.metrics.stage("inference", max(result.run_s for result in done))
            encode = partial(
                codec.encode,
                infer_request,
                [result.value for result in done],
                model=served.manifest.name,
                version=served.manifest.version,
                labels=served.manifest.labels,
            )
            return await runtime.pipeline.in_pool(deadline, encode)

    @contextmanager
    def _use(self, name: str, version: str) -> Iterator[ServedModel]:
        """A model version, not unloaded before the block ends. Raises `UnknownModel`."""
        number = version_number(name, version) if version else None
        with self._models.use(name, number) as served:
            yield served

    async def _unsupported(self, _: Any, context: ServicerContext) -> None:
        await context.abort(
            StatusCode.UNIMPLEMENTED,
            "shared memory, trace settings and log settings are not supported",
        )

    SystemSharedMemoryStatus = _unsupported
    SystemSharedMemoryRegister = _unsupported
    SystemSharedMemoryUnregister = _unsupported
    CudaSharedMemoryStatus = _unsupported
    CudaSharedMemoryRegister = _unsupported
    CudaSharedMemoryUnregister = _unsupported
    TraceSetting = _unsupported
    LogSettings = _unsupported


def _to_message(body: BaseModel, message: Response) -> Response:
    """Fill a message from the REST response body, which has the same fields."""
    filled: Response = ParseDict(body.model_dump(), message)
    return filled
