"""Settings that hold several values with commas between them: keys, origins, hosts, formats.

Each reader raises `ValueError` for a setting that is there and yet has no value, since what it was
meant to close would stand open, and for a value that no request could ever match.
"""

import re
from ipaddress import ip_address

from models.imaging import FORMATS

_MAX_KEY_CHARACTERS = 4096  # what HTTP and gRPC servers take of a header at the least
_UNSENDABLE = re.compile(r"[\0-\x1f\x7f]")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+")
_HOST_NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def api_keys(text: str) -> list[str]:
    """Keys as they are compared."""
    keys = _parts(text)
    for key in keys:  # no message repeats a key
        if len(key) > _MAX_KEY_CHARACTERS:
            raise ValueError(f"a key has more than {_MAX_KEY_CHARACTERS:,} characters")
        if _UNSENDABLE.search(key):
            raise ValueError("a key has a control character, which no header can carry")
    return keys


def origins(text: str) -> list[str]:
    """Origins as browsers send them, or `*`."""
    found = [part.lower() for part in _parts(text)]
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(
                f"{origin} is not an origin such as https://app.example.org, without a path"
            )
    return found


def host_names(text: str) -> list[str]:
    """Names in lower case, those that begin with `*.` standing for all below them, or `*`."""
    found = [part.lower() for part in _parts(text)]
    for name in found:
        if name != "*" and not _HOST_NAME.fullmatch(name) and not _is_address(name):
            raise ValueError(
                f"{name} is not a name such as api.example.org or *.example.org, without a port"
            )
    return found


def image_formats(text: str) -> list[str]:
    """Formats as their reader names them; `all` is every one that it reads."""
    found = [part.upper() for part in _parts(text)]
    if found == ["ALL"]:
        return list(FORMATS)
    for name in found:
        if name not in FORMATS:
            raise ValueError(
                f"{name.lower()} is not among {', '.join(FORMATS).lower()}, which can be read here"
            )
    return found


def _is_address(text: str) -> bool:
    try:
        ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def _parts(text: str) -> list[str]:
    found = [part for part in map(str.strip, text.split(",")) if part]
    if not found:
        raise ValueError("nothing is in it; leave the setting out instead")
    return found
