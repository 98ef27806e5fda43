"""Arrays as JSON, written in pieces, so that no other thread waits for a whole one.

orjson holds the interpreter's lock for as long as a call takes: tens of megabytes in one call would
stop the event loop even from a thread of their own.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

BYTES_PER_NUMBER = 14  # float32 as text, with its comma
_NUMBERS_PER_PIECE = 16_384  # about 200 KiB, which take a millisecond


def json_array(values: npt.NDArray[Any]) -> orjson.Fragment:
    """Nested lists of numbers, as a part of what orjson writes; float32 keeps its shortest form."""
    return orjson.Fragment(_text(np.ascontiguousarray(values)))


def _text(values: npt.NDArray[Any]) -> bytes:
    if values.size <= _NUMBERS_PER_PIECE:
        return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    if values[0].size > _NUMBERS_PER_PIECE:
        return b"[" + b",".join(map(_text, values)) + b"]"
    step = _NUMBERS_PER_PIECE // values[0].size
    lists = [_text(values[start : start + step]) for start in range(0, len(values), step)]
    return b"[" + b",".join(text[1:-1] for text in lists) + b"]"
