"""Unscented Kalman filter: the textbook's, the Kalman filter where tuning is linear, and what a bent tuning gains."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes._quadratic import Quadratic
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.unscented_kalman import UnscentedKalman
from rheobase.stream.block import StreamError

F = NDArray[np.float64]


def world(T: int = 600, n: int = 10, bent: float = 1.0, seed: int = 0) -> tuple[F, F]:
    """A smooth z (T, 2), and units (T, n) that tell of it and, for `bent` > 0, of its square."""
    rng = np.random.default_rng(seed)
    Z = np.zeros((T, 2))
    for t in range(1, T):
        Z[t] = 0.95 * Z[t - 1] + 0.3 * rng.standard_normal(2)
    X = 5 + Z @ rng.standard_normal((2, n)) + bent * (Z**2).sum(axis=1)[:, None] * rng.standard_normal(n)
    return X + rng.standard_normal((T, n)) @ (np.eye(n) + 0.3 * rng.standard_normal((n, n))), Z + np.array([2.0, -1.0])


def textbook(d: UnscentedKalman, X: F) -> tuple[F, F]:
    """With weights, and an inverse of n by n: means (T, d) and covariances (T, d, d)."""
    a = d.arrays
    h = Quadratic().hold({k[2:]: v for k, v in a.items() if k[:2] == "h."}, {"n": 2},
                         {"channels": [f"x{i}" for i in range(X.shape[1])], "unit": ""})  # fmt: skip
    R = a["R"] if d.R == "full" else np.diag(np.diag(a["R"]))
    size = len(a["A"])
    lam = d.alpha**2 * (size + d.kappa) - size
    w = np.full(2 * size + 1, 0.5 / (size + lam))
    w_c = w.copy()
    w[0] = lam / (size + lam)
    w_c[0] = w[0] + 1 - d.alpha**2 + d.beta
    mu, Sigma, means, covariances = np.zeros(size), a["S"], [], []
    for t, x in enumerate(X):
        if t:
            mu, Sigma = a["A"] @ mu, a["A"] @ Sigma @ a["A"].T + a["Gamma"]
        if np.isfinite(x).all():
            L = np.linalg.cholesky((size + lam) * Sigma)
            points = np.vstack([mu, mu + L.T, mu - L.T])
            images = h.predict(points + a["z_mean"], np.arange(len(points)))
            x_hat = w @ images
            P_xx = (images - x_hat).T @ (w_c[:, None] * (images - x_hat)) + R
            K = (points - mu).T @ (w_c[:, None] * (images - x_hat)) @ np.linalg.inv(P_xx)
            mu, Sigma = mu + K @ (x - x_hat), Sigma - K @ P_xx @ K.T
        means.append(mu)
        covariances.append(Sigma)
    return np.array(means), np.array(covariances)


@pytest.mark.parametrize(
    "values, tolerance",
    [({"alpha": 0.5}, 1e-9), ({"alpha": 1.0, "kappa": 1.0, "R": "diagonal"}, 1e-9), ({}, 1e-6)],
)
def test_equals_the_textbook(values: dict[str, Any], tolerance: float) -> None:
    """With the usual alpha = 0.001 the textbook's own weights of a million leave it fewer digits."""
    X, Z = world()
    d = UnscentedKalman(**values).fit(X, Z)
    X = X[:120]
    X[[0, 30, 31], 4] = np.nan
    means, covariances = textbook(d, X)
    np.testing.assert_allclose(d.predict(X), means + d.arrays["z_mean"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(d.state.belief.Sigma, covariances[-1], rtol=0, atol=tolerance)


def test_is_the_kalman_filter_for_a_linear_tuning() -> None:
    X, Z = world(bent=0)
    d = UnscentedKalman(h={"type": "ridge", "alpha": 0.0}).fit(X, Z)
    a = d.arrays
    h = {k[2:]: v for k, v in a.items() if k[:2] == "h."}
    x_mean = h["b"] + (a["z_mean"] - h["x_mean"]) @ h["W"]
    given = dict(A=a["A"], Gamma=a["Gamma"], H=h["W"].T, Lambda=a["R"], S=a["S"], x_mean=x_mean, z_mean=a["z_mean"])
    kalman = Kalman().hold(given, d.header["in"], d.header["out"])
    np.testing.assert_allclose(d.predict(X), kalman.predict(X), rtol=0, atol=1e-8)
    np.testing.assert_allclose(d.state.belief.Sigma, kalman.state.belief.Sigma, rtol=0, atol=1e-8)


def test_a_bent_tuning_is_worth_it() -> None:
    X, Z = world(2000, bent=3)
    ukf, kalman = (
        np.mean((d.fit(X[:1500], Z[:1500]).predict(X[1500:]) - Z[1500:]) ** 2) for d in (UnscentedKalman(), Kalman())
    )
    assert ukf < 0.8 * kalman, (ukf, kalman)


def test_r_is_of_rows_that_h_had_not_seen() -> None:
    X, Z = world()
    d = UnscentedKalman(seed=2).fit(X, Z)
    rows = np.random.default_rng(2).permutation(600)
    r = (X - Quadratic().fit(Z, X, rows=np.isin(np.arange(600), rows[180:])).predict(Z))[rows[:180]]
    np.testing.assert_allclose(d.arrays["R"], r.T @ r / 180, rtol=1e-10)
    np.testing.assert_allclose(d.arrays["h.W"], Quadratic().fit(Z, X).arrays["W"], rtol=1e-10)


def test_silent_channels_tell_nothing() -> None:
    X, Z = world()
    more = np.column_stack([X, np.zeros(len(X))])
    for R in ("full", "diagonal"):
        plain, with_silent = (UnscentedKalman(R=R).fit(x, Z).predict(x) for x in (X, more))
        np.testing.assert_allclose(with_silent, plain, atol=1e-7)


def test_a_network_as_tuning() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    d = UnscentedKalman(h={"type": "mlp", "hidden": 10, "layers": 1, "activation": "tanh", "epochs": 40}).fit(X, Z)
    assert np.mean((d.predict(X) - Z) ** 2) < 0.5 * Z.var()


def test_quadratic_is_least_squares() -> None:
    X, Z = world()
    u = Z - Z.mean(axis=0)
    terms = np.column_stack([np.ones(600), u, u[:, 0] ** 2, u[:, 0] * u[:, 1], u[:, 1] ** 2])
    fitted = terms @ np.linalg.lstsq(terms, X)[0]
    np.testing.assert_allclose(Quadratic().fit(Z, X).predict(Z), fitted, atol=1e-10)
    assert np.isnan(Quadratic().fit(Z, X).predict(Z * np.nan)).all()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"h": "ridgee"}, "h: unknown type 'ridgee'; did you mean 'ridge'"),
        ({"h": "bins"}, "h: 'bins' is no regressor"),
        ({"h": {"lags": 2}}, "h: needs a type"),
        ({"h": {"type": "ridge", "lags": 2}}, "h: .* looks back, and the filter knows"),
        ({"beta": 0.0, "alpha": 1.0}, r"beta: 0 is less than alpha\^2 = 1"),
        ({"held_out": 0.01}, "held_out: 6 of 600 rows are no basis"),
    ],
)
def test_what_a_user_gets_wrong(values: dict[str, Any], message: str) -> None:
    X, Z = world()
    with pytest.raises(StreamError, match=message):
        UnscentedKalman.make(**values).fit(X, Z).check()
