"""Content encodings: gzip and deflate, decompressed within a size limit, compressed on request.

Knows bytes and header values; nothing of requests, or of what the bytes mean.
"""

import re
import zlib

from service.errors import MalformedUpload, UnsupportedEncoding, UploadTooLarge

_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # what HTTP calls deflate is the zlib format
_LEVEL = 1  # float tensors compress poorly: higher levels take longer and save next to nothing
_QUALITY = re.compile(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*")


def decompress(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The decoded body, at most `max_bytes` long; a decompression bomb is cut off there.

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
    """The supported encoding that an Accept-Encoding header prefers; None to send it as it is."""
    qualities = {}
    for part in accepted.split(","):
        name, _, parameter = part.partition(";")
        qualities[name.strip().lower()] = _quality(parameter)
    best = max(_WINDOW_BITS, key=lambda name: qualities.get(name, 0.0))
    return best if qualities.get(best, 0.0) > qualities.get("identity", 0.0) else None


def compress(body: bytes, encoding: str) -> bytes:
    """`encoding` is one that `choose` returned."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[encoding])
    return stream.compress(body) + stream.flush()


def _quality(parameter: str) -> float:
    if not parameter.strip():
        return 1.0
    match = _QUALITY.fullmatch(parameter)
    return float(match[1]) if match else 0.0
