"""Pictures of measures of any model: nothing is cut off, undefined values are left out."""

import numpy as np
import pytest

from models.arrays import Float32Array
from service.explain.render.similarity import SimilarityPicture, render_similarity
from tests.support.panels import canvas_of, colours


def picture(
    depth: int, heads: int, *, signed: bool = True, softmax: bool = False, variants: int = 3
) -> SimilarityPicture:
    random = np.random.default_rng(0)

    def between(low: float, high: float, *shape: int) -> Float32Array:
        return random.uniform(low, high, shape).astype(np.float32)

    low = -1 if signed else 0
    return SimilarityPicture(
        title=f"{39 * 'm'}…, version 1000, re-attention stage",
        subtitle=f"image {'0123456789abcdef' * 2}; * a block that mixes heads, with a LayerNorm "
        "over them",
        verdict="All blocks similar to the one before (mean column cosine above 0.9): "
        + ", ".join(map(str, range(1, depth))),
        blocks=[f"{block}{'*' * (block > 0)}" for block in range(depth)],
        matrices={
            name: between(low, 1, depth, depth) for name in ("column", "row", "centred")[:variants]
        },
        signed=signed,
        threshold=0.9,
        neighbours=between(low, 1, depth - 1),
        above_threshold=between(0, 1, depth - 1),
        heads=between(low, 1, depth, heads, heads),
        features=between(low, 1, depth),
        entropy=between(0, 5, depth, heads) if softmax else None,
        max_entropy=5.28,
        attention_distance=between(0, 160, depth, heads) if softmax else None,
    )


@pytest.mark.parametrize(("depth", "heads"), [(1, 1), (2, 3), (6, 3), (32, 12), (96, 12), (2, 160)])
@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("variants", [1, 3])
def test_nothing_is_cut_off(depth: int, heads: int, softmax: bool, variants: int) -> None:
    drawn = picture(depth, heads, signed=not softmax, softmax=softmax, variants=variants)
    canvas_of(render_similarity(drawn))


def test_what_is_not_defined_is_white_and_has_no_number() -> None:
    drawn = picture(4, 2, variants=1)
    drawn.matrices["column"][1] = drawn.matrices["column"][:, 1] = np.nan
    drawn.matrices["column"][0, 0] = 1
    drawn.neighbours[:2] = np.nan
    found = canvas_of(render_similarity(drawn))
    first = np.abs(found - colours(np.ones(1), signed=True)).max(axis=-1) <= 1
    top = int(first.any(axis=1).argmax())
    left = int(first[top].argmax())
    undefined = found[top + 215 : top + 415, left + 5 : left + 835]
    assert (undefined == 255).all()
    assert not (found[top + 425 : top + 625, left + 5 : left + 205] == 255).all()
