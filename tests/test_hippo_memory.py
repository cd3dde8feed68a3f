"""HiPPO memory: against its equation, and what it holds of the past."""

from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.special
from numpy.typing import NDArray

from rheobase.nodes._ssm import hippo
from rheobase.nodes.hippo_memory import SPANS, HippoMemory
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop, apply

F = NDArray[np.float64]
BASES = list(SPANS)


def waves(T: int = 600) -> F:
    t = np.arange(T) / 100
    return np.column_stack([np.sin(2 * np.pi * 0.9 * t), np.cos(2 * np.pi * 0.5 * t + 1) + 0.3 * np.sin(9 * t)])


def features(u: F, rate: float = 100, **given: Any) -> F:
    return apply(HippoMemory(**{"memory": 1.0, "features": 16, **given}), u, rate=rate).data


@pytest.mark.parametrize("basis", BASES)
def test_equals_the_differential_equation(basis: Any) -> None:
    """scipy integrates x' = A x + B u, u held for each sample; a mode is a matrix of two rows."""
    node = HippoMemory(memory=1.0, features=6, basis=basis)
    u = waves(60)[:, 0]
    y = apply(node, u, rate=20).data
    if basis in ("legt", "fout", "dense_legs"):
        A, B, _ = hippo("legs" if basis == "dense_legs" else basis, 6)
        A, scale = A.astype(complex), np.full(6, np.sqrt(2.0))
        order = slice(None)
    else:
        dA, scale = node.params.dA[0] + 1j * node.params.dA[1], node.params.scale
        A, B = np.diag(np.log(dA) * 20 / SPANS[basis]), np.ones(len(dA))
        order = node.params.real
    x, want = np.zeros(len(B), complex), []
    for value in u:
        done = scipy.integrate.solve_ivp(
            lambda _, z, v=value: (A @ z + B * v) * SPANS[basis], (0, 1 / 20), x, rtol=1e-10, atol=1e-12
        )
        x = done.y[:, -1]
        if isinstance(order, int):
            want.append(np.concatenate([scale[0] * x.real, (scale[1] * x.imag)[order:]]))
        else:
            want.append(scale * x.real)
    np.testing.assert_allclose(y, want, rtol=0, atol=1e-7)


def test_legendre_features_are_moments_of_the_faded_past() -> None:
    """y_n = sqrt(2) integral of sqrt(2n+1) P_n(2 exp(-s) - 1) exp(-s) u(t - s) ds, of a signal finely sampled."""
    rate, memory = 2000, 1.0
    t = np.arange(0, 6, 1 / rate)
    u = np.sin(2 * np.pi * 1.3 * t)
    y = features(u, rate, basis="dense_legs", features=8)[-1]
    s = (t[-1] - t + 0.5 / rate) * SPANS["dense_legs"] / memory
    for n in range(8):
        k = np.sqrt(2 * (2 * n + 1)) * scipy.special.eval_legendre(n, 2 * np.exp(-s) - 1) * np.exp(-s)
        assert abs(y[n] - np.sum(k * u) * SPANS["dense_legs"] / memory / rate) < 1e-4


@pytest.mark.parametrize("basis", BASES)
def test_every_feature_weighs_the_past_with_1(basis: Any) -> None:
    """integral of k^2 ds = 1, but for the sine of frequency 0; a window of 16 features is not sharp."""
    impulse = np.zeros(8000)
    impulse[0] = 1.0
    ds = SPANS[basis] / 1000
    k = features(impulse, 1000, basis=basis) / ds
    power = np.sum(k**2, axis=0) * ds
    none = {"lin": [8], "fout": [1]}.get(basis, [])
    assert (power[none] == 0).all()
    if basis == "legt":  # its window is not sharp, which the fine polynomials feel
        assert (np.diff(power) < 0).all()
        power = power[:8]
    assert np.abs(np.delete(power, none) - 1).max() < (0.15 if basis == "legt" else 0.02)


