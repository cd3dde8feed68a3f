"""Rates of jump processes: closed forms, simulated paths, changes, missing samples."""

import itertools
from typing import Literal

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes import _jumps
from rheobase.nodes.markov_rates import MarkovRates
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.tools.states import paths, ratchet

F = NDArray[np.float64]
THREE = np.array([[-3.0, 2, 1], [4, -5, 1], [0.5, 1.5, -2]])


def rmse(Q: F, other: F) -> float:
    return float(np.sqrt(((Q - other)[~np.eye(len(Q), dtype=bool)] ** 2).mean()))


def test_expected_time_and_jumps_are_the_integral() -> None:
    """Against the definition, summed over a fine grid of s."""
    N = np.array([[[3.0, 1, 0], [0, 2, 1], [1, 0, 5]]])
    d, P = 0.4, scipy.linalg.expm(THREE * 0.4)
    M = np.zeros((3, 3))
    s = (np.arange(4000) + 0.5) / 4000 * d
    for each in s:
        before, after = scipy.linalg.expm(THREE * each), scipy.linalg.expm(THREE * (d - each))
        M += np.einsum("ab,ai,jb->ij", N[0] / P, before, after) * (d / 4000)
    time, jumps, log_p = _jumps.expectations(THREE, np.array([d]), N)
    np.testing.assert_allclose(time, M.diagonal(), rtol=1e-6)
    np.testing.assert_allclose(jumps, (THREE * M) * (1 - np.eye(3)), rtol=1e-6)
    np.testing.assert_allclose(time.sum(), N.sum() * d, rtol=1e-12)
    np.testing.assert_allclose(log_p, (N[0] * np.log(P)).sum(), rtol=1e-12)


def test_two_states_have_a_closed_form() -> None:
    """P_01 = a / (a + b) (1 - exp(-(a + b) d)), and the likeliest P is the share of each pair."""
    a, b, d = 3.0, 1.0, 0.1
    P = scipy.linalg.expm(np.array([[-a, a], [b, -b]]) * d)
    Q, _ = _jumps.em(np.array([d]), (np.array([2000.0, 7000])[:, None] * P)[None])
    np.testing.assert_allclose([Q[0, 1], Q[1, 0]], [a, b], rtol=1e-4)
    np.testing.assert_allclose(_jumps.stationary(Q), [b / (a + b), a / (a + b)], rtol=1e-4)
    np.testing.assert_allclose(_jumps.passages(Q), [[0, 1 / a], [1 / b, 0]], rtol=1e-4)
    np.testing.assert_allclose(_jumps.relaxations(Q), [1 / (a + b)], rtol=1e-4)


def test_what_follows_from_rates_is_what_paths_do() -> None:
    times = np.arange(0, 900, 0.01)
    [z] = paths(THREE, 1, times, np.random.default_rng(0))
    np.testing.assert_allclose(_jumps.stationary(THREE), np.bincount(z) / len(z), atol=0.02)
    for i, j in itertools.permutations(range(3), 2):
        waits, since = [], None
        for t, s in zip(times, z, strict=True):
            if s == j and since is not None:
                waits.append(t - since)
                since = None
            elif since is None and s == i:
                since = t
        assert abs(np.mean(waits) / _jumps.passages(THREE)[i, j] - 1) < 5 / np.sqrt(len(waits))
    reach = np.array([[-1.0, 1, 0], [1, -1, 0], [0, 1, -1]])
    assert _jumps.passages(reach)[0, 2] == np.inf


def test_standard_errors_are_the_spread_of_many_fits() -> None:
    d, found = np.array([0.2]), []
    for seed in range(60):
        z = paths(THREE, 40, np.arange(20) * 0.2, np.random.default_rng(seed))
        N = np.zeros((1, 3, 3))
        np.add.at(N[0], (z[:, :-1], z[:, 1:]), 1)
        found.append(_jumps.em(d, N)[0])
    said = _jumps.standard_errors(found[0], d, N)
    apart = ~np.eye(3, dtype=bool)
    ratio = said[apart] / np.std(found, axis=0)[apart]
    assert (np.abs(np.log(ratio)) < 0.5).all(), ratio


def test_the_flashing_ratchet() -> None:
    Q, times = ratchet(), np.linspace(0, 2.5, 100)
    errors = []
    for seed in range(3):
        z = paths(Q, 300, times, np.random.default_rng(seed))
        N = np.zeros((1, 6, 6))
        np.add.at(N[0], (z[:, :-1], z[:, 1:]), 1)
        errors.append(rmse(_jumps.em(times[1:2], N)[0], Q))
    assert np.mean(errors) <= 0.11


