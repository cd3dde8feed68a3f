"""Logistic regression: the optimum that scipy finds, the chances of a known law, lags, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from rheobase.nodes.logistic import Logistic, newton
from rheobase.stream.block import StreamError
from rheobase.tools.scores import accuracy, auc


def law(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n, 3), true chances (n, 2) and what came of them."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 3)) * [1, 10, 0.1] + [0, 5, 1]
    u = np.stack([X[:, 0] + 0.2 * (X[:, 1] - 5) - 1, -10 * (X[:, 2] - 1)], axis=1)
    p = 1 / (1 + np.exp(-u))
    return X, p, (rng.random((n, 2)) < p).astype(float)


@pytest.mark.parametrize("alpha", [1e-4, 0.1])
def test_is_the_optimum(alpha: float) -> None:
    X, _, Z = law(300)
    node = Logistic(alpha=alpha).fit(X, Z)
    scale = X.std(axis=0)
    for i in range(2):

        def cost(w: np.ndarray, z: np.ndarray = Z[:, i]) -> float:
            u = (X - X.mean(axis=0)) / scale @ w[:3] + w[3]
            y = 1 / (1 + np.exp(-u))
            return -np.sum(z * np.log(y) + (1 - z) * np.log(1 - y)) + 0.5 * alpha * 300 * np.sum(w[:3] ** 2)

        best = optimize.minimize(cost, np.zeros(4), method="BFGS", options={"gtol": 1e-6}).x
        np.testing.assert_allclose(node.arrays["W"][:, i] * scale, best[:3], atol=1e-5)
        np.testing.assert_allclose(node.arrays["b"][i], best[3], atol=1e-5)


def test_the_chances_are_those_of_the_law() -> None:
    X, p, Z = law(20000)
    Y = Logistic().fit(X, Z).predict(X)
    assert np.abs(Y - p).max() < 0.05
    assert accuracy(Y, Z) == pytest.approx(np.maximum(p, 1 - p).mean(), abs=0.02)
    below = [np.mean(Y[Z[:, i] == 1, i][:500, None] > Y[Z[:, i] == 0, i][:500]) for i in range(2)]
    assert auc(Y, Z) == pytest.approx(np.mean(below), abs=0.03)


def test_classes_that_are_apart_do_not_run_away() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    z = (x > 0).astype(float)
    Y = Logistic().fit(x, z).predict(x)
    assert np.isfinite(Y).all() and accuracy(Y, z) == 1 and auc(Y, z) == 1
    w = newton(x, z[:, 0], 0.0)
    assert np.isfinite(w).all()


def test_lags_and_missing_samples() -> None:
    """What happened two samples ago is told with three lags, and not with one; NaN gives NaN and no more."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2000, 1))
    z = np.zeros((2000, 1))
    z[2:] = x[:-2] > 0
    three, one = (Logistic(lags=k).fit(x, z) for k in (3, 1))
    assert accuracy(three.predict(x), z) > 0.97 and accuracy(one.predict(x), z) < 0.56
    broken = x.copy()
    broken[100] = np.nan
    y, whole = three.predict(broken), three.predict(x)
    assert np.flatnonzero(np.isnan(y)).tolist() == [100]
    np.testing.assert_array_equal(y[103:], whole[103:])


def test_far_out_it_is_sure_and_finite() -> None:
    X, _, Z = law(200)
    Y = Logistic().fit(X, Z).predict(np.array([[1e6, 0, 0], [-1e6, 0, 0]]))
    assert Y[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("z", "says"), [(np.linspace(0, 1, 50), "must be 0 or 1"), (np.ones(50), "always the same tells nothing")]
)
def test_says_what_is_wrong(z: np.ndarray, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Logistic().fit(np.random.default_rng(0).standard_normal((50, 2)), z[:, None])
