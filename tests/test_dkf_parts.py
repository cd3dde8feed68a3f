"""What a discriminative Kalman filter can be made of: Q(x), its scale, the steady form, dynamics, its covariance."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rheobase.nodes._noise import precision
from rheobase.nodes._recursion import Recursion
from rheobase.nodes._scale import calibrate, decode
from rheobase.nodes._unscented import points, unscented
from rheobase.nodes.dkf import DKF
from rheobase.nodes.kalman import Kalman
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop, apply
from rheobase.stream.node import kernel
from rheobase.tools.coverage import coverage, nees

F = NDArray[np.float64]
TREATMENTS = ["fallback_code", "fallback_text", "clip", "robust"]


def segment(f: F) -> NDArray[np.int64]:
    return np.zeros(len(f), np.int64)


def spd(rng: np.random.Generator, d: int, least: float = 0.05) -> F:
    half = rng.standard_normal((d, d)) * rng.uniform(0.2, 1.5)
    return half @ half.T + least * np.eye(d)


def by_hand(A: F, Gamma: F, S: F, f: F, Q: F, nonpd: str) -> tuple[F, F]:
    """The equations of the paper, with inverses and numpy's eigenvalues."""
    found = []
    for k in range(len(f)):
        if k:
            mu, Sigma = A @ mu, A @ Sigma @ A.T + Gamma  # noqa: F821 set below
        if np.isfinite(f[k]).all():
            if k:
                B, P, _, _ = precision(Q[k], S, nonpd)
                M_inv = np.linalg.inv(Sigma)
                Sigma = np.linalg.inv(M_inv + P)
                mu = Sigma @ (B @ f[k] + M_inv @ mu)
            else:
                mu, Sigma = f[k], Q[k]
        found.append((mu, Sigma))
    return np.array([m for m, _ in found]), np.array([c for _, c in found])


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.sampled_from(TREATMENTS), st.sampled_from([2, 5]))
def test_is_the_equations(seed: int, nonpd: str, d: int) -> None:
    """Means and covariances where a third of the Q exceed S, and bins are missing."""
    rng = np.random.default_rng(seed)
    A, Gamma, S = 0.3 * rng.standard_normal((d, d)), spd(rng, d), spd(rng, d, 0.5)
    f, Q = rng.standard_normal((25, d)), np.array([spd(rng, d) for _ in range(25)])
    f[[4, 5, 20], rng.integers(d)] = np.nan
    k = Recursion(A=A, Gamma=Gamma, S=S, nonpd=nonpd)
    means, covariances = decode(k, f, Q, segment(f))
    expected = by_hand(A, Gamma, S, f, Q, nonpd)
    np.testing.assert_allclose(means, expected[0], rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(covariances, expected[1], rtol=1e-7, atol=1e-8)
    assert k.state.missing[0] == 3
    there = [precision(q, S, nonpd)[3] for q, v in zip(Q, f, strict=True) if np.isfinite(v).all()]
    assert k.state.nonpd[0] == sum(there)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_is_the_product_of_densities(seed: int) -> None:
    """p(z(t) | all x) ~ N(z; f, Q) / N(z; 0, S) times the prediction, multiplied out on a grid (d = 1)."""
    rng = np.random.default_rng(seed)
    a, S = rng.uniform(-0.95, 0.95), rng.uniform(0.5, 2)
    Gamma = S * (1 - a * a)
    f, Q = rng.standard_normal((6, 1)), rng.uniform(0.1, 0.9, (6, 1, 1)) * S
    z = np.linspace(-10, 10, 801)

    def density(x: F, v: float) -> F:
        return np.asarray(np.exp(-0.5 * x * x / v))

    means, covariances = decode(Recursion(A=np.eye(1) * a, Gamma=np.eye(1) * Gamma, S=np.eye(1) * S), f, Q, segment(f))
    p = density(z, S)
    for k in range(6):
        if k:
            p = density(z[:, None] - a * z, Gamma) @ p
        p = p * density(z - f[k], Q[k, 0, 0]) / density(z, S)
        p /= p.sum()
        np.testing.assert_allclose(means[k, 0], p @ z, rtol=0, atol=1e-7)
        np.testing.assert_allclose(covariances[k, 0, 0], p @ (z - p @ z) ** 2, rtol=1e-6)


def walk(T: int, rng: np.random.Generator) -> tuple[F, F]:
    """z (T, 2), stationary with variance 1, and where it will go: A."""
    A = 0.95 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])
    Z = rng.standard_normal((T, 2))
    for t in range(1, T):
        Z[t] = A @ Z[t - 1] + np.sqrt(1 - 0.95**2) * Z[t]
    return Z, A