def follow(node: MarkovRates, labels: F, times: F, rate: float) -> tuple[F, tuple[str, ...]]:
    out = node.start(Spec(rate=rate, channels=("state",)))
    y = node.process(Block(labels[:, None], times))
    assert y is not None
    return y.data, out.channels


def rates(row: F, n: int) -> F:
    Q = np.zeros((n, n))
    Q[~np.eye(n, dtype=bool)] = row[: n * (n - 1)]
    return _jumps.generator(Q)


def test_the_node_comes_to_what_em_over_all_says() -> None:
    times = np.arange(6000) / 50
    [z] = paths(THREE, 1, times, np.random.default_rng(1))
    data, channels = follow(MarkovRates(states=3, every=200), z.astype(float), times, 50)
    d, N = _jumps.pairs(times, z, 3, 0.02, 100)
    Q, _ = _jumps.em(d, N, a0=0.5, b0=0.5)
    np.testing.assert_allclose(rates(data[-1], 3), Q, atol=0.05 * np.abs(Q).max())
    assert channels[0] == "q0>1" and channels[6] == "sd0>1" and channels[-1] == "score"
    row = dict(zip(channels, data[-1], strict=True))
    fitted = rates(data[-1], 3)
    assert row["dwell1"] == -1 / fitted[1, 1] and row["pi2"] == _jumps.stationary(fitted)[2]
    assert row["pass0>2"] == _jumps.passages(fitted)[0, 2]
    assert abs(row["q1>0"] - THREE[1, 0]) < 3 * row["sd1>0"]


def test_rates_that_change_are_followed() -> None:
    slow = 0.3 * THREE
    times = np.arange(12000) / 100
    z = np.concatenate([paths(Q, 1, times[:6000], np.random.default_rng(2))[0] for Q in (THREE, slow)])
    data, _ = follow(MarkovRates(states=3, half_life=10, every=200), z.astype(float), times, 100)
    error = [np.abs(rates(row, 3) - slow).max() for row in data]
    assert error[-1] < 0.4 * error[29], "29: the last before the change"
    never, _ = follow(MarkovRates(states=3, every=200), z.astype(float), times, 100)
    assert np.abs(rates(never[-1], 3) - slow).max() > 2 * error[-1]


def test_missing_and_irregular_samples_leave_the_rates() -> None:
    """Thinned by half at random, or seen at odd times: the same rates within two standard deviations."""
    rng = np.random.default_rng(3)
    times = np.arange(8000) / 40
    [z] = paths(THREE, 1, times, rng)
    whole, _ = follow(MarkovRates(states=3, every=8000), z.astype(float), times, 40)
    thin = np.where(rng.random(8000) < 0.5, np.nan, z)
    some, _ = follow(MarkovRates(states=3, every=8000), thin, times, 40)
    sd = whole[-1][6:12]
    kept = np.flatnonzero(np.isfinite(thin))
    odd, _ = follow(MarkovRates(states=3, every=len(kept), tick=0.025), z[kept].astype(float), times[kept], 0)
    np.testing.assert_array_equal(odd[-1][:18], some[-1][:18])
    steady, _ = follow(MarkovRates(states=3, every=100), thin, times, 40)
    assert (np.abs(rates(steady[-1], 3) - THREE)[~np.eye(3, dtype=bool)] < 3.5 * sd).all()


def test_noisy_labels_and_posteriors_count_what_they_say() -> None:
    """One label in twenty is wrong: taken at its word, rates are far too high; told so, they are right."""
    rng = np.random.default_rng(4)
    times = np.arange(8000) / 40
    [z] = paths(THREE, 1, times, rng)
    wrong = np.where(rng.random(8000) < 0.05, rng.integers(0, 3, 8000), z).astype(float)
    naive, _ = follow(MarkovRates(states=3, every=400), wrong, times, 40)
    told, _ = follow(MarkovRates(states=3, every=400, noise=0.033), wrong, times, 40)
    assert rmse(rates(told[-1], 3), THREE) < 0.4 < rmse(rates(naive[-1], 3), THREE)
    p = np.where(np.arange(3) == wrong[:, None], 0.967, 0.0165)
    node = MarkovRates(of="posterior", every=400)
    node.start(Spec(rate=40, channels=("p0", "p1", "p2")))
    soft = node.process(Block(p, times))
    assert soft is not None
    np.testing.assert_allclose(soft.data[:, :18], told[:, :18], rtol=1e-9)


