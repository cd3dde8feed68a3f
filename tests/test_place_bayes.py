"""Bayesian decoder of place: a plain twin, missing bins, what it learns, and its covariance as the Q of a DKF."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes._decoder import Training
from rheobase.nodes.dkf import DKF
from rheobase.nodes.place_bayes import PlaceBayes, _ways
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop

F = NDArray[np.float64]


def track(T: int = 1500, n: int = 12, seed: int = 0) -> tuple[F, F]:
    """Counts (T, n) of units with a field each, on a bent track that is walked to and fro; z (T, 2), px."""
    rng = np.random.default_rng(seed)
    s = 200 * (1 + np.sin(np.cumsum(0.1 * rng.standard_normal(T))))
    z = np.stack([s, np.abs(s - 200)], axis=1)
    field = rng.uniform(0, 400, n)
    rate = 0.02 + 0.7 * np.exp(-0.5 * ((s[:, None] - field) / 40) ** 2)
    return rng.poisson(rate).astype(float), z


def plain(d: PlaceBayes, X: F) -> list[F]:
    """The posterior (m,) after each sample, a sum of logarithms at a time; the old one where nothing is known."""
    a, found = d.arrays, []
    place, rate = a["place"], a["lambda"]
    K = np.exp(-((place[:, None] - place) ** 2).sum(axis=2) / (2 * d.walk**2)) if d.walk else None
    p = None
    for t in range(len(X)):
        window = X[max(0, t - d.lags + 1) : t + 1]
        whole = np.isfinite(window).all(axis=1)
        if K is not None and p is not None:
            log_p = np.log(sum(p[i] * K[i] / K[i].sum() for i in range(len(p))))
        elif whole[-1]:
            log_p = np.log(a["occupied"])
        else:
            found.append(np.full(len(place), np.nan))
            continue
        if whole[-1]:
            for x in window[whole]:
                log_p = log_p + np.log(rate) @ x - rate.sum(axis=1) / d.lags
        p = np.exp(log_p - log_p.max())
        p = p / p.sum()
        found.append(p)
    return found


@pytest.mark.parametrize("lags, walk", [(1, 0.0), (3, 0.0), (1, 30.0), (2, 30.0)])
def test_equals_a_plain_twin(lags: int, walk: float) -> None:
    X, Z = track()
    X[[0, 40, 41], 3] = np.nan
    X[60] = np.inf
    d = PlaceBayes(lags=lags, walk=walk, points=200).fit(X[100:], Z[100:])
    X, c = X[:100], d.arrays["place"]
    p = np.array(plain(d, X))
    mean = p @ c
    given: dict[str, F] = {}
    for word in ("mode", "mean"):
        given[word] = PlaceBayes(lags=lags, walk=walk, points=200, give=word).hold(d.arrays, *ends(d)).predict(X)
    np.testing.assert_allclose(given["mean"], mean, rtol=0, atol=1e-8)
    there = np.isfinite(p).all(axis=1)
    assert np.array_equal(given["mode"][there], c[p[there].argmax(axis=1)]) and np.isnan(given["mode"][~there]).all()
    assert (~there).sum() == (1 if walk else 4)
    q = PlaceBayes(lags=lags, walk=walk, points=200).hold(d.arrays, *ends(d)).noise()
    V = q.hold(d.arrays, {"n": 12}, {"channels": list("abcd"), "unit": ""}).predict(X).reshape(-1, 2, 2)
    for t in np.flatnonzero(there):
        e = c - mean[t]
        np.testing.assert_allclose(V[t], (p[t, :, None] * e).T @ e + d.arrays["side"] ** 2 / 12 * np.eye(2), atol=1e-6)


def ends(d: PlaceBayes) -> tuple[dict[str, Any], dict[str, Any]]:
    return d.header["in"], d.header["out"]


def test_rates_are_those_it_was_drawn_from() -> None:
    """A unit with one field, dwelt in for long: its rate there and its silence elsewhere."""
    rng = np.random.default_rng(1)
    z = np.repeat([[0.0], [100.0]], 4000, axis=0)
    X = rng.poisson(np.where(z == 0, [[0.5, 2.0]], [[3.0, 0.0]])).astype(float)
    a = PlaceBayes(cell=20, smooth=10).fit(X, z).arrays
    assert np.array_equal(a["place"], [[0], [100]])
    np.testing.assert_allclose(a["lambda"], [[0.5, 2.0], [3.0, 0.0]], atol=0.1)
    np.testing.assert_allclose(a["occupied"], [0.5, 0.5], atol=1e-9)
    windows = PlaceBayes(cell=20, smooth=10, lags=3).fit(X, z).arrays
    np.testing.assert_allclose(windows["lambda"], 3 * a["lambda"], atol=0.1)


def test_who_stands_still_keeps_the_way_he_went() -> None:
    """To and fro at 0.3 px a sample, in whole pixels: most samples do not move, and that is not the way back."""
    s = np.abs(0.3 * np.arange(4000) % 400 - 200)
    z, rows = np.round(s)[:, None], np.ones(4000, bool)
    way, turn = _ways(Training(z, z, rows, np.arange(4000) // 700))
    right = way[1:] * np.sign(np.diff(s))
    assert np.isnan(way[::700]).all() and np.isfinite(right).sum() == 3994
    assert abs(np.nanmean(right)) > 0.98 and turn < 0.01
    assert np.isnan(_ways(Training(z, z, rows, np.arange(4000) // 2))[0][1]), "nobody moved in that segment"


def error(d: Any, X: F, Z: F) -> float:
    """Mean distance, px, on a third held out."""
    return float(np.mean(np.hypot(*(d.fit(X[:1000], Z[:1000]).predict(X[1000:]) - Z[1000:]).T)))


def test_finds_its_way() -> None:
    """Better with a window, better yet by a DKF that takes its posterior, best with a walk, which knows most."""
    X, Z = track()
    alone, window = error(PlaceBayes(), X, Z), error(PlaceBayes(lags=2), X, Z)
    walk = error(PlaceBayes(walk=30, give="mean"), X, Z)
    filtered = error(DKF(f={"type": "place_bayes", "give": "mean"}, Q="f"), X, Z)
    assert walk < 0.7 * filtered and filtered < 0.7 * window and window < 0.9 * alone, (alone, window, filtered, walk)


def test_is_the_f_and_the_q_of_a_dkf() -> None:
    X, Z = track(600)
    d = DKF(f={"type": "place_bayes", "give": "mean"}, Q="f", nonpd="robust").fit(X, Z)
    a = d.arrays
    f = PlaceBayes(give="mean").hold({k[2:]: v for k, v in a.items() if k[:2] == "f."}, *ends(d))  # type: ignore[arg-type]
    means = f.predict(X) - a["z_mean"]
    Q = f.noise().hold(f.arrays, {"n": 12}, {"channels": list("abcd"), "unit": ""}).predict(X).reshape(-1, 2, 2)
    mu, Sigma = means[0], Q[0]
    Y = d.predict(X) - a["z_mean"]
    for t in range(1, 600):
        M = a["A"] @ Sigma @ a["A"].T + a["Gamma"]
        Sigma = np.linalg.inv(np.linalg.inv(M) + np.linalg.inv(Q[t]))
        mu = Sigma @ (np.linalg.solve(M, a["A"] @ mu) + np.linalg.solve(Q[t], means[t]))
        np.testing.assert_allclose(Y[t], mu, rtol=0, atol=1e-6)
    scaled = DKF(f={"type": "place_bayes", "give": "mean"}, Q="f", nonpd="robust", scale=None).fit(X, Z)
    assert 0.1 < scaled.arrays["scale"] < 10


def test_a_new_model_has_the_shapes_of_the_old() -> None:
    shapes = []
    for T in (300, 1500):
        X, Z = track(T)
        d = PlaceBayes(points=300, walk=20).fit(X, Z)
        d.predict(X[:1])
        shapes.append([np.shape(v) for v in (*d.params, *d.state)])
    assert shapes[0] == shapes[1]


def test_a_walk_begins_anew_in_the_cells_of_a_new_model() -> None:
    """What was known is a posterior by number of cell, and a model of other data has other cells by these numbers."""
    X, Z = track()
    node: dict[str, Any] = {"points": 300, "walk": 20.0, "give": "mean"}
    old, new = PlaceBayes(**node).fit(X, Z), PlaceBayes(**node).fit(X, Z, rows=Z[:, 0] > 100)
    assert not np.array_equal(old.arrays["place"], new.arrays["place"])
    afresh = new.predict(X[500:520])
    loop, there = Loop([old], [-1], [0]), Spec(rate=0, channels=numbered("x", 12))
    loop.start(there)
    loop.process(Block(X[480:500], np.arange(20.0)))
    new.start(there)
    loop.swap(0, new.params, new.state)
    np.testing.assert_array_equal(loop.process(Block(X[500:520], np.arange(20.0, 40.0), 20))[0][1].data, afresh)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda X, Z: PlaceBayes().fit(X - 1, Z), "takes counts, and its input goes below 0"),
        (lambda X, Z: PlaceBayes(points=5).fit(X, Z), "cell: .* makes .* cells, more than points = 5"),
        (lambda X, Z: DKF(f="ridge", Q="f").fit(X, Z).predict(X), "Q: 'ridge' does not say how sure it is"),
    ],
)
def test_what_a_user_gets_wrong(make: Any, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        make(*track(300))