def world(T: int = 800, n: int = 6, seed: int = 8) -> tuple[F, F]:
    """X (T, n) that sees z (T, 2) with a noise that its own last channel tells of: quiet or loud."""
    rng = np.random.default_rng(seed)
    Z, _ = walk(T, rng)
    loud = rng.random(T) < 0.5
    X = Z @ rng.standard_normal((2, n)) + np.where(loud, 3.0, 0.3)[:, None] * rng.standard_normal((T, n))
    X[:, -1] = 3.0 * loud
    return X, Z + np.array([5.0, -5.0])


def test_a_wrong_covariance_is_not_followed() -> None:
    """A P that takes more than the prior has makes no Sigma: the bin is filtered in the robust form, and counted."""
    X, Z = world()
    d = DKF(f="ridge").fit(X, Z)
    loop = Loop([d], [-1], [0])
    loop.start(Spec(rate=10, channels=tuple("abcdef")))
    plain = dataclasses.replace(d, nonpd="robust").hold(d.arrays, d.header["in"], d.header["out"])
    loop.swap(0, d.params._replace(P=-1e3 * np.eye(2), violated=np.zeros(1, np.int64)), d.state)
    Y = loop.process(Block(X[:50], np.arange(50.0)))[0][1].data
    np.testing.assert_allclose(Y, plain.predict(X[:50]), rtol=0, atol=1e-12)
    assert d.health == {"bins": 50, "nonpd": 49, "missing": 0}  # the first is taken as it is


