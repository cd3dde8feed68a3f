"""Hidden Markov chains: what a path of states is like, from the log emissions of each bin.

    p(z_1) = p0,   p(z_t = j | z_t-1 = i) = Pi_ij,   ell_t(s) = log p(x_t | z_t = s, x before t)

Emissions come as logarithms and are scaled by their largest in each bin, so that any number of neurons and spikes stays
finite. A chain begins anew with each segment. Rabiner, Proc IEEE 77:257, 1989.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from rheobase.stream.block import Array
from rheobase.stream.node import kernel

F = NDArray[np.float64]

FLOOR = 1e-300
"""No state is less likely: a bin that none explains does not end the chain."""


class Posterior(NamedTuple):
    """What is known of the path: `filtered` (T, S) from the bins so far, gamma (T, S) from all, xi (S, S) the expected
    number of steps from state to state, begins (S,) of chains in each; log_p (T,) log p(x_t | x before t).
    """

    filtered: F
    gamma: F
    xi: F
    begins: F
    log_p: F

    @property
    def likelihood(self) -> float:
        """log p of all bins, nats."""
        return float(self.log_p.sum())


@kernel
def advance(alpha, Pi, p):
    """p = Pi' alpha: what is expected before the next bin is seen."""
    S = alpha.shape[0]
    for j in range(S):
        p[j] = 0.0
    for i in range(S):
        a = alpha[i]
        row = Pi[i]
        for j in range(S):
            p[j] += a * row[j]


@kernel
def correct(p, ell, e, alpha):
    """alpha ~ p e, e = exp(ell - max ell). Returns log sum p exp(ell)."""
    S = p.shape[0]
    most = -np.inf
    for s in range(S):
        most = max(most, ell[s])
    if not np.isfinite(most):  # no state explains it, or nothing was seen
        most = 0.0
        for s in range(S):
            e[s] = 1.0
    else:
        for s in range(S):
            e[s] = math.exp(ell[s] - most)
    total = 0.0
    for s in range(S):
        alpha[s] = max(p[s] * e[s], FLOOR)
        total += alpha[s]
    for s in range(S):
        alpha[s] /= total
    return most + math.log(total)


@kernel
def forward_backward(ell, Pi, p0, first, filtered, e, gamma, xi, begins, log_p):
    """Fills the last six; first (T,) is 1 where a chain begins."""
    T, S = ell.shape
    p = np.zeros(S)
    beta, new = np.ones(S), np.ones(S)
    for t in range(T):
        if first[t]:
            for s in range(S):
                p[s] = p0[s]
        else:
            advance(filtered[t - 1], Pi, p)
        log_p[t] = correct(p, ell[t], e[t], filtered[t])
    for t in range(T - 1, -1, -1):
        if t == T - 1 or first[t + 1]:
            for s in range(S):
                beta[s] = 1.0
        else:  # beta_t(i) = sum_j Pi_ij e_t+1(j) beta_t+1(j)
            total = 0.0
            for i in range(S):
                new[i] = 0.0
                for j in range(S):
                    new[i] += Pi[i, j] * e[t + 1, j] * beta[j]
                total += filtered[t, i] * new[i]
            for i in range(S):
                for j in range(S):
                    xi[i, j] += filtered[t, i] * Pi[i, j] * e[t + 1, j] * beta[j] / total
            for i in range(S):
                beta[i] = new[i] / total
        total = 0.0
        for s in range(S):
            gamma[t, s] = filtered[t, s] * beta[s]
            total += gamma[t, s]
        for s in range(S):
            gamma[t, s] /= total
            if first[t]:
                begins[s] += gamma[t, s]


def posterior(ell: Array, Pi: Array, p0: Array, segment: Array | None = None) -> Posterior:
    """Forward-backward over log emissions (T, S)."""
    T, S = ell.shape
    made = [np.zeros((T, S)), np.zeros((T, S)), np.zeros((T, S)), np.zeros((S, S)), np.zeros(S), np.zeros(T)]
    forward_backward(np.ascontiguousarray(ell), Pi, p0, begins(T, segment), *made)
    filtered, _, gamma, xi, starts, log_p = made
    return Posterior(filtered, gamma, xi, starts, log_p)


def pairwise(ell: Array, Pi: Array, known: Posterior) -> F:
    """p(z_t = i, z_t+1 = j | all bins) (T - 1, S, S), of one chain."""
    e = np.exp(ell - ell.max(axis=1, keepdims=True))
    predicted = known.filtered[:-1] @ Pi
    beta = known.gamma / known.filtered
    xi = known.filtered[:-1, :, None] * Pi * (e * beta)[1:, None, :]
    return np.asarray(xi / (predicted * (e * beta)[1:]).sum(axis=1)[:, None, None])


