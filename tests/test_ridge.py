"""Ridge (Wiener) decoder."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import StreamError

F = NDArray[np.float64]


def world(seed: int = 0, T: int = 400, n: int = 5) -> tuple[F, F]:
    """z (T, 2) follows x (T, n) of now and of two samples ago."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((T, n)) + 2
    Z = X @ rng.standard_normal((n, 2)) + 0.1 * rng.standard_normal((T, 2)) - 1
    Z[2:] += X[:-2] @ rng.standard_normal((n, 2))
    return X, Z


def by_hand(X: F, Z: F, lags: int, alpha: float) -> F:
    """Normal equations on explicit windows, the past before the start at the mean."""
    padded = np.vstack([np.tile(X.mean(axis=0), (lags - 1, 1)), X])
    W = np.array([padded[t : t + lags][::-1].ravel() for t in range(len(X))])
    centred = W - W.mean(axis=0)
    weights = np.linalg.solve(centred.T @ centred + alpha * np.eye(W.shape[1]), centred.T @ (Z - Z.mean(axis=0)))
    predicted: F = Z.mean(axis=0) + centred @ weights
    return predicted


@pytest.mark.parametrize("lags, alpha", [(1, 0.0), (3, 7.0)])
def test_equals_the_normal_equations(lags: int, alpha: float) -> None:
    X, Z = world()
    Y = Ridge(lags=lags, alpha=alpha).fit(X, Z).predict(X)
    np.testing.assert_allclose(Y, by_hand(X, Z, lags, alpha), rtol=0, atol=1e-10)


def test_the_past_helps_where_it_matters() -> None:
    X, Z = world()
    errors = [np.mean((Ridge(lags=k).fit(X[:300], Z[:300]).predict(X[300:]) - Z[300:]) ** 2) for k in (1, 3)]
    assert errors[1] < 0.1 * errors[0]


def test_the_penalty_grows_with_noise() -> None:
    rng = np.random.default_rng(1)
    X, Z = world(T=120, n=40)
    alphas = [float(Ridge().fit(X, Z + noise * rng.standard_normal(Z.shape)).arrays["alpha"]) for noise in (0, 30)]
    assert alphas[0] < alphas[1]


def test_a_missing_sample_is_missing_and_then_counts_as_the_mean() -> None:
    X, Z = world()
    r = Ridge(lags=3, alpha=1.0).fit(X, Z)
    holed = X.copy()
    holed[200, 1] = np.nan
    Y = r.predict(holed)
    assert np.isnan(Y[200]).all() and np.isfinite(np.delete(Y, 200, axis=0)).all()
    filled = X.copy()
    filled[200, 1] = r.arrays["x_mean"][1]
    np.testing.assert_allclose(np.delete(Y, 200, axis=0), np.delete(r.predict(filled), 200, axis=0), atol=1e-12)


def test_windows_do_not_reach_over_a_gap() -> None:
    X, Z = world()
    segment = np.repeat([0, 1], 200)
    r = Ridge(lags=3, alpha=1.0).fit(X, Z, segment=segment)
    halves = [r.predict(X[:200]), r.predict(X[200:])]
    assert np.array_equal(r.predict(X, segment), np.vstack(halves))
    assert not np.array_equal(r.predict(X), np.vstack(halves))


def test_doubled_channels_without_a_penalty() -> None:
    X, Z = world()
    doubled = np.hstack([X, X])
    plain = Ridge(alpha=0.0).fit(X, Z).predict(X)
    np.testing.assert_allclose(Ridge(alpha=0.0).fit(doubled, Z).predict(doubled), plain, atol=1e-9)


def test_refuses_a_negative_penalty() -> None:
    with pytest.raises(StreamError, match="alpha: expected"):
        Ridge.make(alpha=-1)
