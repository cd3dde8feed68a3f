"""Integral: its law, what a sum without forgetting would be, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest

from rheobase.nodes.integral import Integral
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.check import Alone
from rheobase.stream.fuse import apply

SPEC = Spec(rate=200, channels=("a", "b"), unit="m/s^2")


def test_a_sine_is_integrated_and_an_offset_is_not() -> None:
    """y' = x - y/tau of sin(wt) is sin(wt - arctan(w tau)) / sqrt(w^2 + 1/tau^2), of 1 it is tau."""
    t = np.arange(8000) / 200
    w, tau = 3.0, 2.0
    x = np.stack([np.sin(w * t), np.ones(8000)], axis=1)
    y = apply(Integral(tau=tau), x, SPEC).data
    late = t > 25
    np.testing.assert_allclose(y[late, 0], np.sin(w * t[late] - np.arctan(w * tau)) / np.hypot(w, 1 / tau), atol=1e-4)
    np.testing.assert_allclose(y[late, 1], tau, atol=1e-5)


def test_with_a_long_memory_it_is_the_sum() -> None:
    x = np.random.default_rng(0).standard_normal((300, 2))
    y = apply(Integral(tau=1e7), x, SPEC).data
    before = np.vstack([np.zeros(2), x[:-1]])
    np.testing.assert_allclose(y, np.cumsum((x + before) / 2, axis=0) / 200, atol=1e-6)


def test_missing_samples_and_segments() -> None:
    """A hole counts for nothing; a new segment starts from 0."""
    x = np.random.default_rng(1).standard_normal((60, 2))
    holed, filled = x.copy(), x.copy()
    holed[20:25, 0], filled[20:25, 0] = np.nan, 0.0
    holed[30, 1], filled[30, 1] = np.inf, 0.0
    alone = Alone(Integral(tau=0.1), [SPEC])
    expected = apply(Integral(tau=0.1), filled, SPEC).data
    expected[~np.isfinite(holed)] = np.nan
    for segment in range(2):
        [y] = alone.feed([Block(holed, segment + np.arange(60) / 200, 60 * segment, segment)])
        np.testing.assert_array_equal(y.data, expected)


def test_says_what_comes_out_and_what_is_wrong() -> None:
    assert Integral(tau=1).start(SPEC).unit == "m/s^2 s"
    assert Integral(tau=1, unit="m/s").start(SPEC) == SPEC.replace(unit="m/s")
    with pytest.raises(StreamError, match="needs a regular rate"):
        Integral(tau=1).start(SPEC.replace(rate=0))
