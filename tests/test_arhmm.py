"""Autoregressive hidden Markov model with partial knowledge: the recursions and EM."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from rheobase.nodes import _arhmm, _arhmm_order
from rheobase.nodes._arhmm import ARHMM, Sequences, em, forward_backward, log_b, regress, sequences, viterbi
from rheobase.stream.block import StreamError

F = NDArray[np.float64]
ALONE = np.zeros(1, bool)


def switching(T: int = 400, seed: int = 0) -> tuple[F, NDArray[np.int64]]:
    """y (T, 1) of two states that alternate."""
    rng = np.random.default_rng(seed)
    y, z = np.zeros((T, 1)), np.zeros(T, np.int64)
    for t in range(1, T):
        z[t] = z[t - 1] if rng.random() < 0.96 else 1 - z[t - 1]
        y[t] = (0.5 + 0.8 * y[t - 1], -1.0 - 0.4 * y[t - 1])[z[t]] + (0.2, 0.3)[z[t]] * rng.standard_normal()
    return y, z


def test_golden_forward_backward(golden: Path) -> None:
    g = np.load(golden / "phmm_fwdback.npz")
    with np.errstate(divide="ignore"):
        b = np.log(g["p"] * g["pl"])
    found = forward_backward(g["Pi"], g["A"], b[None], np.array([12]), ALONE)
    for mine, word in ((found.alpha[0], "alpha"), (found.beta[0], "beta"), (found.gamma[0], "gamma"), (found.xi, "xi"),
                       (found.log_L[0], "loglik"), (found.C[0], "C")):  # fmt: skip
        np.testing.assert_allclose(mine, g[word], rtol=0, atol=1e-12)
    assert (viterbi(g["Pi"], g["A"], b, 12) + 1).tolist() == g["path"].tolist()


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_golden_em(golden: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 iterations of the reference, with knowledge and without: its lags, no intercept, no early end."""
    g = np.load(golden / "arphmm_em.npz")
    y = g["y"]
    lags = np.array([(y[t - 1], y[t - 2]) if t >= 2 else (y[1], y[0]) for t in range(len(y))])
    pl = g["pl2"] if version == "v1" else np.ones_like(g["pl2"])
    s = Sequences(y[None, :, None], np.column_stack([lags, y])[None], np.log(pl)[None], np.array([len(y)]), ALONE)
    gamma = g["pl2"] / g["pl2"].sum(axis=1, keepdims=True)
    B, s2 = regress(s, gamma[None], np.zeros(1))
    np.testing.assert_allclose(B[:, 0, :2], g[f"{version}_B0"], rtol=0, atol=1e-12)
    monkeypatch.setattr(_arhmm, "ENOUGH", 0.0)
    model, log_L = em(ARHMM(np.full(2, 0.5), np.full((2, 2), 0.5), B, s2), s, most=15, least=99)
    np.testing.assert_allclose(log_L, g[f"{version}_LL"], rtol=0, atol=1e-9)
    for mine, word in ((model.A, "A"), (model.pi, "Pi"), (model.B[:, 0, :2], "B"), (model.s2[:, 0], "S")):
        np.testing.assert_allclose(mine, g[f"{version}_{word}"], rtol=0, atol=1e-10)
    assert (np.diff(log_L) > -1e-6).all()


def test_equals_the_sum_over_all_paths() -> None:
    rng = np.random.default_rng(0)
    pi, A, b = rng.dirichlet(np.ones(3)), 0.9 * rng.dirichlet(np.ones(3), 3), rng.normal(size=(6, 3))
    x = 1 - A.sum(axis=1)
    for failed in (False, True):
        total, gamma, best = 0.0, np.zeros((6, 3)), (-np.inf, ())
        for path in itertools.product(range(3), repeat=6):
            p = pi[path[0]] * np.prod([A[i, j] for i, j in itertools.pairwise(path)])
            p *= np.exp(sum(b[t, i] for t, i in enumerate(path))) * (x[path[-1]] if failed else 1)
            total += p
            gamma[np.arange(6), path] += p
            best = max(best, (p, path))
        found = forward_backward(pi, A, b[None], np.array([6]), np.array([failed]))
        assert found.log_L[0] == pytest.approx(np.log(total), abs=1e-12)
        np.testing.assert_allclose(found.gamma[0], gamma / total, rtol=0, atol=1e-12)
        if not failed:
            assert viterbi(pi, A, b, 6).tolist() == list(best[1])


def test_sequences_side_by_side_are_as_each_alone() -> None:
    rng = np.random.default_rng(1)
    pi, A, b = rng.dirichlet(np.ones(3)), 0.9 * rng.dirichlet(np.ones(3), 3), rng.normal(size=(3, 9, 3))
    length, failed = np.array([9, 4, 1]), np.array([True, False, True])
    all_ = forward_backward(pi, A, b, length, failed)
    each = [forward_backward(pi, A, b[k : k + 1, :n], length[k : k + 1], failed[k : k + 1])
            for k, n in enumerate(length)]  # fmt: skip
    np.testing.assert_allclose(all_.xi, sum(e.xi for e in each), rtol=0, atol=1e-12)
    np.testing.assert_allclose(all_.exits, sum(e.exits for e in each), rtol=0, atol=1e-12)
    for k, e in enumerate(each):
        np.testing.assert_allclose(all_.gamma[k, : length[k]], e.gamma[0], rtol=0, atol=1e-12)
        assert all_.log_L[k] == pytest.approx(e.log_L[0], abs=1e-12)


