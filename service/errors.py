"""All errors of the service as one small tree: each class has an HTTP status, a code and a title.

Knows nothing of frameworks: http/problems.py turns errors into application/problem+json or, under
/v2, into the errors of the Open Inference Protocol; oip/grpc/calls.py turns them into statuses.
"""

from typing import ClassVar


class ServiceError(Exception):
    """An error whose `detail` may be shown to the client."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class StartupError(ServiceError):
    """The service cannot start. No client ever sees this."""

    code = "startup"


class UnreadableFile(ServiceError):
    """A file of a bulk run, which names it beside its answers. No client ever sees this."""

    code = "unreadable-file"


# The request as such: its line, its headers, its API key, its connection.


class MalformedRequest(ServiceError):
    status, code, title = 400, "malformed-request", "The request is not HTTP"


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "A valid API key is needed"


class CrossOrigin(ServiceError):
    status, code, title = 403, "cross-origin", "Pages of other origins may not ask for this"


class RequestTimeout(ServiceError):
    status, code, title = 408, "request-timeout", "The request took too long to arrive"


class UriTooLong(ServiceError):
    status, code, title = 414, "uri-too-long", "The address is too long"


class MisdirectedRequest(ServiceError):
    status, code, title = 421, "misdirected-request", "The service does not answer to this name"


class HeadersTooLarge(ServiceError):
    status, code, title = 431, "headers-too-large", "The headers are too large"


class ClientGone(ServiceError):
    """The client has left, so nobody reads the answer; it is counted and logged."""

    status, code, title = 499, "client-gone", "The client closed the connection"


# The body of the request.


class NoImage(ServiceError):
    status, code, title = 400, "no-image", "No image in the request"


class MalformedUpload(ServiceError):
    status, code, title = 400, "malformed-upload", "The request body is malformed"


class InvalidInference(ServiceError):
    status, code, title = 400, "invalid-inference", "The inference request is invalid"


class TooManyImages(ServiceError):
    status, code, title = 413, "too-many-images", "Too many images in one request"


class UploadTooLarge(ServiceError):
    status, code, title = 413, "upload-too-large", "The upload has too many bytes"


class UnsupportedEncoding(ServiceError):
    status, code, title = 415, "unsupported-encoding", "The content encoding is not supported"


# An image in it.


class CorruptImage(ServiceError):
    status, code, title = 400, "corrupt-image", "The image cannot be decoded"


class ImageTooLarge(ServiceError):
    status, code, title = 413, "image-too-large", "The image has too many pixels"


class ImageTooCostly(ServiceError):
    """The image is at fault, not the moment: it would be refused again."""

    status, code, title = 413, "image-too-costly", "Decoding the image takes too much"


class UnsupportedMedia(ServiceError):
    status, code, title = 415, "unsupported-media", "Not an image, or not one that can be read"


class OutOfMemory(ServiceError):
    status, code, title = 503, "out-of-memory", "Not enough memory for this image now"


# The parameters, and what they name.


class InvalidRequest(ServiceError):
    status, code, title = 422, "invalid-request", "The parameters are invalid"


class InvalidSelection(ServiceError):
    status, code, title = 422, "invalid-selection", "The selection does not fit the model"


class AnswerTooLarge(ServiceError):
    """Raised before anything is computed."""

    status, code, title = 422, "answer-too-large", "The answer would have too many bytes"

    @classmethod
    def check(cls, length: int, max_bytes: int, smaller: str) -> None:
        """Raises it for an answer of about `length` bytes; `smaller` is what to ask for instead."""
        if length > max_bytes:
            raise cls(f"about {length:,} bytes, and at most {max_bytes:,} are sent; {smaller}")


class UnknownModel(ServiceError):
    status, code, title = 404, "unknown-model", "No such model"


class UnknownImage(ServiceError):
    status, code, title = 404, "unknown-image", "No image has this id"


class ExpiredImage(ServiceError):
    status, code, title = 404, "expired-image", "The image with this id is no longer kept"


class InputMismatch(ServiceError):
    status, code, title = 409, "input-mismatch", "The image was prepared for another input size"


# The state of the server.


class ModelControlOff(ServiceError):
    status, code, title = 403, "model-control-off", "Clients may not load or unload models here"


class LoadFailed(ServiceError):
    status, code, title = 400, "load-failed", "The model cannot be loaded"


class QueueFull(ServiceError):
    status, code, title = 429, "queue-full", "The server is busy"


class UploadsFull(ServiceError):
    status, code, title = 429, "uploads-full", "Too many uploads at once"


class AnswersUnread(ServiceError):
    status, code, title = 429, "answers-unread", "Too many answers wait to be read"


class InferenceFailed(ServiceError):
    status, code, title = 500, "inference-failed", "The model failed on this input"


class NotReady(ServiceError):
    status, code, title = 503, "not-ready", "Not ready"


class EngineUnavailable(ServiceError):
    status, code, title = 503, "engine-unavailable", "No engine can run the model now"


class Stopped(ServiceError):
    status, code, title = 503, "stopped", "The server is shutting down"


class StoreUnavailable(ServiceError):
    status, code, title = 503, "store-unavailable", "Classified images cannot be looked up now"


class DeadlineExceeded(ServiceError):
    status, code, title = 504, "deadline-exceeded", "The answer would have come too late"
