"""Lags."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.nodes.lags import Lags
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop, apply

SPEC = Spec(rate=10, channels=("a", "b"), unit="V")


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5]), st.sampled_from([0.0, -1.5, np.nan]))
def test_equals_its_naive_twin(seed: int, k: int, fill: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((20, 2))
    x[rng.random(x.shape) < 0.2] = np.nan
    np.testing.assert_array_equal(apply(Lags(k=k, fill=fill), x, SPEC).data, naive.lags(x, k, fill))


def test_names_say_channel_and_lag() -> None:
    out = Lags(k=3).start(SPEC)
    assert out.channels == ("a", "b", "a@-1", "b@-1", "a@-2", "b@-2")
    assert (out.rate, out.unit, out.delay) == (10, "V", 0)


def test_nothing_is_remembered_across_a_gap() -> None:
    loop = Loop([Lags(k=3)], [-1], [0])
    loop.start(SPEC)
    x, t = np.arange(1.0, 9).reshape(4, 2), np.arange(4) / 10
    for s in range(2):
        [(_, got)] = loop.process(Block(x, t + 9 * s, seq=4 * s, segment=s))
        np.testing.assert_array_equal(got.data, naive.lags(x, 3, 0))


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="k: expected"):
        Lags.make(k=0)
