"""Content encodings: gzip and deflate, undone within a bound and applied on request.

Knows bytes and the values of headers; nothing of requests, or of what the bytes mean.
"""

import re
import zlib

from service.errors import MalformedUpload, UnsupportedEncoding, UploadTooLarge

_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # HTTP's deflate is what zlib calls zlib
_LEVEL = 1  # tensors of floats shrink little: higher levels cost time and save nothing
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*")


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A body without its content encoding, at most `max_bytes` long; a bomb stops there.

    Raises `UnsupportedEncoding`, `MalformedUpload` or `UploadTooLarge`.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        raise UnsupportedEncoding(f"send {', '.join(_WINDOW_BITS)} or identity, not {name[:40]!r}")
    stream = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        content = stream.decompress(body, max_bytes + 1)
    except zlib.error as exc:
        raise MalformedUpload(f"the body is not {name}") from exc
    if len(content) > max_bytes:
        raise UploadTooLarge(f"the decompressed body has more than {max_bytes:,} bytes")
    if not stream.eof or stream.unused_data:
        raise MalformedUpload(f"the body is not one whole {name} stream")
    return content


def choose(accepted: str) -> str | None:
    """The encoding that an Accept-Encoding header likes best, or none."""
    liked = {}
    for part in accepted.split(","):
        name, _, parameter = part.partition(";")
        liked[name.strip().lower()] = _quality(parameter)
    best = max(_WINDOW_BITS, key=lambda name: liked.get(name, 0.0))
    return best if liked.get(best, 0.0) > liked.get("identity", 0.0) else None


def compress(body: bytes, name: str) -> bytes:
    """In one of the encodings that `choose` gives."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[name])
    return stream.compress(body) + stream.flush()


def _quality(parameter: str) -> float:
    if not parameter.strip():
        return 1.0
    found = _QUALITY.fullmatch(parameter)
    return float(found[1]) if found else 0.0
