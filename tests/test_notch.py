"""Notch: the hum goes, its multiples too, the rest stays."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from scipy import signal

from rheobase.nodes.notch import Notch
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

RATE = 1000.0


def test_equals_scipy_bit_for_bit() -> None:
    x = np.random.default_rng(4).standard_normal((300, 3))
    b, a = signal.iirnotch(60, 20, RATE)
    y = apply(Notch(frequency=60, q=20), x, rate=RATE).data
    np.testing.assert_array_equal(y, signal.sosfilt([[*b, *a]], x, axis=0))


def test_missing_samples_hold_their_channel() -> None:
    x = np.random.default_rng(5).standard_normal((300, 3))
    x[0, 0] = x[50:60, 1] = x[100:103] = np.nan
    b, a = signal.iirnotch(60, 20, RATE)
    y = apply(Notch(frequency=60, q=20), x, rate=RATE).data
    np.testing.assert_allclose(y, naive.by_channel(naive.cascade, x, [[*b, *a]]), rtol=0, atol=1e-12)


def test_hum_and_its_multiples_go_and_the_rest_stays() -> None:
    t = np.arange(20_000)[:, None] / RATE
    hum = sum(np.sin(2 * np.pi * f * t) for f in (50, 100, 150))
    left = apply(Notch(harmonics=3), hum, rate=RATE).data
    assert np.abs(left[-1000:]).max() < 1e-6
    wave = np.sin(2 * np.pi * 20 * t)
    y = apply(Notch(harmonics=3), wave, rate=RATE).data
    assert y[-1000:].std() == pytest.approx(wave[-1000:].std(), rel=1e-3)


def test_all_notches_are_equally_wide() -> None:
    impulse = np.zeros((40_000, 1))
    impulse[0] = 1
    h = apply(Notch(q=25, harmonics=2), impulse, rate=RATE).data[:, 0]
    gain = np.abs(np.fft.rfft(h))
    hz = np.fft.rfftfreq(len(h), 1 / RATE)
    for centre in (50, 100):
        inside = hz[(np.abs(hz - centre) < 10) & (gain < np.sqrt(0.5))]
        assert np.ptp(inside) == pytest.approx(2, abs=0.06)


def test_a_ramp_comes_out_late_by_the_declared_delay() -> None:
    node = Notch(frequency=50, q=5, harmonics=2)
    out = node.start(Spec(rate=RATE, channels=("a",)))
    t = np.arange(5000)[:, None] / RATE
    y = apply(node, t, rate=RATE).data
    np.testing.assert_allclose(t[-1] - y[-1], out.delay, rtol=1e-6)


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="frequency: 150 Hz is not below 125 Hz"):
        Notch(harmonics=3).start(Spec(rate=250, channels=("a",)))
    with pytest.raises(StreamError, match="regular rate"):
        Notch().start(Spec(rate=0, channels=("a",)))
