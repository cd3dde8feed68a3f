"""Low-pass: scipy's numbers, its corner, and a ramp that comes out late by the declared delay."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from scipy import signal

from rheobase.nodes.lowpass import Lowpass
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply


def test_equals_scipy_bit_for_bit() -> None:
    x = np.random.default_rng(2).standard_normal((300, 3))
    for order in (1, 4, 5):
        sos = signal.butter(order, 40, output="sos", fs=500)
        y = apply(Lowpass(corner=40, order=order), x, rate=500).data
        np.testing.assert_array_equal(y, signal.sosfilt(sos, x, axis=0))


def test_missing_samples_hold_their_channel() -> None:
    x = np.random.default_rng(3).standard_normal((300, 3))
    x[0, 0] = x[50:60, 1] = x[100:103] = np.nan
    y = apply(Lowpass(corner=40), x, rate=500).data
    sos = signal.butter(4, 40, output="sos", fs=500)
    np.testing.assert_allclose(y, naive.by_channel(naive.cascade, x, sos), rtol=0, atol=1e-12)


def test_a_ramp_comes_out_late_by_the_declared_delay() -> None:
    node = Lowpass(corner=40)
    out = node.start(Spec(rate=500, channels=("a",), delay=0.5))
    t = np.arange(2000)[:, None] / 500
    y = apply(node, t, rate=500).data
    np.testing.assert_allclose(t[-1] - y[-1], out.delay - 0.5, rtol=1e-9)


@pytest.mark.parametrize(
    "corner, rate, words",
    [(250, 500, "corner: 250 Hz is not below 250 Hz"), (1, 0, "corner: a filter needs a regular rate")],
)
def test_says_what_is_wrong(corner: float, rate: float, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        Lowpass(corner=corner).start(Spec(rate=rate, channels=("a",)))
