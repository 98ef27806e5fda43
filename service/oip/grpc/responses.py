"""The responses of calls: how many bytes may wait for clients to take them.

gRPC cannot end a call whose client takes nothing of its response, so what waits is bounded instead.
"""

from grpc.aio import ServicerContext

from service.errors import AnswersUnread

# Responses up to this size always go out: of each call, gRPC itself holds as much.
SMALL_BYTES = 64 * 2**10


class Responses:
    """Sends the responses of all calls to one server."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting_bytes = 0

    async def send(self, context: ServicerContext, response: bytes) -> None:
        """Returns once the client has taken nearly all of it. Raises `AnswersUnread`."""
        size = len(response) if len(response) > SMALL_BYTES else 0
        if size and self._waiting_bytes + size > self._max_bytes:
            raise AnswersUnread("clients take too long to read large responses", retry_after_s=1)
        self._waiting_bytes += size
        try:
            await context.write(response)
        finally:
            self._waiting_bytes -= size
