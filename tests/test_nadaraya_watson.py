"""Nadaraya-Watson regression."""

from pathlib import Path

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from rheobase.nodes.nadaraya_watson import NadarayaWatson, bandwidth, leave_one_out

F = NDArray[np.float64]


@pytest.mark.parametrize("i, s", [(0, 0.25), (1, 1.0), (2, 4.0)])
def test_golden(golden: Path, i: int, s: float) -> None:
    g = np.load(golden / "nadaraya_watson_n40.npz")
    X, Z, queries, expected = g["in_Xtr"], g["in_Ztr"], g["in_Xte"], g["out_f"][:, :, i]
    assert g["in_sz2"][0, i] == s
    Y = NadarayaWatson(variance=s).fit(X, Z).predict(queries)
    there = np.isfinite(expected).all(axis=1)
    assert there.sum() >= 8
    np.testing.assert_allclose(Y[there], expected[there], rtol=0, atol=1e-10)
    # where the reference underflows to NaN: the same weights by their logarithms
    k = scipy.special.softmax(-((X - queries[~there][:, None]) ** 2).sum(axis=2) / (2 * s), axis=1)
    np.testing.assert_allclose(Y[~there], k @ Z, rtol=0, atol=1e-10)
    assert leave_one_out(X, Z, s) == pytest.approx(float(g["out_loo"][i, 0]), abs=1e-10)


def test_far_away_it_is_the_nearest_neighbour() -> None:
    rng = np.random.default_rng(0)
    X, Z = rng.standard_normal((40, 3)), rng.standard_normal((40, 2))
    far = np.array([[1e6, 0, 0], [0, -1e6, 0], [0, 0, 1e140]])
    Y = NadarayaWatson(variance=0.1).fit(X, Z).predict(far)
    np.testing.assert_array_equal(Y[:2], [Z[X[:, 0].argmax()], Z[X[:, 1].argmin()]])
    assert np.isfinite(Y).all()  # at 1e140 all distances are equal to rounding, and so are the weights


def test_a_query_that_is_not_finite_is_missing() -> None:
    rng = np.random.default_rng(1)
    n = NadarayaWatson(variance=1.0).fit(rng.standard_normal((40, 3)), rng.standard_normal((40, 2)))
    Y = n.predict([[0, np.nan, 0], [np.inf, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(np.isnan(Y).all(axis=1), [True, True, False])
    assert np.isfinite(Y[2]).all()


def test_leave_one_out_in_blocks_equals_one_by_one() -> None:
    rng = np.random.default_rng(2)
    X, Z = rng.standard_normal((1100, 2)), rng.standard_normal((1100, 2))
    error = 0.0
    for i in range(1100):
        others = np.arange(1100) != i
        k = np.exp(-((X[others] - X[i]) ** 2).sum(axis=1) / (2 * 0.3))
        error += ((k @ Z[others] / k.sum() - Z[i]) ** 2).sum()
    assert leave_one_out(X, Z, 0.3) == pytest.approx(error / Z.size, rel=1e-10)


def test_bandwidth_is_the_best_of_a_fine_grid() -> None:
    rng = np.random.default_rng(3)
    X = rng.standard_normal((300, 2))
    Z = np.sin(2 * X) + 0.3 * rng.standard_normal((300, 2))
    s = bandwidth(X, Z)
    grid = np.logspace(-3, 1, 60)
    errors = [leave_one_out(X, Z, g) for g in grid]
    assert leave_one_out(X, Z, s) <= min(errors)
    assert s == pytest.approx(grid[int(np.argmin(errors))], rel=0.2)


def test_keeps_at_most_so_many_points_from_all_of_the_recording() -> None:
    rng = np.random.default_rng(4)
    X, Z = np.arange(500.0)[:, None] + [0.0, 0.5], rng.standard_normal((500, 2))
    kept = NadarayaWatson(points=50, variance=1.0).fit(X, Z).arrays["X"][:, 0]
    assert len(kept) == 50 and kept[0] == 0 and kept[-1] == 499 and np.diff(kept).max() <= 11


def test_points_that_are_all_alike() -> None:
    Z = np.arange(40.0).reshape(20, 2)
    n = NadarayaWatson().fit(np.ones((20, 3)), Z)
    np.testing.assert_allclose(n.predict(np.ones((1, 3))), Z.mean(axis=0)[None])
