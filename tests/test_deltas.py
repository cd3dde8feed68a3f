"""Deltas: differences, at the start of a segment and over missing samples."""

from __future__ import annotations

import numpy as np
import pytest

from rheobase.nodes.deltas import Deltas
from rheobase.stream.block import Block, Spec
from rheobase.stream.check import Alone


def test_differences_begin_at_zero_in_each_segment() -> None:
    x = np.random.default_rng(0).standard_normal((20, 3))
    alone = Alone(Deltas(), [Spec(rate=10, channels=("a", "b", "c"), unit="m")])
    assert alone.out == Spec(rate=10, channels=("a", "b", "c", "d_a", "d_b", "d_c"), unit="m")
    t = np.arange(20) / 10
    y = np.concatenate([b.data for s in (0, 1) for b in alone.feed([Block(x, t, 20 * s, s)])])
    one = np.hstack([x, np.vstack([np.zeros(3), np.diff(x, axis=0)])])
    np.testing.assert_array_equal(y, np.vstack([one, one]))


@pytest.mark.parametrize("hole", [np.nan, np.inf])
def test_over_a_missing_sample_to_the_last_that_was_there(hole: float) -> None:
    x = np.array([[hole], [1.0], [3.0], [hole], [hole], [7.0], [8.0]])
    [y] = Alone(Deltas(), [Spec(rate=1, channels=("a",))]).feed([Block(x, np.arange(7.0))])
    nan = np.nan
    np.testing.assert_array_equal(y.data[:, 0], [nan, 1, 3, nan, nan, 7, 8])
    np.testing.assert_array_equal(y.data[:, 1], [nan, 0, 2, nan, nan, 4, 1])
