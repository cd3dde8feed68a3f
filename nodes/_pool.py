"""Belief in a phase of life from samples whose errors last: a logarithmic pool of the past and the present.

    alpha_t ~ p^(1 - g) (q b_t)^g        p = alpha_{t-1} S, what the past says; b_t(i) = p(y_t | i)

q is what one believes of a unit of unknown age: the share of a life spent in each phase. Bayes' rule multiplies p and
b_t, as if the errors of the samples had nothing to do with each other; where y_t is a regression on a long past (the
same errors again and again), it counts one thing many times. The pool counts it once: weights that add up to 1
(Genest and Zidek, Stat Sci 1:114, 1986), so that evidence fades with the time constant 1/g.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._arhmm import ARHMM, Sequences, log_b
from rheobase.nodes._phase_type import Stages, expand, fails
from rheobase.stream.block import Array

POOLS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)
ASTRAY = 1e-3
"""Probability of a first phase that training did not begin in."""


def first_phases(pi: Array, s: Stages) -> NDArray[np.float64]:
    """pi over phases: at the beginning of a stage, but for what is astray."""
    N = int(s.first[-1])
    p = np.full(N, ASTRAY / N if len(pi) < N else 0.0)
    p[s.first[:-1]] += pi
    return np.asarray(p / p.sum())


def log_q(pi: Array, S: Array) -> NDArray[np.float64]:
    """log of the share of a life spent in each phase; of the long run, where the chain does not fail."""
    if fails(S):
        q = np.linalg.solve((np.eye(len(S)) - S).T, pi)
    else:
        q = np.linalg.matrix_power(0.99 * S + 0.01 * pi, 10_000)[0]
    return np.asarray(np.log(np.maximum(q / q.sum(), 1e-12)))


def best_pool(model: ARHMM, s: Stages, given: Sequences, truth: list[NDArray[np.int64]]) -> float:
    """The g of `POOLS` under which the true stages, -1 where not known, are most probable in the mean of the log."""
    S, stage = expand(s)
    pi, b = first_phases(model.pi, s), log_b(model, given)[:, :, stage]
    q, scores = log_q(pi, S), []
    z = np.full(b.shape[:2], -1)
    for row, true in enumerate(truth):
        z[row, : len(true)] = true
    for g in POOLS:
        alpha, total = np.broadcast_to(pi, (len(b), len(S))), 0.0
        for t in range(b.shape[1]):
            p = np.maximum(alpha @ S if t else alpha, 1e-300)
            p = np.log(p / p.sum(axis=1, keepdims=True))
            alpha = (1 - g) * p + g * (q + b[:, t]) if g else p + b[:, t]
            alpha = np.exp(alpha - alpha.max(axis=1, keepdims=True))
            alpha /= alpha.sum(axis=1, keepdims=True)
            right = (alpha * (stage == z[:, t, None])).sum(axis=1)[z[:, t] >= 0]
            total += float(np.log(np.maximum(right, 1e-12)).sum())
        scores.append(total)
    return POOLS[int(np.argmax(scores))]
