"""What counts as similar and as collapsed, on values worked out by hand."""

import numpy as np
import pytest

from models import collapse

COLUMN = np.array([np.nan, 0.95, 0.5, 0.99, 0.92])
ROW = np.array([np.nan, 0.95, 0.99, 0.3, 0.91])


def test_neighbours_are_read_below_the_diagonal() -> None:
    matrix = np.array([[1, 0.1, 0.2], [0.3, 1, 0.4], [0.5, 0.6, 1]], np.float32)
    found = collapse.neighbours(matrix)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([np.nan, 0.3, 0.6], np.float32))


def test_pairs_are_given_to_the_later_block() -> None:
    pairs = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(
        collapse.by_block(pairs), [[np.nan, 1.0, 2.0], [np.nan, 3.0, 4.0]]
    )


def test_similar_blocks_have_columns_above_the_threshold() -> None:
    assert collapse.similar_blocks(COLUMN, 0.9) == (1, 3, 4)
    assert collapse.similar_blocks(COLUMN, 0.95) == (3,)  # at the threshold is not above it


def test_collapsed_blocks_have_rows_above_it_too() -> None:
    assert collapse.collapsed_blocks(COLUMN, ROW, 0.9) == (1, 4)


def test_blocks_alike_up_to_sign_are_not_similar_and_have_opposite_pairs() -> None:
    above = np.array([np.nan, 0.4, 0.4, 0.9, 0.2])
    below = np.array([np.nan, 0.4, 0.4, 0.0, 0.2])
    assert collapse.blocks_alike_up_to_sign(above, below, similar=(2,)) == (1,)


@pytest.mark.parametrize(
    ("alike", "donor"), [((), 4), ((4,), 3), ((1, 4), 3), ((1, 2, 3, 4), 0), ((1, 2), 4)]
)
def test_the_donor_is_the_last_block_unlike_the_one_before_it(
    alike: tuple[int, ...], donor: int
) -> None:
    assert collapse.donor(5, alike) == donor
