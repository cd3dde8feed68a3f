"""Fading means over several spans."""

import numpy as np
import pytest

from rheobase.nodes.averages import Averages
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply


def test_equals_the_mean_and_then_the_recursion() -> None:
    x = np.random.default_rng(0).standard_normal((50, 2))
    y = apply(Averages(over=(4, 1000), age=True), x).data
    np.testing.assert_allclose(y[:, 2:4], np.cumsum(x, axis=0) / np.arange(1, 51)[:, None], rtol=0, atol=1e-12)
    m = x[:4].mean(axis=0)
    np.testing.assert_allclose(y[3, :2], m, rtol=0, atol=1e-12)
    for t in range(4, 50):
        m = m + (x[t] - m) / 4
        np.testing.assert_allclose(y[t, :2], m, rtol=0, atol=1e-12)
    np.testing.assert_allclose(y[:, 4], np.arange(1, 51) / 100)


def test_a_missing_sample_is_as_if_it_had_not_been() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    x[[0, 7], 0] = np.nan
    y = apply(Averages(over=(5,)), x).data
    assert np.isnan(y[0, 0]) and y[7, 0] == y[6, 0]
    kept = np.delete(x[:, 0], [0, 7])
    np.testing.assert_array_equal(np.delete(y[:, 0], [0, 7]), apply(Averages(over=(5,)), kept).data[:, 0])
    np.testing.assert_array_equal(y[:, 1], apply(Averages(over=(5,)), x[:, 1]).data[:, 0])


def test_names_and_refusals() -> None:
    x = Spec(rate=10, channels=("a", "b"))
    assert Averages(over=(2, 7.5), age=True).start(x).channels == ("a~2", "b~2", "a~7.5", "b~7.5", "age")
    for over in ((), (0.5,)):
        with pytest.raises(StreamError, match="over: spans"):
            Averages(over=over).start(x)