@pytest.mark.parametrize("nonpd", ["fallback_code", "clip"])
def test_q_of_x(nonpd: str) -> None:
    """Q(x) is the mean of r r' weighed by how near x is, and helps where x tells how loud it is."""
    X, Z = world(2000)
    d = DKF(f="ridge", Q="nadaraya_watson", nonpd=nonpd).fit(X[:1500], Z[:1500])  # type: ignore[arg-type]
    a = d.arrays
    assert len(a["Q.X"]) == 450
    f = d.regressor().hold({k[2:]: v for k, v in a.items() if k[:2] == "f."}, d.header["in"], d.header["out"])
    distance = ((X[1500:, None] - a["Q.X"]) ** 2).sum(axis=2)
    near = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / (2 * a["Q.s"]))
    Q = (near @ a["Q.Z"]).reshape(-1, 2, 2) / near.sum(axis=1)[:, None, None]
    np.testing.assert_allclose(Q[:, 0, 1], Q[:, 1, 0], atol=1e-15)
    means, covariances = by_hand(a["A"], a["Gamma"], a["S"], f.predict(X[1500:]) - a["z_mean"], Q, nonpd)
    mu, Sigma = d.posterior(X[1500:])
    np.testing.assert_allclose(mu, means + a["z_mean"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(Sigma, covariances, rtol=0, atol=1e-7)
    if nonpd == "fallback_code":
        return  # a third of the bins is so loud that Q exceeds S, and f then weighs too much
    constant = DKF(f="ridge").fit(X[:1500], Z[:1500]).predict(X[1500:])
    assert np.sqrt(np.mean((mu - Z[1500:]) ** 2)) < 0.9 * np.sqrt(np.mean((constant - Z[1500:]) ** 2))


def test_q_of_x_far_from_all_is_that_of_the_nearest() -> None:
    X, Z = world()
    d = DKF(f="ridge", Q="nadaraya_watson").fit(X, Z)
    X[10:13] *= 1e9
    X[20, 2] = np.nan
    mu, Sigma = d.posterior(X)
    assert np.isfinite(mu).all() and (np.linalg.eigvalsh(Sigma) > 0).all()


def test_a_fit_on_more_rows_goes_into_a_running_loop() -> None:
    X, Z = world()
    loops = []
    for rows in (300, 800):
        d = DKF(f="ridge", Q="nadaraya_watson").fit(X[:rows], Z[:rows])
        loop = Loop([d], [-1], [0])
        loop.start(Spec(rate=10, channels=tuple("abcdef")))
        loops.append((loop, d))
    (first, _), (_, second) = loops
    first.process(Block(X[:9], np.arange(9.0)))
    first.swap(0, second.params, second.state)
    first.process(Block(X[9:20], np.arange(9.0, 20.0), 9))


def exact(T: int, rng: np.random.Generator) -> tuple[Recursion, F, F, F]:
    """A filter, f, Q and z of a world where f and Q are what the filter takes them for."""
    Z, A = walk(T, rng)
    v = 0.5  # x = z + noise of variance v: E[z | x] = x / (1 + v), Var = v / (1 + v)
    X = Z + np.sqrt(v) * rng.standard_normal(Z.shape)
    k = Recursion(A=A, Gamma=(1 - 0.95**2) * np.eye(2), S=np.eye(2))
    return k, X / (1 + v), np.broadcast_to(v / (1 + v) * np.eye(2), (T, 2, 2)), Z


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.2, 1.0, 2.5])
def test_the_scale_mends_a_wrong_q(wrong: float) -> None:
    k, f, Q, Z = exact(40000, np.random.default_rng(1))
    scale, spread = calibrate(k, f, Q / wrong, Z, segment(f))
    assert scale / wrong == pytest.approx(1, abs=0.15)
    assert spread == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_a_score_of_the_mean_and_of_the_width() -> None:
    """Truth that may not be used (NaN) is not scored; a truth twice as wide needs four times the spread."""
    k, f, Q, Z = exact(3000, np.random.default_rng(2))
    scale, spread = calibrate(k, f, Q, Z, segment(f))
    holed, twice = np.where(np.arange(3000)[:, None] % 7 == 0, np.nan, Z), segment(f)
    assert calibrate(k, f, Q, holed, twice) != (scale, spread)
    wild = Z.copy()
    wild[::7] = 1e6
    assert calibrate(k, f, Q, np.where(np.isfinite(holed), wild, np.nan), twice) == calibrate(k, f, Q, holed, twice)
    other = Recursion(A=k.A, Gamma=k.Gamma, S=k.S)
    assert calibrate(other, 2 * f, Q, 2 * Z, twice)[1] == pytest.approx(4 * spread, rel=0.3)


@pytest.mark.slow
def test_an_f_that_looks_back_is_not_counted_twice() -> None:
    """With lags, the learnt scale is less than 1, the error smaller, and the covariance as wide as the error."""
    rng = np.random.default_rng(4)
    Z, _ = walk(20000, rng)
    X = Z @ rng.standard_normal((2, 6)) + rng.standard_normal((20000, 6))
    errors = {}
    for scale in (1.0, None):
        d = DKF(f={"type": "ridge", "lags": 12}, scale=scale).fit(X[:15000], Z[:15000])
        mu, Sigma = d.posterior(X[15000:])
        errors[scale] = np.sqrt(np.mean((mu - Z[15000:]) ** 2))
        wide = nees(Z[15000:], mu, Sigma)
        assert wide == pytest.approx(1, abs=0.1) if scale is None else wide > 1.3
    assert errors[None] < errors[1.0]
    assert d.arrays["scale"] < 0.7 and d.arrays["spread"] > 1.2
    assert abs(coverage(Z[15000:], mu, Sigma)[0.9] - 0.9) < 0.02
    again = DKF(f={"type": "ridge", "lags": 12}, scale=None).fit(X[:5000], Z[:5000], like=d.arrays).arrays
    assert (again["scale"], again["spread"]) == (d.arrays["scale"], d.arrays["spread"])


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"Q": "nadaraya_watson"}, {"dynamics": "ridge"}])
def test_a_scale_for_every_form(values: dict[str, Any]) -> None:
    X, Z = world()
    d = DKF.make(f="ridge", scale=None, **values).fit(X, Z)
    assert 0.05 < d.arrays["scale"] < 20 and 0.05 < d.arrays["spread"] < 20
    fixed = DKF.make(f="ridge", scale=float(d.arrays["scale"]), **values).fit(X, Z)
    np.testing.assert_allclose(fixed.predict(X), d.predict(X), rtol=0, atol=1e-12)