@pytest.mark.parametrize("basis", BASES)
def test_the_past_comes_back(basis: Any) -> None:
    """Of 1 s, from 32 numbers a channel. S4D-Lin shows what it is known for: it is periodic in its memory."""
    node, u = HippoMemory(memory=1.0, features=32, basis=basis), waves()
    R = node.recall(100)
    y = apply(node, u, rate=100).data[-1].reshape(2, 32)
    for c in range(2):
        error = R @ y[c] - u[::-1][:100, c]
        assert np.sqrt(np.mean(error**2)) < {"lin": 0.35, "legs": 0.2}.get(basis, 0.1)


def test_one_channel_does_not_know_of_another() -> None:
    u = waves()
    both = features(u)
    assert np.array_equal(both[:, :16], features(u[:, :1]))
    assert np.array_equal(both[:, 16:], features(u[:, 1:]))


@pytest.mark.parametrize("basis", BASES)
def test_another_rate_gives_the_same_numbers(basis: Any) -> None:
    """A stream at half the rate, with the same memory in s: within 2 %, of features that the signal moves."""
    t = np.arange(0, 6, 1 / 400)
    u = np.sin(2 * np.pi * 0.9 * t)
    fine, coarse = features(u, 400, basis=basis)[1::2], features(u[::2], 200, basis=basis)
    assert np.abs(fine - coarse).max() < 0.02 * np.abs(fine).max()


@pytest.mark.parametrize("basis", ["ptd", "legt"])
def test_a_missing_sample_is_held(basis: Any) -> None:
    u = waves()
    held, holed = u.copy(), u.copy()
    held[200:230, 1] = u[199, 1]
    holed[200:230, 1] = [np.nan, np.inf, -np.inf] * 10
    assert np.array_equal(features(holed, basis=basis), features(held, basis=basis))


@pytest.mark.parametrize("basis", ["ptd", "legt"])
def test_a_channel_that_is_long_missing_comes_out_missing(basis: Any) -> None:
    u = waves()
    u[:20, 1] = np.nan
    u[200:400, 1] = np.nan
    y = features(u, basis=basis)
    assert np.isfinite(y[:, :16]).all()
    missing = np.isnan(y[:, 16:])
    assert (missing.all(axis=1) == missing.any(axis=1)).all()
    want = np.zeros(600, bool)
    want[:20], want[300:400] = True, True
    assert np.array_equal(missing[:, 0], want)


def test_begins_again_with_each_segment() -> None:
    loop = Loop([HippoMemory(memory=1.0, features=4)], [-1], [0])
    loop.start(Spec(rate=100, channels=("a", "b")))
    u, t = waves(100), np.arange(100) / 100
    first, second, third = (loop.process(Block(u, t, 0, segment))[0][1].data for segment in (0, 1, 1))
    assert np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_says_what_comes_out() -> None:
    out = HippoMemory(memory=1, features=4).start(Spec(rate=100, channels=("a", "b"), unit="V", delay=0.1))
    assert out.channels == ("a.m0", "a.m1", "a.m2", "a.m3", "b.m0", "b.m1", "b.m2", "b.m3")
    assert (out.rate, out.delay, out.unit) == (100, 0.1, "")


def test_seeds_differ_where_a_matrix_is_drawn() -> None:
    assert not np.array_equal(features(waves()), features(waves(), seed=1))
    assert np.array_equal(features(waves(), basis="inv"), features(waves(), basis="inv", seed=1))


@pytest.mark.parametrize(
    "given, x, words",
    [
        ({"features": 5}, {}, "features: 5 is odd, a wave takes two"),
        ({}, {"rate": 0}, "needs a regular rate, its input is irregular"),
        ({"memory": 0.001}, {}, "memory: 0.001 s are less than 2 samples at 100 Hz"),
    ],
)
def test_what_does_not_suit(given: dict[str, Any], x: dict[str, Any], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        HippoMemory.make(**{"memory": 1.0} | given).start(Spec(**{"rate": 100, "channels": ("a",)} | x))
