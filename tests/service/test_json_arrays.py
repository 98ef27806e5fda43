"""Arrays as JSON: the same text as in one piece, written in many."""

from typing import Any

import numpy as np
import orjson
import pytest

from service import json_arrays
from service.json_arrays import json_array


@pytest.mark.parametrize(
    "shape",
    [(3,), (0,), (2, 0), (2, 3, 4), (50_000,), (3, 20_000), (7, 5, 9, 101), (2, 1), (40_000, 3)],
)
def test_the_text_is_that_of_the_whole_array(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for array in (values, values.T):
        whole = orjson.dumps(array.copy(order="C"), option=orjson.OPT_SERIALIZE_NUMPY)
        assert orjson.dumps(json_array(array)) == whole


def test_no_piece_holds_the_interpreter_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Recorder:
        OPT_SERIALIZE_NUMPY = orjson.OPT_SERIALIZE_NUMPY
        Fragment = orjson.Fragment

        @staticmethod
        def dumps(values: np.ndarray[Any, Any], option: int) -> bytes:
            sizes.append(values.size)
            return orjson.dumps(values, option=option)

    monkeypatch.setattr(json_arrays, "orjson", Recorder)
    for shape in ((16, 6, 65, 65), (4, 3, 197, 197), (400_000,)):
        sizes.clear()
        json_array(np.zeros(shape, np.float32))
        assert sum(sizes) == np.prod(shape)
        assert max(sizes) <= 16_384
        assert len(sizes) < 2 * np.prod(shape) / 8192