def test_steady_is_the_same_and_settles_again_after_a_gap() -> None:
    X, Z = world()
    full = DKF(f="ridge").fit(X, Z)
    steady = DKF(f="ridge", steady=True).fit(X, Z)
    X[300:310] = np.nan
    for a, b in zip(full.posterior(X), steady.posterior(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    loop = Loop([steady], [-1], [0])
    loop.start(Spec(rate=10, channels=tuple("abcdef")))
    settled = []
    for k, x in enumerate(X):
        loop.process(Block(x[None], np.array([float(k)]), k))
        settled.append(int(steady.state.settled[0]))
    assert not any(settled[:3]) and all(settled[200:300]) and not any(settled[300:312]) and all(settled[500:])
    assert steady.health == {"bins": 800, "nonpd": 0, "missing": 10}


def test_steady_settles_again_under_a_new_model() -> None:
    X, Z = world()
    noisy = X + 3 * np.random.default_rng(1).standard_normal(X.shape)
    given = []
    for steady in (False, True):
        old, new = (DKF(f="ridge", steady=steady, covariance=True).fit(x, Z) for x in (X, noisy))
        loop, there = Loop([old], [-1], [0]), Spec(rate=10, channels=tuple("abcdef"))
        loop.start(there)
        loop.process(Block(X[:300], np.arange(300.0)))
        new.start(there)
        loop.swap(0, new.params, new.state)
        given.append(loop.process(Block(noisy[300:], np.arange(300.0, len(X)), 300))[0][1].data)
    np.testing.assert_allclose(given[1], given[0], rtol=0, atol=1e-9)


class Mapping(NamedTuple):
    A: F


@kernel
def matrix(params, state, t, x, y):
    for i in range(y.shape[0]):
        y[i] = 0.0
        for j in range(x.shape[0]):
            y[i] += params.A[i, j] * x[j]
    return True


@kernel
def bent(params, state, t, x, y):
    for i in range(y.shape[0]):
        y[i] = np.sin(x[i]) + params.A[i, 0] * x[0] * x[0]
    return True


def test_unscented_prediction_of_linear_dynamics_is_exact() -> None:
    k, f, Q, _ = exact(300, np.random.default_rng(5))
    f[[7, 8]] = np.nan
    other = Recursion(A=k.A, Gamma=k.Gamma, S=k.S, move=unscented(matrix), g=Mapping(k.A), points=points(2, ()))
    for a, b in zip(decode(k, f, Q, segment(f)), decode(other, f, Q, segment(f)), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_unscented_prediction_by_hand() -> None:
    """Sigma points mu +- sqrt(d) L_k with equal weights: alpha 1, beta 0, kappa 0."""
    rng = np.random.default_rng(6)
    A, Gamma, S = 0.3 * rng.standard_normal((3, 3)), spd(rng, 3), spd(rng, 3, 0.5)
    f, Q = rng.standard_normal((2, 3)), np.array([spd(rng, 3)] * 2)
    f[1] = np.nan  # predict only
    k = Recursion(A=A, Gamma=Gamma, S=S, move=unscented(bent), g=Mapping(A), points=points(3, ()))
    means, covariances = decode(k, f, Q, segment(f))
    L = np.sqrt(3) * np.linalg.cholesky(Q[0])
    z = np.concatenate([f[0] + L.T, f[0] - L.T])
    images = np.sin(z) + A[:, 0] * z[:, :1] ** 2
    np.testing.assert_allclose(means[1], images.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(covariances[1], np.cov(images.T, bias=True) + Gamma, atol=1e-12)


def ring(T: int) -> tuple[F, F]:
    """z that runs round a ring, and stays on it: no linear dynamics does."""
    rng = np.random.default_rng(7)
    Z = np.zeros((T, 2))
    Z[0] = [1, 0]
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    for t in range(1, T):
        z = turn @ Z[t - 1]
        Z[t] = z / np.hypot(*z) + 0.05 * rng.standard_normal(2)
    return Z @ rng.standard_normal((2, 6)) + 3 * rng.standard_normal((T, 6)), Z


@pytest.mark.slow
def test_dynamics_that_are_not_linear() -> None:
    X, Z = ring(1600)
    errors = []
    for dynamics in ("linear", {"type": "nadaraya_watson"}):
        d = DKF(f="ridge", dynamics=dynamics).fit(X[:1200], Z[:1200])
        X_test = X[1200:].copy()
        X_test[100:130] = np.nan
        errors.append(np.sqrt(np.mean((d.predict(X_test) - Z[1200:]) ** 2)))
    assert errors[1] < 0.95 * errors[0]
    assert np.sqrt(np.trace(d.arrays["Gamma"]) / 2) == pytest.approx(0.05, rel=0.3)
    assert d.settings()["dynamics"] == "nadaraya_watson"


def test_covariance_is_given_out(tmp_path: Path) -> None:
    X, Z = world()
    out = Spec(rate=10, channels=("vx", "vy"), unit="m/s")
    fitted = DKF(f="ridge", scale=None).fit(X, Z, outputs=out)
    path = str(fitted.save(tmp_path / "m.npz"))
    d = DKF(f="ridge", scale=None, model=path, covariance=True)
    X[400:420] = np.nan
    whole = apply(d, X, Spec(rate=10, channels=tuple("abcdef"))).data
    assert d.start(Spec(rate=10, channels=tuple("abcdef"))).channels == (
        "vx", "vy", "cov(vx,vx)", "cov(vx,vy)", "cov(vy,vy)",
    )  # fmt: skip
    mu, Sigma = fitted.posterior(X)
    read = DKF(f="ridge", scale=None, model=path).posterior(X)
    assert np.array_equal(read[0], mu) and np.array_equal(read[1], Sigma)
    assert np.array_equal(whole[:, :2], fitted.predict(X)) and np.array_equal(whole[:, :2], d.predict(X))
    assert np.array_equal(whole[:, :2], mu)
    assert np.array_equal(whole[:, 2:], Sigma[:, [0, 0, 1], [0, 1, 1]])


def test_while_bins_are_missing_the_covariance_grows_by_gamma() -> None:
    X, Z = world()
    d = DKF(f="ridge").fit(X, Z)
    X[400:405] = np.nan
    Sigma, a = d.posterior(X)[1], d.arrays
    d.arrays = a | {"spread": np.array(9.0)}
    wide = d.posterior(X)[1]
    np.testing.assert_allclose(wide[:400], 9 * Sigma[:400], rtol=1e-12)
    np.testing.assert_allclose(wide[400:405], Sigma[400:405] + 8 * Sigma[399], rtol=1e-9)
    d.arrays = a | {"spread": np.array(0.25)}
    np.testing.assert_allclose(d.posterior(X)[1], 0.25 * Sigma, rtol=1e-12)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"steady": True, "Q": "nadaraya_watson"}, "steady: there is a limit only for a constant Q"),
        ({"steady": True, "dynamics": "ridge"}, "steady: there is a limit only for a constant Q"),
        ({"dynamics": "rigde"}, "dynamics: unknown type 'rigde'; did you mean 'ridge'"),
        ({"dynamics": "linaer"}, "dynamics: unknown type 'linaer'; did you mean 'linear'"),
        ({"dynamics": "bins"}, "dynamics: 'bins' is no regressor"),
        ({"dynamics": {"type": "ridge", "lags": 2}}, "dynamics: .* looks back, and the filter knows z"),
        ({"dynamics": "ridge", "S": "lyapunov"}, "S: only linear dynamics say what is stationary: use cov"),
        ({"scale": -1.0}, "scale: "),
        ({"Q": "nadaraya_wilson"}, "Q: "),
        ({"Q": "f"}, "Q: 'ridge' does not say how sure it is"),
    ],
)
def test_says_what_is_wrong(values: dict[str, Any], message: str) -> None:
    X, Z = world()
    with pytest.raises(StreamError, match=message):
        DKF.make(f="ridge", **values).fit(X, Z)


