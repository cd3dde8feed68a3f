"""Multilayer perceptron."""

import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.mlp import MLP
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

F = NDArray[np.float64]


def world(T: int = 800) -> tuple[F, F]:
    """z (T, 2): products of x (T, 4), which no linear decoder can tell; on odd scales."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((T, 4))
    Z = np.column_stack([X[:, 0] * X[:, 1], X[:, 2] * X[:, 3]]) + 0.05 * rng.standard_normal((T, 2))
    return 100 * X + 7, 0.01 * Z - 3


def drawn(m: int, layers: int, lags: int = 2, n: int = 4, h: int = 5, d: int = 2) -> dict[str, F]:
    """Weights of m networks at random."""
    rng, k, l = np.random.default_rng(1), layers - 1, lags * n  # noqa: E741
    sizes = {"W1": (m, l, h), "b1": (m, h), "W2": (m, k, h, h), "b2": (m, k, h), "W3": (m, h, d), "b3": (d,)}
    return {c: rng.standard_normal(size) for c, size in sizes.items()} | {"x_mean": np.ones(n), "best": np.array(1)}


@pytest.mark.parametrize("m, layers, activation", [(1, 1, "tanh"), (1, 2, "relu"), (3, 3, "tanh")])
def test_forward_pass_equals_the_equation(m: int, layers: int, activation: Literal["relu", "tanh"]) -> None:
    a = drawn(m, layers)
    net = MLP(lags=2, hidden=5, layers=layers, members=m, activation=activation)
    net.hold(a, {"n": 4}, {"channels": ["vx", "vy"], "unit": ""})
    X = np.random.default_rng(2).standard_normal((30, 4))
    X[20, 0] = np.nan
    w = np.nan_to_num(X - a["x_mean"])
    w = np.hstack([w, np.vstack([np.zeros(4), w[:-1]])])
    r = np.tanh if activation == "tanh" else lambda u: np.maximum(u, 0)
    Y = np.zeros((30, 2)) + a["b3"]
    for j in range(m):
        u = r(w @ a["W1"][j] + a["b1"][j])
        for k in range(layers - 1):
            u = r(u @ a["W2"][j, k] + a["b2"][j, k])
        Y += u @ a["W3"][j] / m
    Y[20] = np.nan
    np.testing.assert_allclose(net.predict(X), Y, rtol=0, atol=1e-12)


def test_one_layer_from_a_file(tmp_path: Path) -> None:
    net = MLP(lags=2, hidden=5, layers=1).hold(drawn(1, 1), {"n": 4}, {"channels": ["vx", "vy"], "unit": ""})
    read = MLP(lags=2, hidden=5, layers=1, model=str(net.save(tmp_path / "m.npz")))
    read.check()
    X = np.random.default_rng(3).standard_normal((40, 4))
    assert np.array_equal(apply(read, X, Spec(rate=0, channels=("a", "b", "c", "d"))).data, net.predict(X))


def test_running_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    a = drawn(1, 3, lags=1)
    net = MLP(hidden=5, layers=3, activation="tanh").hold(a, {"n": 4}, {"channels": ["vx", "vy"], "unit": ""})
    twin = torch.nn.Sequential()
    for W, b in zip([a["W1"][0], *a["W2"][0], a["W3"][0]], [a["b1"][0], *a["b2"][0], a["b3"]], strict=True):
        layer = torch.nn.Linear(*W.shape, dtype=torch.float64)
        layer.weight.data, layer.bias.data = torch.tensor(W.T), torch.tensor(b)
        twin.extend([layer, torch.nn.Tanh()])
    X = np.random.default_rng(3).standard_normal((40, 4))
    with torch.no_grad():
        expected = twin[:-1](torch.tensor(X - a["x_mean"])).numpy()
    np.testing.assert_allclose(net.predict(X), expected, rtol=0, atol=1e-12)


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


def test_several_differ_and_their_mean_is_given() -> None:
    pytest.importorskip("torch")
    X, Z = world(200)
    many = MLP(hidden=4, members=3, epochs=3).fit(X, Z)
    each = []
    for j in range(3):
        its = {k: many.arrays[k][j : j + 1] for k in ("W1", "b1", "W2", "b2", "W3")}
        each.append(MLP(hidden=4).hold(many.arrays | its, many.header["in"], many.header["out"]).predict(X))
    assert np.ptp(each, axis=0).min() > 0
    np.testing.assert_allclose(many.predict(X), np.mean(each, axis=0), rtol=0, atol=1e-12)


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


def test_dropout_leaves_something() -> None:
    with pytest.raises(StreamError, match="dropout: 1 leaves nothing"):
        MLP(dropout=1.0).fit(*world(100))
