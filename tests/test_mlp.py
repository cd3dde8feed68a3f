"""Multilayer perceptron."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.mlp import MLP
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import StreamError

F = NDArray[np.float64]


def world(T: int = 800) -> tuple[F, F]:
    """z (T, 2): products of x (T, 4), which no linear decoder can tell; on odd scales."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((T, 4))
    Z = np.column_stack([X[:, 0] * X[:, 1], X[:, 2] * X[:, 3]]) + 0.05 * rng.standard_normal((T, 2))
    return 100 * X + 7, 0.01 * Z - 3


def test_forward_pass_equals_the_equation() -> None:
    rng = np.random.default_rng(1)
    l, h, d = 8, 5, 2  # noqa: E741
    a = {"W1": (l, h), "b1": (h,), "W2": (h, h), "b2": (h,), "W3": (h, d), "b3": (d,), "x_mean": (4,)}
    arrays = {k: rng.standard_normal(shape) for k, shape in a.items()} | {"best": np.array(1)}
    m = MLP(lags=2, hidden=5).hold(arrays, {"n": 4}, {"channels": ["vx", "vy"], "unit": ""})
    X = rng.standard_normal((30, 4))
    X[20, 0] = np.nan
    w = np.nan_to_num(X - arrays["x_mean"])
    w = np.hstack([w, np.vstack([np.zeros(4), w[:-1]])])
    u = np.maximum(w @ arrays["W1"] + arrays["b1"], 0)
    Y = np.maximum(u @ arrays["W2"] + arrays["b2"], 0) @ arrays["W3"] + arrays["b3"]
    Y[20] = np.nan
    np.testing.assert_allclose(m.predict(X), Y, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_learns_what_is_not_linear_and_the_same_each_time() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    first, second = (MLP(dropout=0.0, epochs=60).fit(X[:600], Z[:600]) for _ in range(2))
    errors = [np.mean((k.predict(X[600:]) - Z[600:]) ** 2) for k in (first, Ridge().fit(X[:600], Z[:600]))]
    assert errors[0] < 0.3 * errors[1]
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)
    other = MLP(dropout=0.0, epochs=2, seed=1).fit(X[:600], Z[:600])
    assert not np.array_equal(other.arrays["W1"], first.arrays["W1"])


def test_keeps_the_epochs_of_an_earlier_fit() -> None:
    pytest.importorskip("torch")
    X, Z = world(200)
    first = MLP(hidden=4, epochs=5).fit(X, Z)
    again = MLP(hidden=4, epochs=5).fit(X, Z, like=first.arrays | {"best": np.array(2)})
    assert int(again.arrays["best"]) == 2


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StreamError, match=r"needs the package torch: pip install 'rheobase\[train\]'"):
        MLP().fit(*world(100))
