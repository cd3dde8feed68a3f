"""From samples to pixels, each against a slow and obvious twin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.devices import _pixels
from rheobase.devices._pixels import cover, grouped, held, spans, stacked


def drawn(seed: int, m: int, n: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Irregular times and samples, some missing."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(0.5, m))
    x = rng.standard_normal((m, n)).astype(np.float32)
    x[rng.random((m, n)) < 0.05] = np.nan
    return times, x


def at(times: np.ndarray, y: np.ndarray, t: float) -> float:
    """The line through samples, at one time; NaN outside, and beside a missing one."""
    k = int(np.searchsorted(times, t))
    if t < times[0] or t > times[-1]:
        return np.nan
    k = min(max(k, 1), len(times) - 1)
    share = (t - times[k - 1]) / (times[k] - times[k - 1])
    return y[k - 1] * (1 - share) + y[k] * share


@given(st.integers(0, 10_000), st.integers(2, 120), st.integers(1, 40))
def test_a_column_of_pixels_spans_all_that_a_line_does_in_it(seed: int, m: int, w: int) -> None:
    times, x = drawn(seed, m)
    edges = np.linspace(times[0] - 1.0, times[-1] + 1.0, w + 1)
    lo, hi = spans(times, x, x, edges)
    for p in range(w):
        inside = (times >= edges[p]) & (times < edges[p + 1])
        for c in range(x.shape[1]):
            seen = [at(times, x[:, c], edges[p]), at(times, x[:, c], edges[p + 1]), *x[inside, c]]
            seen = [v for v in seen if np.isfinite(v)]
            expected = (min(seen), max(seen)) if seen else (np.nan, np.nan)
            np.testing.assert_allclose((lo[p, c], hi[p, c]), expected, rtol=1e-4, atol=1e-4)


def test_bands_span_from_the_lowest_to_the_highest() -> None:
    times = np.arange(10.0)
    low, high = np.full((10, 1), -1, np.float32), np.full((10, 1), 2, np.float32)
    lo, hi = spans(times, low, high, np.linspace(0, 9, 4))
    np.testing.assert_array_equal(lo, -1)
    np.testing.assert_array_equal(hi, 2)
    lo, hi = spans(times[:1], low[:1], high[:1], np.linspace(0, 9, 4))
    assert np.isnan(lo).all()


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 5))
def test_what_a_band_covers_of_each_pixel(seed: int, height: int, n: int) -> None:
    """Summed over bands, and no more than all of it."""
    rng = np.random.default_rng(seed)
    top = rng.uniform(-3, height + 3, (4, n))
    bottom = top + rng.uniform(0, 4, (4, n))
    top[rng.random((4, n)) < 0.1] = np.nan
    image = cover(top, bottom, height, thick=1.3)
    assert image.shape == (height, 4) and image.dtype == np.uint8
    for x in range(4):
        for y in range(height):
            total = 0.0
            for a, b in zip(top[x], bottom[x], strict=True):
                if np.isfinite(a):
                    middle, half = (a + b) / 2, max((b - a) / 2, 0.65)
                    total += max(0.0, min(y + 1, middle + half) - max(y, middle - half))
            assert abs(image[y, x] - 255 * min(total, 1.0)) <= 1.1


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(1, 30))
def test_what_holds_in_a_column(seed: int, m: int, w: int) -> None:
    times, x = drawn(seed, m)
    step = 0.5
    edges = np.linspace(times[0] - 1, times[-1] + 3, w + 1)
    image = held(times, x, edges, step)
    for p in range(w):
        inside = (times > edges[p]) & (times <= edges[p + 1])
        before = np.flatnonzero(times <= edges[p + 1])
        if inside.any():
            with np.errstate(all="ignore"):
                expected = np.fmax.reduce(x[inside])
        elif len(before) and edges[p + 1] - times[before[-1]] <= 2.5 * step + edges[1] - edges[0]:
            expected = x[before[-1]]
        else:
            expected = np.full(3, np.nan)
        np.testing.assert_array_equal(image[p], expected)


def test_shares_one_upon_the_other() -> None:
    shares = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7], [np.nan, 1, 0], [0, 0, 0], [5, 3, 2]], np.float32)
    image = stacked(shares, 10)
    np.testing.assert_array_equal(image[::-1, 0], [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(image[::-1, 1], [0] + [1] * 2 + [2] * 7)
    np.testing.assert_array_equal(image[:, 2], 3)  # unknown
    np.testing.assert_array_equal(image[:, 3], 3)
    np.testing.assert_array_equal(image[::-1, 4], [0] * 5 + [1] * 3 + [2] * 2)  # made to sum to 1


@pytest.mark.parametrize("few", [0, 24, 1000])
def test_groups_of_rows_either_way(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pixels, "FEW", few)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 2)).astype(np.float32)
    edges = np.sort(rng.integers(0, 101, 20))
    edges[3] = edges[4]
    some, most = grouped(np.fmax, x, edges)
    expected = {k: x[a:b].max(axis=0) for k, (a, b) in enumerate(pairwise(edges)) if b > a}
    assert some.tolist() == list(expected)
    np.testing.assert_array_equal(most, list(expected.values()))
