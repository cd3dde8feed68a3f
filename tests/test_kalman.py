"""Kalman filter: the textbook's gain form, filterpy, golden numbers, Flint's recording."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.kalman import Kalman
from rheobase.stream.block import Block, Spec
from rheobase.stream.fuse import Loop, apply

F = NDArray[np.float64]


def textbook(X: F, A: F, Gamma: F, H: F, Lambda: F, S: F) -> tuple[F, F]:
    """Means (T, d) and covariances (T, d, d) in gain form; the prior N(0, S) is that of the first sample."""
    mu, Sigma, means, covariances = np.zeros(len(A)), S, [], []
    for k, x in enumerate(X):
        if k:
            mu, Sigma = A @ mu, A @ Sigma @ A.T + Gamma
        if np.isfinite(x).all():
            K = Sigma @ H.T @ np.linalg.inv(H @ Sigma @ H.T + Lambda)
            mu, Sigma = mu + K @ (x - H @ mu), Sigma - K @ H @ Sigma
        means.append(mu)
        covariances.append(Sigma)
    return np.array(means), np.array(covariances)


def system(rng: np.random.Generator, n: int = 6, T: int = 200) -> tuple[F, F]:
    """A walk z (T, 2) and noisy views x (T, n) of it."""
    Z = np.zeros((T, 2))
    for t in range(1, T):
        Z[t] = [[0.9, 0.1], [-0.2, 0.8]] @ Z[t - 1] + rng.standard_normal(2)
    X = Z @ rng.standard_normal((2, n)) + rng.standard_normal((T, n)) @ rng.standard_normal((n, n))
    return X + rng.standard_normal(n), Z + np.array([3.0, -1.0])


def covariance_after(k: Kalman, X: F) -> F:
    """Sigma after each sample."""
    loop = Loop([k], [-1], [0])
    loop.start(Spec(rate=10, channels=tuple(f"x{i}" for i in range(X.shape[1]))))
    found = []
    for x in X:
        loop.process(Block(x[None], np.zeros(1)))
        found.append(k.state.belief.Sigma.copy())
    return np.array(found)


def test_equals_the_textbook() -> None:
    X, Z = system(np.random.default_rng(1))
    k = Kalman().fit(X, Z)
    a = k.arrays
    X[[0, 17, 18]] = np.nan
    X[60, 3] = np.inf
    means, covariances = textbook(X - a["x_mean"], a["A"], a["Gamma"], a["H"], a["Lambda"], a["S"])
    np.testing.assert_allclose(k.predict(X), means + a["z_mean"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(covariance_after(k, X), covariances, rtol=0, atol=1e-10)


def test_equals_filterpy() -> None:
    filterpy = pytest.importorskip("filterpy.kalman")
    X, Z = system(np.random.default_rng(2))
    k = Kalman().fit(X, Z)
    a = k.arrays
    f = filterpy.KalmanFilter(dim_x=2, dim_z=6)
    f.x, f.P, f.F, f.Q, f.H, f.R = np.zeros((2, 1)), a["S"], a["A"], a["Gamma"], a["H"], a["Lambda"]
    means = []
    for i, x in enumerate(X - a["x_mean"]):
        if i:
            f.predict()
        f.update(x)
        means.append(f.x[:, 0].copy())
    np.testing.assert_allclose(k.predict(X), means + a["z_mean"], rtol=0, atol=1e-10)


def test_golden_reference(golden: Path) -> None:
    g = np.load(golden / "dkf_equals_kalman_d2_n6_T200.npz")
    k = Kalman()
    arrays = dict(A=g["in_A"], Gamma=g["in_G"], H=g["in_H"], Lambda=g["in_Lam"], S=g["in_VZ"])
    k.hold(arrays | dict(x_mean=np.zeros(6), z_mean=np.zeros(2)), {"n": 6}, {"channels": ["vx", "vy"], "unit": "m/s"})
    np.testing.assert_allclose(k.predict(g["in_x"].T), g["out_kf_mean"].T, rtol=0, atol=1e-10)
    np.testing.assert_allclose(covariance_after(k, g["in_x"].T), g["out_kf_var"].transpose(2, 0, 1), rtol=0, atol=1e-10)


def test_learns_the_system_it_was_drawn_from() -> None:
    X, Z = system(np.random.default_rng(3), T=20000)
    a = Kalman().fit(X, Z).arrays
    np.testing.assert_allclose(a["A"], [[0.9, 0.1], [-0.2, 0.8]], atol=0.02)
    np.testing.assert_allclose(a["Gamma"], np.eye(2), atol=0.03)


def test_silent_and_doubled_channels_change_nothing() -> None:
    X, Z = system(np.random.default_rng(4))
    plain = Kalman().fit(X, Z).predict(X)
    with_silent = np.column_stack([X, np.zeros(len(X)), X[:, 0]])
    np.testing.assert_allclose(Kalman().fit(with_silent, Z).predict(with_silent), plain, atol=1e-8)


def test_state_without_noise_of_its_own() -> None:
    """Gamma singular: position is the sum of velocity, exactly."""
    rng = np.random.default_rng(5)
    A, Gamma = np.array([[1.0, 0.1], [0.0, 0.9]]), np.diag([0.0, 0.1])
    H, S = rng.standard_normal((6, 2)), np.diag([0.0, 1.0])
    X = rng.standard_normal((50, 6))
    k = Kalman().hold(
        dict(A=A, Gamma=Gamma, H=H, Lambda=np.eye(6), S=S, x_mean=np.zeros(6), z_mean=np.zeros(2)),
        {"n": 6},
        {"channels": ["p", "v"], "unit": ""},
    )
    np.testing.assert_allclose(k.predict(X), textbook(X, A, Gamma, H, np.eye(6), S)[0], rtol=0, atol=1e-10)


def test_gaps_in_training_are_not_bridged() -> None:
    X, Z = system(np.random.default_rng(6))
    cut = np.delete(np.arange(200), np.s_[80:140])
    segment = (cut >= 140).astype(int)
    a = Kalman().fit(X[cut], Z[cut], segment=segment).arrays
    z = Z - Z[cut].mean(axis=0)
    t = np.r_[1:80, 141:200]
    np.testing.assert_allclose(a["A"], np.linalg.lstsq(z[t - 1], z[t])[0].T, atol=1e-12)
    holed = X.copy()
    holed[80:140] = np.nan
    np.testing.assert_allclose(Kalman().fit(holed, Z).arrays["A"], a["A"], atol=1e-12)


def test_flint(data: Callable[[str], Path]) -> None:
    """The reference scores 0.76468 and 0.88822 on the authors' split."""
    from rheobase.tools.scores import maae, nrmse

    X, Z = (np.loadtxt(data(f"flint2012_run1/{w}.csv"), delimiter=",") for w in "xz")
    Y = Kalman(centre=False).fit(X[:5000], Z[:5000]).predict(X[5000:6000])
    assert nrmse(Y, Z[5000:6000]) == pytest.approx(0.76468, abs=1e-5)
    assert maae(Y, Z[5000:6000]) == pytest.approx(0.88822, abs=1e-5)


def test_names_and_units_come_from_the_truth() -> None:
    X, Z = system(np.random.default_rng(7))
    outputs = Spec(rate=10, channels=("vx", "vy"), unit="m/s")
    k = Kalman().fit(X, Z, outputs=outputs)
    out = k.start(Spec(rate=10, channels=tuple("abcdef"), unit="count", delay=0.1))
    assert (out.channels, out.unit, out.rate, out.delay) == (("vx", "vy"), "m/s", 10, 0.1)
    assert np.array_equal(apply(k, X, block=7).data, k.predict(X))


def test_noise_of_the_walk_does_not_depend_on_how_often_it_is_interrupted() -> None:
    """In pieces of two rows there is one pair for two rows."""
    rng = np.random.default_rng(0)
    X, Z = system(rng, T=6000)
    whole = Kalman().fit(X, Z).arrays["Gamma"]
    pieces = Kalman().fit(X, Z, segment=np.arange(6000) // 2).arrays["Gamma"]
    np.testing.assert_allclose(pieces, whole, rtol=0.1, atol=0.05)
