"""What is no image, or a damaged one, is told apart, and is the client's fault."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from models.imaging import FORMATS
from service.errors import CorruptImage, NoImage, ServiceError, UnsupportedMedia
from tests.service.imaging.encoded import (
    TURNED,
    decode,
    exif,
    noise,
    quarters,
    save,
    with_palette,
)


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"<!DOCTYPE html><html><img src=x></html>",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        bytes(100),
        b"\xff",
    ],
    ids=["text", "HTML", "PDF", "SVG", "zeros", "one byte"],
)
def test_what_is_no_image_is_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedMedia):
        decode(data)


def test_nothing_is_no_image() -> None:
    with pytest.raises(NoImage):
        decode(b"")


@pytest.mark.parametrize("format", ["PCX", "TGA", "SGI", "DDS"])
def test_formats_that_only_pillow_knows_are_unsupported(format: str) -> None:
    data = save(quarters(), format)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == format
    with pytest.raises(UnsupportedMedia):
        decode(data)


def test_postscript_is_unsupported_and_never_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data = save(quarters(), "EPS")
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "EPS"
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("it was run"))
    with pytest.raises(UnsupportedMedia):
        decode(data)


@pytest.mark.parametrize("format", ["TIFF", "PPM"])
def test_floating_point_is_unsupported(format: str) -> None:
    with pytest.raises(UnsupportedMedia, match="floating-point"):
        decode(save(Image.new("F", (2, 2), 0.5), format))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns, then raises
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "JPEG2000"])
def test_a_cut_image_is_corrupt(format: str, share: float) -> None:
    data = noise(format)
    with pytest.raises(CorruptImage):
        decode(data[: int(len(data) * share)])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kept", [3, 8, 16, 24])
@pytest.mark.parametrize("format", FORMATS)
def test_an_image_cut_in_its_header_is_corrupt_or_unsupported(format: str, kept: int) -> None:
    with pytest.raises((CorruptImage, UnsupportedMedia)):
        decode(noise(format)[:kept])


def damaged_avif(find: bytes, offset: int, replacement: bytes) -> bytes:
    frames = [quarters(), quarters().rotate(180)]
    data = bytearray(save(frames[0], "AVIF", save_all=True, append_images=frames[1:]))
    start = data.index(find) + offset
    data[start : start + len(replacement)] = replacement
    return bytes(data)


@pytest.mark.parametrize(
    ("find", "offset", "replacement"),
    [(b"mdat", 4, bytes(100)), (b"mdhd", 4 + 4 + 16, bytes(4))],
    ids=["zeros for pixels", "no time scale"],
)
def test_a_damaged_avif_is_corrupt(find: bytes, offset: int, replacement: bytes) -> None:
    with pytest.raises((CorruptImage, UnsupportedMedia)):
        decode(damaged_avif(find, offset, replacement))


VALID = [
    *map(noise, FORMATS),
    noise("JPEG", progressive=True),
    noise("TIFF", compression="tiff_lzw"),
    noise("TIFF", compression="jpeg"),
    noise("WEBP", lossless=True, exif=exif(TURNED)),
    noise("PNG", exif=exif(TURNED), icc_profile=bytes(100)),
    noise("GIF", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    noise("PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    noise("MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))], exif=exif(TURNED)),
    with_palette(bytes([0, 99])),
]


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    """A valid file with a few bits turned, pieces lost, or pieces of other files put in."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        near = draw(st.sampled_from([64, 512, len(data)]))  # most of what can break comes first
        start = draw(st.integers(0, max(0, min(near, len(data)) - 1)))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["turn", "set", "lose", "cut", "splice"])):
            case "turn":
                data[start : start + 1] = bytes(
                    byte ^ 1 << draw(st.integers(0, 7)) for byte in data[start : start + 1]
                )
            case "set":
                data[start : start + 4] = draw(
                    st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff"])
                )
            case "lose":
                del data[start : start + length]
            case "cut":
                del data[start:]
            case "splice":
                other = draw(st.sampled_from(VALID))
                place = draw(st.integers(0, len(other) - 1))
                data[start : start + length] = other[place : place + length]
    return bytes(data)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None, derandomize=True)
@given(damaged_images())
def test_damage_is_answered_with_a_picture_or_the_clients_fault(data: bytes) -> None:
    status = 200
    try:
        decode(data)
    except ServiceError as exc:
        status = exc.status
    assert status in (200, 400, 413, 415)
