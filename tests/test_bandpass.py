"""Band-pass: scipy's numbers, the band that was asked for, and the delay that it declares."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from scipy import signal

from rheobase.nodes.bandpass import Bandpass
from rheobase.stream.block import Spec, StreamError, numbered
from rheobase.stream.fuse import apply

RATE = 1000.0


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((400, 3))


def test_equals_scipy_bit_for_bit(x: np.ndarray) -> None:
    y = apply(Bandpass(low=20, high=200), x, rate=RATE).data
    sos = signal.butter(4, (20, 200), "bandpass", output="sos", fs=RATE)
    np.testing.assert_array_equal(y, signal.sosfilt(sos, x, axis=0))


def test_missing_samples_hold_their_channel(x: np.ndarray) -> None:
    x[10, 0] = x[50:60, 1] = np.nan
    x[70, 1], x[0, 2], x[200:210] = np.inf, -np.inf, np.nan
    y = apply(Bandpass(low=20, high=200), x, rate=RATE).data
    sos = signal.butter(4, (20, 200), "bandpass", output="sos", fs=RATE)
    np.testing.assert_allclose(y, naive.by_channel(naive.cascade, x, sos), rtol=0, atol=1e-12)


def test_a_sample_too_large_for_the_filter_is_forgotten(x: np.ndarray) -> None:
    x[20, 1] = 1.7e308
    y = apply(Bandpass(low=20, high=200), x, rate=RATE).data
    assert np.isfinite(y[21:]).all()


def test_corners_are_at_3_db_and_the_centre_passes() -> None:
    impulse = np.zeros((4000, 1))
    impulse[0] = 1
    h = apply(Bandpass(low=20, high=200), impulse, rate=RATE).data[:, 0]
    gain = np.abs(np.fft.rfft(h))
    hz = np.fft.rfftfreq(len(h), 1 / RATE)
    assert gain[hz == 20] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert gain[hz == 200] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert gain[hz == 63] == pytest.approx(1, abs=1e-6)
    assert gain[hz == 5] < 0.005


def test_declares_its_group_delay_at_the_centre() -> None:
    spec = Spec(rate=RATE, channels=("a",), unit="V", delay=0.25)
    node = Bandpass(low=20, high=200)
    out = node.start(spec)
    impulse = np.zeros((8000, 1))
    impulse[0] = 1
    h = np.fft.rfft(apply(node, impulse, rate=RATE).data[:, 0], 8_000_000)
    hz = np.fft.rfftfreq(8_000_000, 1 / RATE)
    i = np.searchsorted(hz, np.sqrt(20 * 200))
    phase = np.unwrap(np.angle(h[i - 2 : i + 3]))
    delay = -(phase[-1] - phase[0]) / (2 * np.pi * (hz[i + 2] - hz[i - 2]))
    assert out.delay == pytest.approx(0.25 + delay, rel=1e-4)
    assert (out.rate, out.channels, out.unit) == (RATE, ("a",), "V")


@pytest.mark.parametrize(
    "values, rate, words",
    [
        ({"low": 200, "high": 20}, RATE, "low: 200 Hz is not below high, 20 Hz"),
        ({"low": 20, "high": 20}, RATE, "low: 20 Hz is not below high"),
        ({"low": 300, "high": 500}, RATE, "high: 500 Hz is not below 500 Hz, half of its input's rate"),
        ({"low": 300, "high": 400}, 0, "high: a filter needs a regular rate, its input is irregular"),
        ({"low": 0, "high": 400}, RATE, "low: expected"),
        ({"low": 1, "hihg": 400}, RATE, "unknown key 'hihg'; did you mean 'high'"),
    ],
)
def test_says_what_is_wrong(values: dict[str, float], rate: float, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        Bandpass.make(**values).start(Spec(rate=rate, channels=numbered("c", 2)))
