"""Positions while they change: two places and their times, written out."""

import numpy as np
import pytest

from rheobase.nodes.moving import Moving
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop, apply


def test_equals_two_places_and_their_times() -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal((400, 2)), axis=0)
    x[50, 1] = np.nan
    t = 5 + np.arange(400) / 60 + rng.uniform(-0.004, 0.004, 400)
    loop = Loop([Moving(speed=15, over=0.2)], [-1], [0])
    loop.start(Spec(rate=60, channels=("x", "y")))
    [(_, y)] = loop.process(Block(x, t))
    expected = np.full_like(x, np.nan)
    for k in range(12, 400):
        if np.linalg.norm(x[k] - x[k - 12]) / (t[k] - t[k - 12]) >= 15:
            expected[k] = x[k]
    assert 50 < np.isfinite(expected[:, 0]).sum() < 350
    assert np.array_equal(y.data, expected, equal_nan=True)


def test_rest_is_missing() -> None:
    x = np.r_[np.zeros(50), np.arange(50.0), np.full(50, 49.0)][:, None]
    there = np.isfinite(apply(Moving(speed=9, over=0.5), x, Spec(rate=10, channels=("x",))).data[:, 0])
    assert np.flatnonzero(there).tolist() == list(range(55, 100))


@pytest.mark.parametrize(
    "rate, over, message", [(0, 0.5, "its input is irregular"), (10, 0.01, "over: 0.01 s are less than a sample")]
)
def test_what_a_user_gets_wrong(rate: float, over: float, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        Moving(speed=1, over=over).start(Spec(rate=rate, channels=("x",)))
