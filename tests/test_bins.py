"""Bins."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.nodes.bins import Bins
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop, apply


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(["sum", "mean"]), st.sampled_from([0, 0.3, 0.9]))
def test_equals_its_naive_twin(seed: int, samples: int, how: str, missing: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.poisson(2, (100, 3)).astype(float)
    x[rng.random(x.shape) < missing] = rng.choice([np.nan, np.inf, -np.inf])
    y = apply(Bins.make(width=samples / 1000, how=how), x, rate=1000).data
    np.testing.assert_allclose(y, naive.bins(x, samples, how == "mean"), atol=1e-12)


def test_a_bin_carries_the_time_of_its_last_sample() -> None:
    spec = Spec(rate=100, channels=("a",), unit="V", delay=1)
    times = 7 + np.arange(10) / 100
    y = apply(Bins(width=0.05), np.ones((10, 1)), spec, times)
    np.testing.assert_array_equal(y.times, times[[4, 9]])
    out = Bins(width=0.05).start(spec)
    assert (out.rate, out.unit) == (20, "count")
    assert out.delay == pytest.approx(1 + (times[4] - times[:5].mean()))
    assert Bins(width=0.05, how="mean").start(spec).unit == "V"


def test_a_gap_drops_the_bin_that_it_falls_into() -> None:
    loop = Loop([Bins(width=0.04)], [-1], [0])
    loop.start(Spec(rate=100, channels=numbered("c", 1)))
    x, t = np.ones((6, 1)), np.arange(6) / 100
    got = [b for s in range(2) for _, b in loop.process(Block(x, t + s, seq=6 * s, segment=s))]
    assert [b.data.tolist() for b in got] == [[[4]], [[4]]]
    assert [b.times.tolist() for b in got] == [[0.03], [1.03]]


@pytest.mark.parametrize(
    "width, rate, words",
    [
        (0.02, 0, "needs a regular rate"),
        (0.02, 1024, "width: 0.02 s are 20.48 samples at 1024 Hz; did you mean 0.0195312"),
        (0.001, 100, "width: 0.001 s are 0.1 samples at 100 Hz; did you mean 0.01"),
    ],
)
def test_says_what_is_wrong(width: float, rate: float, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        Bins(width=width).start(Spec(rate=rate, channels=("a",)))


def test_a_width_that_is_whole_but_for_rounding_is_taken() -> None:
    assert Bins(width=0.3).start(Spec(rate=10, channels=("a",))).rate == pytest.approx(10 / 3)