def test_a_channel_of_z_that_does_not_vary_is_said_to_be_that() -> None:
    X, Z = world()
    Z[:, 1] = 5.0
    with pytest.raises(StreamError, match="S is not positive definite: a channel of z does not vary"):
        DKF(f="ridge").fit(X, Z).predict(X)


def test_gain_is_that_of_a_filter_of_scaled_z(tmp_path: Path) -> None:
    """mu times 2, covariance times 4, to the last bit, and between fit and run; in missing bins, too, and steady."""
    X, Z = world()
    fitted = DKF(f="ridge", scale=None).fit(X, Z)
    path = str(fitted.save(tmp_path / "m.npz"))
    X[300:305] = np.nan
    zero = {"z_mean": np.zeros(2)}  # what is added last is rounded
    for steady in (False, True):
        one, two = (
            DKF(f="ridge", scale=None, steady=steady, gain=g).hold(
                fitted.arrays | zero, fitted.header["in"], fitted.header["out"]
            )
            for g in (1.0, 2.0)
        )
        for a, b, by in zip(one.posterior(X), two.posterior(X), (2, 4), strict=True):
            assert np.array_equal(by * a, b)
    np.testing.assert_allclose(
        DKF(f="ridge", scale=None, gain=1.3, model=path).predict(X) - fitted.arrays["z_mean"],
        1.3 * (fitted.predict(X) - fitted.arrays["z_mean"]),
        atol=1e-12,
    )
    scaled = DKF(f="ridge", scale=None).fit(world()[0], 3 * Z)
    mine = DKF(f="ridge", scale=None, gain=3.0, model=path)
    for a, b in zip(scaled.posterior(X), mine.posterior(X), strict=True):
        moved = 2 * fitted.arrays["z_mean"] if a.ndim == 2 else 0.0
        np.testing.assert_allclose(a, b + moved, rtol=1e-3)


