"""GRPCInferenceService: the protocol's calls, each answered from what /v2 is answered from."""

import asyncio
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

from service.errors import LoadFailed, ServiceError
from service.inference.repository import ServedModel
from service.oip import metadata
from service.oip.grpc import codec
from service.oip.inference import version_number
from service.runtime import Runtime

_DRAIN_LAG_S = 0.5  # until an idle stream notices

Answer = TypeVar("Answer", bound=Message)


class Inference(GRPCInferenceServiceServicer):
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
        with self._use(request.name, request.version) as served:
            return pb.ModelReadyResponse(ready=served.alive and not self._runtime.draining)

    async def ServerMetadata(self, _: Any, context: ServicerContext) -> pb.ServerMetadataResponse:
        return _message(metadata.server(), pb.ServerMetadataResponse())

    async def ModelMetadata(
        self, request: pb.ModelMetadataRequest, context: ServicerContext
    ) -> pb.ModelMetadataResponse:
        with self._use(request.name, request.version) as served:
            versions = self._models.served_versions(served.manifest.name)
            return _message(metadata.model(served, versions), pb.ModelMetadataResponse())

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
        """Of every model where none is named."""
        if not request.name:
            found = [metadata.statistics(served) for served in self._models]
        else:
            with self._use(request.name, request.version) as served:
                found = [metadata.statistics(served)]
        return ParseDict(
            {"model_stats": [one.model_dump() for one in found]}, pb.ModelStatisticsResponse()
        )

    async def RepositoryIndex(
        self, request: pb.RepositoryIndexRequest, context: ServicerContext
    ) -> pb.RepositoryIndexResponse:
        entries = metadata.index(self._models, ready=request.ready)
        return ParseDict(
            {"models": [entry.model_dump() for entry in entries]}, pb.RepositoryIndexResponse()
        )

    async def RepositoryModelLoad(
        self, request: pb.RepositoryModelLoadRequest, context: ServicerContext
    ) -> pb.RepositoryModelLoadResponse:
        self._runtime.check_working()
        if request.parameters:
            raise LoadFailed("models are loaded as the repository holds them: send no parameters")
        await self._models.load(request.model_name)
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: pb.RepositoryModelUnloadRequest, context: ServicerContext
    ) -> pb.RepositoryModelUnloadResponse:
        self._runtime.check_working()
        await self._models.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def ModelInfer(
        self, request: pb.ModelInferRequest, context: ServicerContext
    ) -> pb.ModelInferResponse:
        return await self._infer(request, context)

    async def ModelStreamInfer(
        self, requests: AsyncIterator[pb.ModelInferRequest], context: ServicerContext
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answers in the order of requests; one that fails does not end the stream."""
        async for request in self._until_draining(requests):
            try:
                answer = await self._infer(request, context)
            except ServiceError as exc:
                failed = pb.ModelInferResponse(id=request.id)
                yield pb.ModelStreamInferResponse(
                    error_message=f"{exc.title}: {exc.detail}", infer_response=failed
                )
            else:
                yield pb.ModelStreamInferResponse(infer_response=answer)

    async def _until_draining(
        self, requests: AsyncIterator[pb.ModelInferRequest]
    ) -> AsyncIterator[pb.ModelInferRequest]:
        """What a stream brings; one that brings nothing does not keep the server from ending."""
        while True:
            following = asyncio.ensure_future(anext(requests, None))
            try:
                while not (await asyncio.wait({following}, timeout=_DRAIN_LAG_S))[0]:
                    self._runtime.check_working()
            finally:
                following.cancel()
            if (request := following.result()) is None:
                return
            yield request

    async def _infer(
        self, request: pb.ModelInferRequest, context: ServicerContext
    ) -> pb.ModelInferResponse:
        runtime = self._runtime
        runtime.check_working()
        left_s = context.time_remaining()
        longest_s = runtime.request_timeout_s
        deadline = time.perf_counter() + (longest_s if left_s is None else min(left_s, longest_s))
        with self._use(request.model_name, request.model_version) as served:
            contract = metadata.contract(served, runtime.upload_limits.max_images)
            wanted = await runtime.pipeline.in_pool(partial(codec.decode, request, contract))
            wanted.check_answer(contract, runtime.max_answer_bytes)
            with runtime.pipeline.admit(served, deadline, wanted.explained) as ticket:
                done = await runtime.pipeline.infer(ticket, wanted.images)
            runtime.metrics.stage("queue", max(one.queue_s for one in done))
            runtime.metrics.stage("inference", max(one.run_s for one in done))
            encode = partial(
                codec.encode,
                wanted,
                [one.value for one in done],
                model=served.manifest.name,
                version=served.manifest.version,
                labels=served.manifest.labels,
            )
            return await runtime.pipeline.in_pool(encode)

    @contextmanager
    def _use(self, name: str, version: str) -> Iterator[ServedModel]:
        """A version that will not be unloaded before the block ends. Raises `UnknownModel`."""
        number = version_number(name, version) if version else None
        with self._models.use(name, number) as served:
            yield served

    async def _unsupported(self, _: Any, context: ServicerContext) -> None:
        await context.abort(
            StatusCode.UNIMPLEMENTED, "no shared memory, no tracing, no settings of logs"
        )

    SystemSharedMemoryStatus = _unsupported
    SystemSharedMemoryRegister = _unsupported
    SystemSharedMemoryUnregister = _unsupported
    CudaSharedMemoryStatus = _unsupported
    CudaSharedMemoryRegister = _unsupported
    CudaSharedMemoryUnregister = _unsupported
    TraceSetting = _unsupported
    LogSettings = _unsupported


def _message(answer: BaseModel, message: Answer) -> Answer:
    """What /v2 answers in JSON, as the message with the same fields."""
    filled: Answer = ParseDict(answer.model_dump(), message)
    return filled