def test_what_knowledge_does() -> None:
    """Of all states alike: nothing. Of one: it is that. Scaled: log L moves, nothing else."""
    y, z = switching(80)
    flat, sure = np.ones((80, 2)), np.eye(2)[z]
    pi, A = np.full(2, 0.5), np.array([[0.9, 0.1], [0.2, 0.8]])
    model = ARHMM(pi, A, np.array([[[-0.8, -0.5, 0]], [[0.4, 1.0, 0]]]), np.array([[0.04], [0.09]]))

    def posterior(pl: F | None) -> _arhmm.Posterior:
        s = sequences([y], None if pl is None else [pl], 2, 1)
        return forward_backward(pi, A, log_b(model, s), s.length, s.failed)

    plain = posterior(None)
    np.testing.assert_array_equal(posterior(flat).gamma, plain.gamma)
    np.testing.assert_allclose(posterior(sure).gamma[0], sure[1:], rtol=0, atol=0)
    scaled = posterior(0.3 * flat)
    np.testing.assert_allclose(scaled.gamma, plain.gamma, rtol=0, atol=1e-12)
    assert scaled.log_L[0] == pytest.approx(plain.log_L[0] + 79 * np.log(0.3), abs=1e-9)
    with pytest.raises(StreamError, match="impossible in every state"):
        posterior(np.zeros((80, 2)))


def test_channels_one_after_the_other_are_a_full_covariance() -> None:
    rng = np.random.default_rng(2)
    Y = rng.normal(size=(300, 2)) @ np.array([[1.0, 0.7], [0.0, 0.5]])
    s = sequences([Y], None, 1, 1)
    model = ARHMM(np.ones(1), np.ones((1, 1)), *regress(s, np.ones((1, 299, 1)), np.zeros(2)))
    X = np.column_stack([Y[:-1], np.ones(299)])
    R = Y[1:] - X @ np.linalg.lstsq(X, Y[1:])[0]
    expected = multivariate_normal(np.zeros(2), R.T @ R / 299).logpdf(R)
    np.testing.assert_allclose(log_b(model, s)[0, :, 0], expected, rtol=0, atol=1e-10)


def test_a_sample_that_is_missing_says_nothing() -> None:
    y, _ = switching(200)
    y[50:53] = np.nan
    s = sequences([y], None, 2, 2)
    B, s2 = regress(s, np.full((1, 198, 2), 0.5), np.zeros(1))
    rows = [t for t in range(2, 200) if np.isfinite(y[t - 2 : t + 1]).all()]
    X = np.array([[y[t - 1, 0], y[t - 2, 0], 1] for t in rows])
    np.testing.assert_allclose(-B[0, 0, :3], np.linalg.lstsq(X, y[rows, 0])[0], rtol=0, atol=1e-8)
    b = log_b(ARHMM(np.full(2, 0.5), np.full((2, 2), 0.5), B, s2), s)
    assert (b[0, 48:53] == 0).all(), "nor do those that have it among their lags"


def test_learns_what_it_was_made_of_from_many_sequences() -> None:
    ys, zs = zip(*[switching(150, seed) for seed in range(6)], strict=True)
    s = sequences(ys, None, 2, 1)
    model, log_L = _arhmm.learn(s, 2, left_right=False, knows=False, restarts=3, seed=0)
    order = np.argsort(model.s2[:, 0])
    np.testing.assert_allclose(-model.B[order, 0, :2], [[0.8, 0.5], [-0.4, -1.0]], atol=0.1)
    np.testing.assert_allclose(np.sqrt(model.s2[order, 0]), [0.2, 0.3], atol=0.03)
    found = forward_backward(model.pi, model.A, log_b(model, s), s.length, s.failed)
    right = np.mean([np.mean(order[z[1:]] == g.argmax(axis=1)) for z, g in zip(zs, found.gamma, strict=True)])
    assert right > 0.95
    assert found.log_L.sum() >= log_L - 1e-3 * abs(log_L)


def test_left_right_never_goes_back() -> None:
    y = np.concatenate([np.full(30, v) + 0.1 * np.random.default_rng(int(v)).normal(size=30) for v in range(3)])[
        :, None
    ]
    s = sequences([y, y + 0.01], None, 3, 0, failed=True)
    model, _ = _arhmm.learn(s, 3, left_right=True, knows=False, restarts=5, seed=0)
    assert (np.tril(model.A, -1) == 0).all()
    np.testing.assert_allclose(np.sort(-model.B[:, 0, 0]), [0, 1, 2], atol=0.1)
    assert 1 - model.A[2].sum() == pytest.approx(1 / 30, rel=0.2), "the last state fails once in its 30 samples"


def test_a_state_nobody_was_in_keeps_what_it_had() -> None:
    y, _ = switching(50)
    s = sequences([y], None, 2, 1)
    before = ARHMM(np.full(2, 0.5), np.full((2, 2), 0.5), np.full((2, 1, 3), 7.0), np.full((2, 1), 5.0))
    gamma = np.zeros((1, 49, 2))
    gamma[:, :, 0] = 1
    B, s2 = regress(s, gamma, np.zeros(1), before)
    assert (B[1] == 7).all() and s2[1, 0] == 5 and s2[0, 0] < 5


@pytest.mark.slow
def test_order_and_states_by_what_is_predicted() -> None:
    ys = [switching(120, seed)[0] for seed in range(3)]
    scores = {}
    for Q, P in ((1, 1), (2, 0), (2, 1)):
        s = sequences(ys, None, Q, P)
        _, log_L = _arhmm.learn(s, Q, False, False, 2, 0, most=20)
        scores[Q, P] = (
            _arhmm_order.held_out(s, Q, folds=2, restarts=2),
            -_arhmm_order.bic(log_L, Q, P, 1, int(s.length.sum())),
        )
    assert max(scores, key=lambda k: scores[k][0]) == max(scores, key=lambda k: scores[k][1]) == (2, 1)
    with pytest.raises(StreamError, match="no sequence is longer than 500"):
        sequences(ys, None, 2, 500)