def test_no_pair_reaches_over_a_gap() -> None:
    node = MarkovRates(states=2, every=2)
    node.start(Spec(rate=10, channels=("state",)))
    node.process(Block(np.array([[0.0], [0]]), np.array([0.0, 0.1]), 0, 0))
    node.process(Block(np.array([[1.0], [1]]), np.array([0.2, 0.3]), 0, 1))
    np.testing.assert_allclose(node.N.sum(axis=0), [[1, 0], [0, 1]], atol=1e-12)


def test_what_waits_at_the_end_of_a_chain_is_counted() -> None:
    """Against all paths of a chain shorter than the lag, one at a time."""
    node, rng = MarkovRates(states=3, noise=0.2, longest=4, every=1000), np.random.default_rng(5)
    node.start(Spec(rate=5, channels=("state",)))
    expected = np.zeros((4, 3, 3))
    for segment in range(3):
        labels, ticks = rng.integers(0, 3, 5), np.cumsum(rng.integers(1, 5, 5))
        node.process(Block(labels[:, None].astype(float), 100.0 * segment + ticks / 5, 0, segment))
        e = np.where(np.arange(3) == labels[:, None], 0.8, 0.1)
        every = np.array(list(itertools.product(range(3), repeat=5)))
        p = np.prod(e[np.arange(5), every], axis=1)
        for k, d in enumerate(np.diff(ticks)):
            p = p * scipy.linalg.expm(node.Q * d / 5)[every[:, k], every[:, k + 1]]
        for k, d in enumerate(np.diff(ticks)):
            np.add.at(expected[d - 1], (every[:, k], every[:, k + 1]), p / p.sum())
    node.process(Block(np.array([[0.0]]), np.array([400.0]), 0, 3))
    np.testing.assert_allclose(node.N, expected, atol=1e-12)


@pytest.mark.parametrize("of", ["labels", "posterior"])
def test_short_chains_say_what_a_long_one_does(of: Literal["labels", "posterior"]) -> None:
    """Segments, or a gap after each 10 samples, at a lag of 10; however the blocks are cut."""
    rng = np.random.default_rng(6)
    times = np.arange(8000) / 40
    [z] = paths(THREE, 1, times, rng)
    wrong = np.where(rng.random(8000) < 0.05, rng.integers(0, 3, 8000), z)
    p = np.where(np.arange(3) == wrong[:, None], 0.967, 0.0165)
    data = p if of == "posterior" else wrong[:, None].astype(float)
    channels = ("p0", "p1", "p2") if of == "posterior" else ("state",)

    def run(times: F, size: int, pieces: bool) -> F:
        node, got = MarkovRates(states=3, of=of, noise=0.033, every=400), []
        node.start(Spec(rate=40, channels=channels))
        for a in range(0, 8000, size):
            b = a + size
            y = node.process(Block(data[a:b], times[a:b], a, a // 10 if pieces else 0))
            got += [] if y is None else [y.data]
        return np.concatenate(got)

    whole, pieces = run(times, 8000, False), run(times, 10, True)
    assert rmse(rates(whole[-1], 3), THREE) < 0.4
    assert rmse(rates(pieces[-1], 3), rates(whole[-1], 3)) < 0.2
    np.testing.assert_array_equal(run(times, 5, True), pieces)
    np.testing.assert_array_equal(run(times, 1, True), pieces)
    apart = times + np.arange(8000) // 10 * 3.0
    gaps = run(apart, 8000, False)
    np.testing.assert_array_equal(run(apart, 7, False), gaps)
    np.testing.assert_array_equal(gaps, pieces)


def test_labels_that_are_no_state_are_counted() -> None:
    node = MarkovRates(states=2, every=4)
    assert node.health == {"unknown": 0}
    node.start(Spec(rate=10, channels=("state",)))
    node.process(Block(np.array([[0.0], [2], [5], [np.nan], [-1], [1]]), np.arange(6) / 10))
    assert node.health == {"unknown": 2}
    node.start(Spec(rate=10, channels=("state", "p0", "p1")))
    assert node.health == {"unknown": 0}


def test_says_what_is_wrong() -> None:
    for node, spec, text in (
        (MarkovRates(), Spec(rate=10, channels=("a",)), "in: has no channel 'state'"),
        (MarkovRates(), Spec(rate=10, channels=("p0", "p1", "p2", "state")), "states: .* 3 states .p0 to p2., .* 2$"),
        (MarkovRates(states=1), Spec(rate=10, channels=("state",)), "states: one state has no rates"),
        (MarkovRates(of="posterior"), Spec(rate=10, channels=("p0", "a")), "in: one state has no rates"),
        (MarkovRates(), Spec(rate=0, channels=("state",)), "tick: the input is irregular"),
    ):
        with pytest.raises(StreamError, match=text):
            node.start(spec)
