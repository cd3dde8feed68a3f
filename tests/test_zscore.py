"""Running z-score."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.nodes.zscore import Zscore
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop, apply


def signal(seed: int, n: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) * [1, 5, 1e-3] + [0, -20, 1]
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


@given(st.integers(0, 2**32), st.sampled_from([2.0, 17.3, 1000.0]))
def test_equals_its_naive_twin(seed: int, window: float) -> None:
    x = signal(seed)
    y = apply(Zscore(window=window / 100), x, rate=100).data
    np.testing.assert_allclose(y, naive.by_channel(naive.zscore, x, window), rtol=1e-9, atol=1e-12)


def test_a_full_window_is_the_plain_z_score_of_all_the_past() -> None:
    x = np.random.default_rng(9).standard_normal((120, 3))
    y = apply(Zscore(window=10), x, rate=100).data
    np.testing.assert_allclose(y[-1], (x[-1] - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)


def test_a_large_offset_costs_no_digits() -> None:
    """The textbook's mean of squares less square of mean has none left here."""
    x = np.random.default_rng(10).integers(-8, 8, (120, 3)).astype(float)
    near, far = (apply(Zscore(window=10), x + offset, rate=100).data for offset in (0, 2.0**33))
    np.testing.assert_allclose(far, near, atol=1e-5)


def test_frozen_after_its_time() -> None:
    x = np.random.default_rng(11).standard_normal((120, 3))
    y = apply(Zscore(window=10, freeze=0.5), x, rate=100).data
    np.testing.assert_allclose(y[50:], (x[50:] - x[:50].mean(axis=0)) / x[:50].std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(y[:50], apply(Zscore(window=10), x, rate=100).data[:50])


def test_clip_bounds_the_output_and_nothing_else() -> None:
    x = signal(12)
    y, bounded = (apply(Zscore(window=10, clip=clip), x, rate=100).data for clip in (0, 1.5))
    np.testing.assert_array_equal(bounded, np.clip(y, -1.5, 1.5))
    assert np.nanmax(y) > 1.5


def test_a_constant_channel_gives_0() -> None:
    assert not apply(Zscore(), np.full((20, 1), 3.3), rate=100).data.any()


def test_what_was_learnt_outlasts_a_gap() -> None:
    x = signal(13)
    loop = Loop([Zscore(window=0.2)], [-1], [0])
    loop.start(Spec(rate=100, channels=numbered("c", 3)))
    t = np.arange(120) / 100
    parts = [Block(x[:70], t[:70]), Block(x[70:], t[70:] + 9, seq=70, segment=1)]
    got = np.concatenate([b.data for part in parts for _, b in loop.process(part)])
    np.testing.assert_array_equal(got, apply(Zscore(window=0.2), x, rate=100).data)


def test_has_no_unit() -> None:
    assert Zscore().start(Spec(rate=100, channels=("a",), unit="V")).unit == ""


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="regular rate"):
        Zscore().start(Spec(rate=0, channels=("a",)))
    with pytest.raises(StreamError, match=r"window: 0\.01 s are less than two samples at 100 Hz"):
        Zscore(window=0.01).start(Spec(rate=100, channels=("a",)))