@kernel
def best_path(ell, log_Pi, log_p0, back, path):
    """The likeliest path (T,) of a chain; where two are as likely, the lower state. back (T, S): room."""
    T, S = ell.shape
    delta, new = np.zeros(S), np.zeros(S)
    for t in range(T):
        climb(delta, new, ell[t], log_Pi, log_p0, t == 0, back[t])
    for t in range(T - 1, -1, -1):
        path[t] = largest(delta) if t == T - 1 else back[t + 1, path[t + 1]]


@kernel
def climb(delta, new, ell, log_Pi, log_p0, first, back):
    """One bin of Viterbi's recursion: delta_t(j) = max_i (delta_t-1(i) + log Pi_ij) + ell_t(j), less its largest; back
    (S,) the i of each j.
    """
    S = delta.shape[0]
    for j in range(S):
        if first:
            new[j] = log_p0[j]
            back[j] = j
        else:
            best = 0
            for i in range(1, S):
                if delta[i] + log_Pi[i, j] > delta[best] + log_Pi[best, j]:
                    best = i
            new[j] = delta[best] + log_Pi[best, j]
            back[j] = best
    most = -np.inf
    for j in range(S):
        delta[j] = new[j] + ell[j]
        most = max(most, delta[j])
    if not np.isfinite(most):  # impossible in every state: it says nothing, and the path goes on
        most = -np.inf
        for j in range(S):
            delta[j] = new[j]
            most = max(most, delta[j])
    for j in range(S):
        delta[j] -= most


@kernel
def largest(v):
    """The index of the largest, the lowest of several."""
    best = 0
    for i in range(1, v.shape[0]):
        if v[i] > v[best]:
            best = i
    return best


def viterbi(ell: Array, Pi: Array, p0: Array, segment: Array | None = None) -> NDArray[np.int64]:
    """The likeliest path (T,), each segment a chain of its own."""
    T, S = ell.shape
    first, path = begins(T, segment), np.zeros(T, np.int64)
    edges = [*np.flatnonzero(first), T]
    log_Pi, log_p0 = np.log(np.maximum(Pi, FLOOR)), np.log(np.maximum(p0, FLOOR))
    for a, b in itertools.pairwise(edges):
        rows = np.ascontiguousarray(ell[a:b])
        best_path(rows, log_Pi, log_p0, np.zeros((b - a, S), np.int64), path[a:b])
    return path


def begins(T: int, segment: Array | None) -> NDArray[np.int64]:
    """(T,) 1 where a chain begins."""
    first = np.zeros(T, np.int64)
    if segment is not None:
        first[1:] = np.diff(segment) != 0
    first[:1] = 1
    return first


def matched(old: Array, new: Array) -> NDArray[np.int64]:
    """For each state of `old` (S, ...) the index of the state of `new` that is to bear its label: least sum of squared
    differences over all (Kuhn, Nav Res Logist Q 2:83, 1955).
    """
    cost = ((old.reshape(len(old), 1, -1) - new.reshape(1, len(new), -1)) ** 2).sum(axis=2)
    return np.asarray(linear_sum_assignment(cost)[1])


@kernel
def look_back(Pi, alphas, es, at, back, gamma, beta, new):
    """gamma (S,) = p(state so many bins before | all until now), from rings (L, S) of filtered posteriors and scaled
    emissions whose newest row is `at`.
    """
    L, S = alphas.shape
    for s in range(S):
        beta[s] = 1.0
    i = at
    for _ in range(back):
        total = 0.0
        for s in range(S):
            beta[s] *= es[i, s]
        for s in range(S):
            new[s] = 0.0
            for j in range(S):
                new[s] += Pi[s, j] * beta[j]
            total += new[s]
        for s in range(S):
            beta[s] = new[s] / total
        i = i - 1 if i > 0 else L - 1
    total = 0.0
    for s in range(S):
        gamma[s] = alphas[i, s] * beta[s]
        total += gamma[s]
    for s in range(S):
        gamma[s] /= total


@kernel
def trace_back(backs, at, back, state):
    """The state so many bins before on the path that ends in `state`, by a ring (L, S) of Viterbi's pointers."""
    L = backs.shape[0]
    i = at
    for _ in range(back):
        state = backs[i, state]
        i = i - 1 if i > 0 else L - 1
    return state
