"""Gated recurrent unit."""

import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.gru import GRU
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import StreamError

F = NDArray[np.float64]


def world(T: int = 600) -> tuple[F, F]:
    """z (T, 2): what a leak keeps of x (T, 2), and the size of it, which no linear decoder can tell; odd scales."""
    X, memory = np.random.default_rng(0).standard_normal((T, 2)), np.zeros((T, 2))
    for t in range(1, T):
        memory[t] = 0.8 * memory[t - 1] + X[t]
    return 100 * X + 7, 0.01 * np.column_stack([memory[:, 0], np.abs(memory[:, 1])]) - 3


def drawn(n: int = 3, h: int = 5, d: int = 2) -> dict[str, F]:
    """Weights at random."""
    rng = np.random.default_rng(1)
    sizes = {"W": (n, 3 * h), "b": (3 * h,), "U": (h, 3 * h), "c": (3 * h,), "V": (h, d), "v": (d,), "x_mean": (n,)}
    return {k: rng.standard_normal(size) for k, size in sizes.items()} | {"best": np.array(1)}


def held(arrays: dict[str, F]) -> GRU:
    return GRU(hidden=5).hold(arrays, {"n": 3}, {"channels": ["vx", "vy"], "unit": ""})


def twin(a: dict[str, F], X: F, dtype: Any) -> F:
    """What torch's own GRU says of the whole of X at once."""
    torch = pytest.importorskip("torch")
    net, last = torch.nn.GRU(*a["W"].shape[:1], len(a["V"]), dtype=dtype), torch.nn.Linear(*a["V"].shape, dtype=dtype)
    given = [a["W"].T, a["U"].T, a["b"], a["c"], a["V"].T, a["v"]]
    with torch.no_grad():
        for w, value in zip([*net.parameters(), *last.parameters()], given, strict=True):
            w.copy_(torch.tensor(value))
        y: F = last(net(torch.tensor(X - a["x_mean"], dtype=dtype))[0]).double().numpy()
    return y


def test_running_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    X = np.random.default_rng(2).standard_normal((200, 3))
    Y = held(drawn()).predict(X)
    np.testing.assert_allclose(Y, twin(drawn(), X, torch.float64), rtol=0, atol=1e-12)
    np.testing.assert_allclose(Y, twin(drawn(), X, torch.float32), rtol=0, atol=1e-5)


def test_equals_the_equation() -> None:
    a, X = drawn(), np.random.default_rng(2).standard_normal((50, 3))
    h, Y = np.zeros(5), []
    for x in X:
        p_r, p_u, p_n = np.split(a["b"] + (x - a["x_mean"]) @ a["W"], 3)
        q_r, q_u, q_n = np.split(a["c"] + h @ a["U"], 3)
        r, u = 1 / (1 + np.exp(-p_r - q_r)), 1 / (1 + np.exp(-p_u - q_u))
        h = u * h + (1 - u) * np.tanh(p_n + r * q_n)
        Y.append(a["v"] + h @ a["V"])
    np.testing.assert_allclose(held(a).predict(X), Y, rtol=0, atol=1e-12)


def test_a_missing_sample_is_as_if_it_had_never_been() -> None:
    net, X = held(drawn()), np.random.default_rng(3).standard_normal((40, 3))
    holed = np.insert(X, 20, [0.0, np.nan, np.inf], axis=0)
    Y = net.predict(holed)
    assert np.isnan(Y[20]).all()
    assert np.array_equal(np.delete(Y, 20, axis=0), net.predict(X))


def test_begins_again_with_each_segment() -> None:
    net, X = held(drawn()), np.random.default_rng(3).standard_normal((40, 3))
    halves = np.vstack([net.predict(X[:25]), net.predict(X[25:])])
    assert np.array_equal(net.predict(X, np.repeat([0, 1], [25, 15])), halves)
    assert not np.array_equal(net.predict(X), halves)


def test_values_far_out_saturate() -> None:
    assert np.isfinite(held(drawn()).predict([[1e300, -1e300, 1e300]] * 3)).all()


@pytest.mark.slow
def test_learns_what_a_window_cannot_tell() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    net = GRU(hidden=16, epochs=20, learning_rate=0.02, noise=0.0, dropout=0.0).fit(X[:400], Z[:400])
    errors = [np.mean((k.predict(X[400:]) - Z[400:]) ** 2) for k in (net, Ridge(lags=5).fit(X[:400], Z[:400]))]
    assert errors[0] < 0.5 * errors[1]


def test_the_same_each_time_by_its_seed_and_the_epochs_of_an_earlier_fit() -> None:
    pytest.importorskip("torch")
    X, Z = world(100)
    first, second = (GRU(hidden=3, epochs=2).fit(X, Z) for _ in range(2))
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)
    again = GRU(hidden=3, epochs=2, seed=1).fit(X, Z, like=first.arrays | {"best": np.array(1)})
    assert int(again.arrays["best"]) == 1
    assert not np.array_equal(first.arrays["W"], again.arrays["W"])


def test_learns_from_gaps_missing_samples_and_short_segments() -> None:
    """A missing sample is not seen at all; where a segment ends is."""
    pytest.importorskip("torch")
    X, Z = world(120)
    segment = np.repeat([0, 1, 2], [50, 7, 63])
    plain = GRU(hidden=3, epochs=2).fit(X, Z, segment=segment)
    holed = np.insert(X, 60, np.nan, axis=0), np.insert(Z, 60, 0.0, axis=0), np.insert(segment, 60, 2)
    missing = GRU(hidden=3, epochs=2).fit(holed[0], holed[1], segment=holed[2])
    assert all(np.array_equal(plain.arrays[k], missing.arrays[k]) for k in plain.arrays)
    whole = GRU(hidden=3, epochs=2).fit(X, Z)
    assert not np.array_equal(plain.arrays["W"], whole.arrays["W"])


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StreamError, match=r"needs the package torch: pip install 'rheobase\[train\]'"):
        GRU().fit(*world(100))


def test_dropout_leaves_something() -> None:
    with pytest.raises(StreamError, match="dropout: 1 leaves nothing"):
        GRU(dropout=1.0).fit(*world(100))
