"""Remaining life as a first passage."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes import _phase_type
from rheobase.nodes._phase_type import Stages, expand, fails, mean_life, move, passage, quantile, survival, variance

F = NDArray[np.float64]
ONE = Stages(np.array([0, 1]), np.array([0.2]), np.zeros((1, 1)))
THREE = Stages(np.array([0, 2, 3, 7]), np.array([0.3, 0.1, 0.8]), np.array([[0, 0.7, 0.3], [0.4, 0, 0.5], [0, 0.1, 0]]))
"""Three stages of 2, 1 and 4 phases; the second may go back or fail, the third mostly fails."""


def test_golden(golden: Path) -> None:
    g = np.load(golden / "phase_type.npz")
    S, alpha = g["S"], g["alpha"]
    np.testing.assert_allclose(S.sum(axis=1) + g["exit"], 1, rtol=0, atol=1e-12)
    assert alpha @ mean_life(S) == pytest.approx(float(g["mean"]), abs=1e-10)
    assert variance(alpha, S) == pytest.approx(float(g["var"]), abs=1e-8)
    np.testing.assert_allclose(survival(S, 400) @ alpha, g["survival"], rtol=0, atol=1e-12)
    assert [quantile(alpha, S, u) for u in (0.05, 0.5, 0.95)] == [g["q05"], g["q50"], g["q95"]]


def test_the_mean_is_the_sum_of_the_survival() -> None:
    S, _ = expand(THREE)
    np.testing.assert_allclose(survival(S, 3000).sum(axis=0), mean_life(S), rtol=1e-9)


def test_one_state_is_geometric() -> None:
    S, _ = expand(ONE)
    alpha = np.ones(1)
    assert alpha @ mean_life(S) == pytest.approx(5)
    assert variance(alpha, S) == pytest.approx(0.8 / 0.04)
    assert quantile(alpha, S, 0.5) == int(np.ceil(np.log(0.5) / np.log(0.8)))


def test_equals_a_walk_through_the_stages() -> None:
    """20 000 lives, stage by stage with negative binomial stays."""
    rng = np.random.default_rng(0)
    lives = np.zeros(20_000)
    at = np.zeros(len(lives), int)
    E = np.diff(THREE.first)
    while (alive := at >= 0).any():
        i = at[alive]
        lives[alive] += rng.negative_binomial(E[i], THREE.a[i]) + E[i]
        ways = np.cumsum(np.column_stack([THREE.J[i], 1 - THREE.J[i].sum(axis=1)]), axis=1)
        to = (rng.random(len(i))[:, None] > ways).sum(axis=1)
        at[alive] = np.where(to == 3, -1, to)
    S, _ = expand(THREE)
    alpha = np.eye(len(S))[0]
    assert lives.mean() == pytest.approx(alpha @ mean_life(S), rel=0.02)
    assert lives.var() == pytest.approx(variance(alpha, S), rel=0.06)
    assert np.quantile(lives, 0.9) == pytest.approx(quantile(alpha, S, 0.9), abs=2)


def test_a_chain_that_never_fails() -> None:
    S = np.array([[0.9, 0.1], [0.0, 1.0]])
    assert not fails(S)
    assert np.isinf(mean_life(S)).all()
    assert quantile(np.array([1.0, 0.0]), S, 0.5, most=50) == 50


def test_the_kernels_do_what_the_matrix_does() -> None:
    S, _ = expand(THREE)
    alpha, p, into = np.random.default_rng(1).dirichlet(np.ones(len(S))), np.zeros(len(S)), np.zeros(3)
    move(THREE.first, THREE.a, THREE.J, alpha, p, into)
    np.testing.assert_allclose(p, alpha @ S / (alpha @ S).sum(), rtol=0, atol=1e-15)
    gone = Stages(np.array([0, 1]), np.array([1.0]), np.zeros((1, 1)))
    move(gone.first, gone.a, gone.J, np.ones(1), p[:1], np.zeros(1))
    assert p[0] == 1.0, "where nothing survives, what was believed stays"


@pytest.mark.parametrize("u", [0.01, 0.05, 0.5, 0.95, 0.999999])
def test_a_quantile_does_not_depend_on_where_one_begins_to_look(u: float) -> None:
    S, _ = expand(THREE)
    alpha = np.random.default_rng(2).dirichlet(np.ones(len(S)))
    G = np.ascontiguousarray(survival(S, 120).T)
    expected = min(quantile(alpha, S, u), 119)
    some = np.zeros(_phase_type.WINDOW)
    assert {int(passage(alpha, G, u, r, some)) for r in range(120)} == {expected}


def test_stays_decide_on_the_phases() -> None:
    A = np.array([[0.9, 0.1], [0.0, 0.8]])
    paths = [np.array([0] * 10 + [1] * 5), np.array([0] * 10 + [1] * 3)]
    stays = _phase_type.sojourns(paths, [True, False], 2)
    assert stays == [[10, 10], [5]], "the last stay of a unit that lives on is cut off, and left out"
    s = _phase_type.stages(A, stays, 64)
    assert s.first.tolist() == [0, 10, 15]
    np.testing.assert_allclose(np.diff(s.first) / s.a, [10, 5])
    assert _phase_type.stages(A, stays, 1).a.tolist() == pytest.approx([0.1, 0.2])
    spread = _phase_type.stages(A, [[2, 18, 4, 16, 10], []], 64)
    assert spread.first.tolist() == [0, 2, 3], "mean 10, variance 40: 100 / 50 phases; unseen: 1"


def test_bands_are_counted_from_the_end() -> None:
    assert _phase_type.band(np.array([0, 4, 5, 14, 15, 300]), 4, 5).tolist() == [3, 3, 2, 1, 0, 0]