@pytest.mark.parametrize("values", [{}, {"Q": "nadaraya_watson"}, {"dynamics": "ridge"}, {"covariance": True}])
def test_gain_of_a_kalman_filter(values: dict[str, Any], tmp_path: Path) -> None:
    """The gain learnt makes the mean |mu| that of a Kalman filter; a refit keeps it, and a number goes before it."""
    X, Z = world()
    rows = np.arange(len(X)) % 10 != 3
    d = DKF.make(f="ridge", gain=None, **values).fit(X, Z, rows=rows)
    mean = Z[rows].mean(axis=0)
    length = [np.linalg.norm(k.predict(X)[rows] - mean, axis=1).mean() for k in (d, Kalman().fit(X, Z, rows=rows))]
    assert length[0] == pytest.approx(length[1], rel=1e-12)
    assert abs(d.arrays["gain"] - 1) > 0.03
    again = DKF.make(f="ridge", gain=None, **values).fit(X[:400], Z[:400], like=d.arrays)
    assert again.arrays["gain"] == d.arrays["gain"]
    path = str(d.save(tmp_path / "m.npz"))
    one = DKF.make(f="ridge", gain=1.0, model=path, **values)
    np.testing.assert_allclose(d.predict(X) - mean, d.arrays["gain"] * (one.predict(X) - mean), atol=1e-12)


def test_a_gain_that_was_not_learnt(tmp_path: Path) -> None:
    X, Z = world()
    path = str(DKF(f="ridge").fit(X, Z).save(tmp_path / "m.npz"))
    with pytest.raises(StreamError, match="gain: the model has none"):
        DKF(f="ridge", gain=None, model=path).predict(X)
