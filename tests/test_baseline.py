"""Baseline: the mean of the start, of what was there."""

from __future__ import annotations

import numpy as np
import pytest

from rheobase.nodes.baseline import Baseline
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.check import Alone

SPEC = Spec(rate=10, channels=("a", "b"), unit="uT")


@pytest.mark.parametrize("size", [True, False])
def test_less_the_mean_of_the_first_samples_of_each_segment(size: bool) -> None:
    x = np.random.default_rng(0).standard_normal((12, 2))
    x[1, 0] = x[7, 1] = np.nan
    x[:8, 1] = np.nan
    alone = Alone(Baseline(over=0.35, size=size), [SPEC])
    assert alone.out == SPEC
    expected = np.full((12, 2), np.nan)
    for k in range(12):
        expected[k, 0] = x[k, 0] - np.nanmean(x[: min(k + 1, 4), 0])
        expected[k, 1] = x[k, 1] - x[8, 1]
    expected = np.abs(expected) if size else expected
    for segment in range(2):
        [y] = alone.feed([Block(x, 5 * segment + np.arange(12) / 10, 12 * segment, segment)])
        np.testing.assert_allclose(y.data, expected, atol=1e-15)


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="over: expected"):
        Baseline.make(over=0)
