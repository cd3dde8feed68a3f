"""The live AR-HMM: against a slow twin in dense matrices, the batch likelihood, and what was simulated."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, norm

from rheobase.nodes._arhmm import ARHMM, forward_backward, log_b, sequences
from rheobase.nodes._arhmm_filter import GIVEN
from rheobase.nodes._phase_type import Stages, expand, mean_life, quantile, survival
from rheobase.nodes._pool import first_phases, log_q
from rheobase.nodes._rollout import first_below
from rheobase.nodes.arphmm import ARPHMM
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.graph import parse
from rheobase.tools.fit import evaluate, fit

F = NDArray[np.float64]
I = {word: k for k, word in enumerate(GIVEN)}  # noqa: E741


def engines(n: int = 12, seed: int = 0, d: int = 1) -> tuple[F, F, NDArray[np.int64]]:
    """Health that falls from 1 to 0 over the last 40 samples of each life of 50 to 90, seen d times with noise."""
    rng = np.random.default_rng(seed)
    X, life, unit = [], [], []
    for k in range(n):
        T = int(rng.integers(50, 90))
        r = np.arange(T)[::-1]
        X.append(np.minimum(r / 40, 1)[:, None] + 0.1 * rng.standard_normal((T, d)))
        life.append(r * 1.0)
        unit.append(np.full(T, k))
    return np.concatenate(X), np.concatenate(life)[:, None], np.concatenate(unit)


def fitted(d: int = 1, **more: Any) -> ARPHMM:
    X, life, unit = engines(d=d)
    return ARPHMM(**{"states": 5, "order": 1, "width": 10.0, "phases": 3, "horizon": 150} | more).fit(
        X, life, segment=unit
    )


def twin(node: ARPHMM, X: F) -> F:
    """One unit, sample by sample, in dense matrices."""
    a, P, (T, d) = node.arrays, node.order, X.shape
    stages = Stages(a["first"].astype(int), a["a"], a["J"])
    S, stage = expand(stages)
    pi, g = first_phases(a["pi"], stages), float(a["pool"])
    N1, curve = mean_life(S) - 1, survival(S, 1000)[1:]
    lags = [np.zeros(d)] * P
    var = [np.zeros(d)] * P
    alpha, Y = pi, np.full((T, len(GIVEN)), np.nan)
    for t, x in enumerate(X):
        y, there = Y[t], np.isfinite(x)
        y[I["novel"]] = 0
        now, now_v = np.where(there, x, a["centre"]), np.where(there, 0, a["spread"])
        if t < P:
            y[I["health"]] = now[0]
        else:
            p = pi if t == P else alpha @ S / (alpha @ S).sum()
            w = np.array([p[stage == i].sum() for i in range(node.states)])
            b = np.zeros(node.states)
            told, told_v = np.zeros(d), np.zeros(d)
            for k in range(d):
                ell = np.concatenate([*lags, [1.0], now[:k]])
                v = np.concatenate([*var, [0.0], now_v[:k]])
                m = -a["B"][:, k, : len(ell)] @ ell
                s2 = a["s2"][:, k] + a["B"][:, k, : len(ell)] ** 2 @ v
                told[k] = w @ m
                told_v[k] = w @ (s2 + m**2) - told[k] ** 2
                if there[k]:
                    b += norm.logpdf(x[k], m, np.sqrt(s2))
                    if k == 0:
                        y[I["pit"]] = w @ norm.cdf(x[0], m, np.sqrt(s2))
                        y[I["z"]] = (x[0] - told[0]) / math.sqrt(told_v[0])
                else:
                    now[k], now_v[k] = told[k], told_v[k]
            y[I["predicted"]], y[I["health"]], alpha = told[0], now[0], p
            if there.any() and b.max() > -50 * there.sum():
                y[I["score"]] = np.log(w @ np.exp(b))
                alpha = p * np.exp(b)[stage] if not g else p ** (1 - g) * np.exp(log_q(pi, S) + b[stage]) ** g
                alpha = alpha / alpha.sum()
            elif there.any():
                y[I["novel"]] = 1
                now, now_v = np.where(there, told, now), np.where(there, told_v, now_v)
        lags, var = [now, *lags][:P], [now_v, *var][:P]
        y[I["state"]] = np.argmax([alpha[stage == i].sum() for i in range(node.states)])
        y[I["rul"]] = alpha @ N1
        y[I["rul_capped"]] = (alpha @ curve.T)[: int(min(node.cap, node.horizon))].sum()
        for k, u in enumerate(a["levels"]):
            y[I["rul_5"] + k] = min(quantile(alpha @ S, S, u), node.horizon - 1)
    return Y


@pytest.mark.parametrize(
    "d, more",
    [
        (2, {"order": 2, "phases": 1, "pool": 0.2}),
        (1, {"order": 3, "doubt": 0.3}),
    ],
)
def test_equals_a_slow_twin(d: int, more: dict[str, Any]) -> None:
    node = fitted(d, **more)
    X = engines(1, seed=5, d=d)[0]
    X[20, 0] = np.nan
    X[30:34] = np.nan
    X[0, d - 1] = np.inf
    X[37, 0] = 1e6
    expected = twin(node, np.where(np.isfinite(X), X, np.nan))
    assert expected[37, I["novel"]] == 1
    np.testing.assert_allclose(node.predict(X), expected, rtol=1e-9, atol=1e-9)


def chain() -> tuple[F, ARHMM]:
    """30 sequences (150, 1) of three states that come and go, and the model that made them."""
    rng = np.random.default_rng(3)
    A = np.array([[0.95, 0.03, 0.02], [0.02, 0.95, 0.03], [0.05, 0.0, 0.95]])
    c, phi, sd = np.array([0.0, 1.0, 3.0]), np.array([0.5, 0.2, -0.4]), np.array([0.1, 0.3, 0.2])
    y = np.zeros((30, 150, 1))
    for k in range(30):
        z = 0
        for t in range(1, 150):
            z = rng.choice(3, p=A[z]) if t > 1 else 0
            y[k, t] = c[z] + phi[z] * y[k, t - 1] + sd[z] * rng.standard_normal()
    B = np.stack([-phi, -c, np.zeros(3)], axis=1)[:, None]
    return y, ARHMM(np.eye(3)[0], A, B, sd[:, None] ** 2)


def test_log_scores_add_up_to_the_batch_likelihood_and_pit_is_uniform() -> None:
    y, model = chain()
    X, unit = y.reshape(-1, 1), np.repeat(np.arange(30), 150)
    node = ARPHMM(states=3, order=1, knowledge="none", left_right=False, phases=1).fit(X, 0 * X, segment=unit)
    node.arrays |= model._asdict() | {"a": 1 - np.diag(model.A), "J": (model.A - np.diag(np.diag(model.A))) / 0.05}
    Y = node.predict(X, unit)
    s = sequences(list(y), None, 3, 1)
    found = forward_backward(model.pi, model.A, log_b(model, s), s.length, s.failed)
    assert np.nansum(Y[:, I["score"]]) == pytest.approx(found.log_L.sum(), abs=1e-8)
    scores = Y[:, I["score"]].reshape(30, 150)[:, 1:]
    np.testing.assert_allclose(np.exp(scores), found.C, rtol=1e-9)
    np.testing.assert_array_equal(Y[:, 0].reshape(30, 150)[:, 1:], found.alpha.argmax(axis=2))
    pit = Y[np.isfinite(Y[:, I["pit"]]), I["pit"]]
    assert len(pit) == 30 * 149
    assert kstest(pit, "uniform").pvalue > 0.01
    assert Y[:, I["rul"] :].size and np.isnan(Y[:, I["rul"] :]).all(), "nobody failed: there is no life to tell"


def test_lives_are_told() -> None:
    X, life, unit = engines(20, seed=9)
    Y = fitted(order=0, pool=None).predict(X, unit)
    late = life[:, 0] < 35
    e = Y[late, I["rul"]] - life[late, 0]
    assert np.sqrt(np.mean(e**2)) < 7
    assert (np.diff(Y[:, I["rul_5"] :], axis=1) >= 0).all()
    inside = (Y[:, I["rul_5"]] <= life[:, 0]) & (life[:, 0] <= Y[:, I["rul_95"]])
    assert inside.mean() > 0.75
    assert (Y[:, I["rul_capped"]] <= 125).all()


@pytest.mark.slow
def test_calibrated_intervals_hold_on_units_not_seen() -> None:
    """A model whose own intervals are too narrow (it counts each sample's lasting error as news)."""
    rng = np.random.default_rng(0)

    def some(seed: int) -> tuple[F, F, NDArray[np.int64]]:
        X, life, unit = engines(60, seed)
        return X + 0.15 * rng.standard_normal(60)[unit, None], life, unit

    X, life, unit = some(1)
    node = ARPHMM(states=9, order=0, width=5.0, horizon=150).fit(X, life, segment=unit)
    raw = dataclasses.replace(node).hold(dict(node.arrays), node.header["in"], node.header["out"])
    other = some(2)
    node.calibrate(node.levels_of(other[0], other[1][:, 0], other[2]), other[2])
    X, life, unit = some(3)
    share = []
    for each in (raw, node):
        Y = each.predict(X, unit)
        share.append(np.mean((Y[:, I["rul_5"]] <= life[:, 0]) & (life[:, 0] <= Y[:, I["rul_95"]])))
    assert share[0] < 0.82
    assert 0.85 < share[1] < 0.97


def test_knowledge_of_states() -> None:
    y, model = chain()
    X, unit = y.reshape(-1, 1), np.repeat(np.arange(30), 150)
    s = sequences(list(y), None, 3, 1)
    found = forward_backward(model.pi, model.A, log_b(model, s), s.length, s.failed)
    z = np.full((30, 150), -1.0)
    z[:, 1:] = found.gamma.argmax(axis=2)
    z[10:] = -1  # a third is labelled
    node = ARPHMM(states=3, order=1, knowledge="state", left_right=False, posterior=True, doubt=0.1)
    Y = node.fit(X, z.reshape(-1, 1), segment=unit).predict(X, unit)
    np.testing.assert_allclose(node.arrays["B"][:, 0, :2], model.B[:, 0, :2], atol=0.15)
    np.testing.assert_allclose(Y[:, len(GIVEN) :].sum(axis=1), 1, atol=1e-12)
    assert (Y[:, len(GIVEN) :].argmax(axis=1) == Y[:, 0]).all()


@pytest.mark.parametrize(
    "more, words",
    [
        ({"order": -1}, "order: must not be negative"),
        ({"left_right": False}, "left_right: a remaining life only falls"),
        ({"knowledge": "state", "states": 2}, "states: z names state"),
        ({"knowledge": "none", "pool": None}, "pool: only knowledge of life"),
        ({"order": 400}, "order: no sequence is longer"),
    ],
)
def test_what_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(StreamError, match=words):
        fitted(**more)


def test_a_unit_that_lives_on_has_not_failed() -> None:
    X, life, unit = engines()
    kept = life[:, 0] > 12
    node = ARPHMM(states=5, order=0, width=10.0, phases=3, horizon=150).fit(X[kept], life[kept], segment=unit[kept])
    assert node.arrays["failures"] == 0
    assert np.isnan(node.predict(X[:20])[:, I["rul"]]).all()


def test_a_rollout_ends_at_the_threshold_or_the_failure() -> None:
    """y falls by 0.1 a sample from 1: 0.4 is the sixth. Without a threshold, lives are those of the phases."""
    falling = ARHMM(np.ones(1), np.ones((1, 1)), np.array([[[-1.0, 0.1, 0.0]]]), np.array([[1e-8]]))
    alpha, stage, lags = np.ones(1), np.zeros(1, int), np.ones((1, 1))
    made = first_below(falling, np.ones((1, 1)), stage, alpha, lags, 0.45, 50, paths=20)
    assert (made == 5).all()
    assert (first_below(falling, np.ones((1, 1)), stage, alpha, lags, -np.inf, 50, paths=20) == 50).all()
    S, stage = expand(Stages(np.array([0, 3, 5]), np.array([0.3, 0.2]), np.array([[0, 1.0], [0, 0]])))
    two = ARHMM(np.full(2, 0.5), np.eye(2), np.zeros((2, 2, 3)), np.ones((2, 2)))
    alpha = np.eye(5)[0]
    lives = first_below(two, S, stage, alpha, np.zeros((0, 2)), -np.inf, 500, paths=20_000)
    assert lives.mean() == pytest.approx(alpha @ mean_life(S) - 1, rel=0.02)
    assert np.quantile(lives, 0.9) == pytest.approx(quantile(alpha @ S, S, 0.9), abs=1)


def test_the_second_opinion_agrees_where_health_says_it_all() -> None:
    node = fitted(order=3)
    X, life, unit = engines(4, seed=4)
    for k in range(4):
        rows = np.flatnonzero((unit == k) & (life[:, 0] >= 20))
        told = np.median(node.rollout(X[rows], below=0.0, paths=300))
        assert abs(told - 20) < 15
    with pytest.raises(StreamError, match="the last 3 samples"):
        node.rollout(X[:3], below=0.0)


def test_a_sensor_that_does_not_vary_is_refused_by_name() -> None:
    """Its variance would be rounding, and every sample as good as certain of a state."""
    X, life, unit = engines(d=2)
    X[:, 1] = 0.1
    inputs = Spec(rate=0, channels=("s11", "s1"))
    with pytest.raises(StreamError, match="channel 's1' does not vary"):
        ARPHMM(states=3, order=1, width=10.0).fit(X, life, segment=unit, inputs=inputs)


def test_lags_are_learnt_whatever_the_unit() -> None:
    X, life, unit = engines()
    node = ARPHMM(states=3, order=2, width=10.0, phases=1, horizon=150)
    a = node.fit(X, life, segment=unit).arrays["B"][..., :2]
    for factor in (1e-9, 1e9):
        np.testing.assert_allclose(node.fit(factor * X, life, segment=unit).arrays["B"][..., :2], a, rtol=0, atol=1e-6)


def test_it_is_scored_by_remaining_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beside it is no estimate, and of a node that gives none nothing is scored."""
    X, life, unit = engines(24)
    np.savez(tmp_path / "x.npz", x=X, t=np.arange(len(X)) + 1000.0 * unit)
    np.savez(tmp_path / "z.npz", z=life, t=np.arange(len(X)) + 1000.0 * unit)
    monkeypatch.chdir(tmp_path)
    edge = float(np.flatnonzero(unit == 16)[0] + 16_000) - 1
    text = f"""
name: worn
nodes:
  x: {{type: replay, file: x.npz, stream: x, times: t, channels: [a]}}
  z: {{type: replay, file: z.npz, stream: z, times: t, channels: [life]}}
  wear: {{type: arphmm, in: x, states: 5, order: 1, width: 10, phases: 3, horizon: 150}}
  health: {{type: health, in: x}}
eval: {{truth: z, metrics: [r2], train: [0, {edge}], test: [{edge}, 23500]}}
"""
    scores = evaluate(parse(text), tmp_path / "out")
    assert [r.name for r in scores.rows] == ["wear"]
    assert np.mean(scores.rows[0].scores["r2"]) > 0.3
    found = fit(parse(text), "health")
    assert found.rows == [] and "no estimate of 'z'" in found.notes[-1] + found.notes[0]
    assert (tmp_path / "models" / "worn_health.npz").exists()
