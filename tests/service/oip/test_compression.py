"""Content encodings: what goes in comes out, bombs and fragments do not."""

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import MalformedUpload, UnsupportedEncoding, UploadTooLarge
from service.oip.compression import choose, compress, decompress


@given(st.binary(max_size=2000), st.sampled_from(["gzip", "deflate"]))
@settings(deadline=None, derandomize=True)
def test_what_is_compressed_comes_back(body: bytes, encoding: str) -> None:
    assert decompress(compress(body, encoding), encoding, len(body) or 1) == body


def test_other_compressors_are_understood() -> None:
    assert decompress(gzip.compress(b"abc"), "gzip", 3) == b"abc"
    assert decompress(zlib.compress(b"abc"), " Deflate ", 3) == b"abc"
    assert decompress(b"abc", "", 1) == decompress(b"abc", "identity", 1) == b"abc"


@pytest.mark.parametrize("compressor", [gzip.compress, zlib.compress])
def test_bombs_are_refused(compressor: object) -> None:
    assert callable(compressor)
    bomb = compressor(bytes(50 * 2**20))
    encoding = "gzip" if compressor is gzip.compress else "deflate"
    with pytest.raises(UploadTooLarge, match="more than 1,000 bytes"):
        decompress(bomb, encoding, 1000)


@pytest.mark.parametrize(
    "body",
    [b"", b"plain", gzip.compress(b"abc" * 99)[:-9], gzip.compress(b"a") * 2, zlib.compress(b"a")],
    ids=["empty", "plain", "truncated", "two streams", "zlib"],
)
def test_what_is_not_one_whole_stream_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedUpload):
        decompress(body, "gzip", 1000)


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "zstd", "é"])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        decompress(b"abc", encoding, 1000)


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=0.9, gzip;q=0.5", "deflate"),
        ("GZIP ; q=1.0", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate", "deflate"),
        ("identity, gzip;q=0.5", None),
        ("br", None),
        ("gzip;q=high", None),
        (";;,,=", None),
    ],
)
def test_the_best_liked_encoding_is_chosen(accepted: str, chosen: str | None) -> None:
    assert choose(accepted) == chosen
