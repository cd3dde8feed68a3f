"""Autoregressive hidden Markov model with partial knowledge of its states, learnt from many sequences at once.

    s_t in 0..Q-1       P(s_0 = i) = pi_i,  P(s_t = j | s_{t-1} = i) = A_ij;  1 - sum_j A_ij: that the unit fails
    y_t (d,)            y_tk = -B_ik l_tk + N(0, s2_ik) in state i
    l_tk                [y_{t-1}, ..., y_{t-P}, 1, y_t0, ..., y_t(k-1)]

The channels of y_t come one after the other, each given those before it: that is a full covariance in every state
(its Cholesky factor), and a missing channel is simply left out. `pl` in [0, 1] is how plausible state i is at t for
what is known besides y: 1 everywhere, nothing; 1 for one state and 0 elsewhere, the state. It multiplies p(y_t | i):

    b_t(i) = p(y_t | s_t = i) pl_t(i)

so that log L falls with pl, and is to be compared for the same pl only. Ramasso & Denoeux, IEEE Trans Fuzzy Syst
22:395, 2014; the algorithm is E2M, EM where pl = 1. Sequences lie side by side, padded to the longest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Array, StreamError

F = NDArray[np.float64]
EPSILON = 1e-5
"""Added to the expected counts of pi and A: no transition that may be is ruled out by a sample without it."""
LEAST = 1e-6
"""Least variance of a state, in that of y."""
ENOUGH = 1e-4
"""Relative rise of log L at which EM is done."""


class ARHMM(NamedTuple):
    """pi (Q,), A (Q, Q), B (Q, d, l) with l = P d + 1 + d and 0 for what comes later, s2 (Q, d)."""

    pi: F
    A: F
    B: F
    s2: F


@dataclasses.dataclass(frozen=True)
class Sequences:
    """n sequences, padded to T samples.

    Y       (n, T, d) samples, NaN where missing or past the end
    L       (n, T, l) regressors [lags, 1, y_t], NaN where a lag is missing
    log_pl  (n, T, Q) log plausibility of each state
    length  (n,) samples that count
    failed  (n,) whether the last sample is the last before the failure; else the unit lives on (censored)
    """

    Y: F
    L: F
    log_pl: F
    length: NDArray[np.int64]
    failed: NDArray[np.bool_]

    @property
    def there(self) -> NDArray[np.bool_]:
        """(n, T) samples that count."""
        return np.asarray(np.arange(self.Y.shape[1]) < self.length[:, None])

    def take(self, which: Array) -> Sequences:
        """Some of the sequences."""
        return Sequences(*(getattr(self, f.name)[which] for f in dataclasses.fields(self)))


def sequences(
    ys: Sequence[Array], pls: Sequence[Array] | None, Q: int, P: int, failed: Sequence[bool] | bool = False
) -> Sequences:
    """Sequences of ys (T_k, d) each with plausibilities (T_k, Q), or None. The first P samples of each serve as lags
    only.

    Raises StreamError where no sequence is longer than P.
    """
    kept = [k for k, y in enumerate(ys) if len(y) > P]
    if not kept:
        raise StreamError(f"order: no sequence is longer than {P} samples")
    d, T = ys[0].shape[1], max(len(ys[k]) for k in kept) - P
    Y, L = np.full((len(kept), T, d), np.nan), np.full((len(kept), T, (P + 1) * d + 1), np.nan)
    log_pl = np.zeros((len(kept), T, Q))
    for row, k in enumerate(kept):
        y = ys[k]
        m = len(y) - P
        Y[row, :m] = y[P:]
        lags = [y[P - p : len(y) - p] for p in range(1, P + 1)]
        L[row, :m] = np.hstack([*lags, np.ones((m, 1)), y[P:]])
        if pls is not None:
            with np.errstate(divide="ignore"):
                log_pl[row, :m] = np.log(pls[k][P:])
    ends = np.broadcast_to(failed, len(ys))[kept]
    return Sequences(Y, L, log_pl, np.array([len(ys[k]) - P for k in kept]), np.array(ends, bool))


def log_b(model: ARHMM, s: Sequences) -> F:
    """log b_t(i), (n, T, Q). A channel that is missing, or whose regressors are, says nothing."""
    found = s.log_pl.copy()
    l0 = s.L.shape[2] - s.Y.shape[2]
    for k in range(s.Y.shape[2]):
        mean = -s.L[:, :, : l0 + k] @ model.B[:, k, : l0 + k].T
        s2 = model.s2[:, k]
        each = -0.5 * (np.log(2 * math.pi * s2) + (s.Y[:, :, k, None] - mean) ** 2 / s2)
        found += np.where(np.isfinite(each), each, 0.0)
    return found


class Posterior(NamedTuple):
    """alpha, gamma (n, T, Q): of the state given the samples up to t, and given all. xi (Q, Q): expected transitions,
    exits (Q,): expected failures, first (Q,): mean gamma_0, log_L (n,) of each sequence, C (n, T): p(y_t | before)."""

    alpha: F
    gamma: F
    xi: F
    exits: F
    first: F
    log_L: F
    C: F
    beta: F


def forward_backward(pi: F, A: F, log_b: F, length: NDArray[np.int64], failed: NDArray[np.bool_]) -> Posterior:
    """The scaled recursions

        alpha_t ~ (alpha_{t-1} A) b_t      beta_t = A (b_{t+1} beta_{t+1}) / C_{t+1}      gamma_t = alpha_t beta_t

    with beta_T = 1, or x / (alpha_T x) of the exits x = 1 - A 1 where the unit failed.

    Raises StreamError where a sample is impossible in every state.
    """
    n, T, Q = log_b.shape
    top = log_b.max(axis=2)
    if not np.isfinite(top).all():
        raise StreamError("knowledge: a sample is impossible in every state")
    b = np.exp(log_b - top[:, :, None])
    there = np.arange(T) < length[:, None]
    alpha, beta, C = np.zeros((n, T, Q)), np.ones((n, T, Q)), np.ones((n, T))
    for t in range(T):
        a = (alpha[:, t - 1] @ A if t else np.broadcast_to(pi, (n, Q))) * b[:, t]
        sums = a.sum(axis=1)
        if not (sums[there[:, t]] > 0).all():
            raise StreamError("knowledge: a sample is impossible after those before it")
        C[:, t] = np.where(there[:, t], sums, 1.0)
        alpha[:, t] = np.where(there[:, t, None], a / np.where(sums > 0, sums, 1.0)[:, None], alpha[:, t - 1])
    rows = np.arange(n)
    log_C = np.where(there, np.log(C) + top, 0.0)
    log_L = log_C.sum(axis=1)
    exits = np.maximum(1 - A.sum(axis=1), 0.0)
    last = np.ones((n, Q))
    if failed.any():
        out = alpha[rows, length - 1] @ exits
        if not (out[failed] > 0).all():
            raise StreamError("knowledge: a unit failed in a state that cannot")
        last[failed] = exits / out[failed, None]
        log_L[failed] += np.log(out[failed])
    beta[rows, length - 1] = last
    coming = np.zeros((n, T, Q))  # b_{t+1} beta_{t+1} / C_{t+1}
    for t in range(T - 2, -1, -1):
        inside = t + 1 < length
        coming[:, t] = np.where(inside[:, None], b[:, t + 1] * beta[:, t + 1] / C[:, t + 1, None], 0.0)
        beta[inside, t] = coming[inside, t] @ A.T
    gamma = np.where(there[:, :, None], alpha * beta, 0.0)
    xi = A * np.einsum("nti,ntj->ij", alpha, coming, optimize=True)
    left = gamma[rows, length - 1][failed].sum(axis=0)
    return Posterior(alpha, gamma, xi, left, gamma[:, 0].mean(axis=0), log_L, np.exp(log_C), beta)


def viterbi(pi: F, A: F, log_b: F, length: int) -> NDArray[np.int64]:
    """The most likely states (length,) of one sequence; of equal ones the lowest."""
    with np.errstate(divide="ignore"):
        log_pi, log_A = np.log(pi), np.log(A)
    best, came = log_pi + log_b[0], np.zeros((length, len(pi)), np.int64)
    for t in range(1, length):
        each = best[:, None] + log_A
        came[t] = each.argmax(axis=0)
        best = each.max(axis=0) + log_b[t]
    path = np.zeros(length, np.int64)
    path[-1] = best.argmax()
    for t in range(length - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path


def regress(s: Sequences, gamma: F, floor: F, before: ARHMM | None = None) -> tuple[F, F]:
    """B and s2 by least squares weighted with gamma (n, T, Q); s2 at least `floor` (d,).

    A state with less weight than it has regressors keeps what it had `before`, or is like all samples together.
    """
    d, size, Q = s.Y.shape[2], s.L.shape[2], gamma.shape[2]
    B, s2 = np.zeros((Q, d, size)), np.ones((Q, d))
    if before is not None:
        B[:], s2[:] = before.B, before.s2
    for k in range(d):
        wide = size - d + k
        rows = np.isfinite(s.L[:, :, :wide]).all(axis=2) & np.isfinite(s.Y[:, :, k]) & s.there
        X, y, w = s.L[rows][:, :wide], s.Y[rows][:, k], gamma[rows]
        unit = np.sqrt((X * X).sum(axis=0) / max(len(X), 1))  # lags and intercept differ in size, which pinv minds
        unit[unit == 0] = 1.0
        X = X / unit
        for i in range(Q):
            wi = w[:, i]
            if wi.sum() < wide:
                if before is not None:
                    continue
                wi = np.ones(len(wi))
            W = X * wi[:, None]
            b = -(y @ W) @ np.linalg.pinv(X.T @ W, hermitian=True)
            e = y + X @ b
            B[i, k, :wide] = b / unit
            s2[i, k] = max(wi @ e**2 / wi.sum(), floor[k])
    return B, s2


def chain(found: Posterior, allowed: NDArray[np.bool_]) -> tuple[F, F]:
    """pi and A from the expected counts, A only where a transition is allowed."""
    pi = found.first + EPSILON
    counts = (found.xi + EPSILON) * allowed
    return pi / pi.sum(), counts / (counts.sum(axis=1) + found.exits)[:, None]


def em(
    model: ARHMM, s: Sequences, allowed: NDArray[np.bool_] | None = None, most: int = 100, least: int = 3
) -> tuple[ARHMM, list[float]]:
    """EM from a model: the last one, and log L of each iteration's model. Ends where log L rises by less than 1e-4 of
    itself, or falls by more than 1e-3 (the counts that are added may make it)."""
    ok = np.ones(model.A.shape, bool) if allowed is None else allowed
    floor = LEAST * np.nanvar(np.where(s.there[:, :, None], s.Y, np.nan), axis=(0, 1))
    log_L: list[float] = []
    while len(log_L) < most:
        found = forward_backward(model.pi, model.A, log_b(model, s), s.length, s.failed)
        log_L.append(float(found.log_L.sum()))
        if len(log_L) > least:
            rise = log_L[-1] - log_L[-2]
            if rise < -1e-3 or abs(rise) < ENOUGH * abs(log_L[-1]):
                break
        model = ARHMM(*chain(found, ok), *regress(s, found.gamma, floor, model))
    return model, log_L


def begin(s: Sequences, gamma: F, allowed: NDArray[np.bool_], log_pl: bool) -> ARHMM:
    """A first model from weights gamma (n, T, Q): B and s2 by regression; pi and A by the pairs of neighbouring weights
    where they are knowledge, else with every allowed transition the same but that states last."""
    floor = LEAST * np.nanvar(np.where(s.there[:, :, None], s.Y, np.nan), axis=(0, 1))
    B, s2 = regress(s, gamma, floor)
    Q = gamma.shape[2]
    rows, end = np.arange(len(gamma)), s.length - 1
    first, exits = gamma[:, 0].mean(axis=0), gamma[rows, end][s.failed].sum(axis=0)
    if log_pl:
        xi = np.einsum("nti,ntj->ij", gamma[:, :-1], gamma[:, 1:], optimize=True)
    else:
        xi = (np.eye(Q) * 20 + 1) * gamma.sum() / (Q * 21)
    return ARHMM(*chain(Posterior(gamma, gamma, xi, exits, first, np.zeros(len(gamma)), gamma, gamma), allowed), B, s2)


def learn(
    s: Sequences, Q: int, left_right: bool, knows: bool, restarts: int, seed: int, most: int = 100
) -> tuple[ARHMM, float]:
    """The model of most log L, and that. With knowledge, EM begins at it; without, from `restarts` random cuts of the
    sequences into Q stretches of time (left-right) or of level, by way of a hidden Markov model without lags."""
    allowed = np.triu(np.ones((Q, Q), bool)) if left_right else np.ones((Q, Q), bool)
    flat = dataclasses.replace(s, L=s.L[:, :, -s.Y.shape[2] - 1 :])  # only the intercept, and the channels before
    rng = np.random.default_rng(seed)
    best, most_L = None, -math.inf
    for _ in range(1 if knows else restarts):
        if knows:
            gamma = np.exp(s.log_pl) * s.there[:, :, None]
            gamma /= np.maximum(gamma.sum(axis=2, keepdims=True), 1e-300)
            made, log_L = em(begin(s, gamma, allowed, True), s, allowed, most)
        else:
            gamma = _cut(s, Q, left_right, rng) * s.there[:, :, None]
            plain, _ = em(begin(flat, gamma, allowed, False), flat, allowed, 15)
            found = forward_backward(plain.pi, plain.A, log_b(plain, flat), s.length, s.failed)
            start = begin(s, found.gamma, allowed, False)
            made, log_L = em(start._replace(pi=plain.pi, A=plain.A), s, allowed, most)
        if log_L[-1] > most_L:
            best, most_L = made, log_L[-1]
    assert best is not None
    return best, most_L


def _cut(s: Sequences, Q: int, left_right: bool, rng: np.random.Generator) -> F:
    """Weights (n, T, Q) that are 0 or 1."""
    if left_right:
        share = np.arange(s.Y.shape[1]) / s.length[:, None]
        z = np.searchsorted(np.cumsum(rng.dirichlet(np.full(Q, 5.0)))[:-1], share.ravel()).reshape(share.shape)
    else:
        y = s.Y[:, :, 0]
        known = y[np.isfinite(y)]
        if len(known) < Q:
            raise StreamError(f"states: {len(known)} samples are no basis for {Q} states")
        centre = rng.choice(known, Q, replace=False)
        z = np.abs(np.nan_to_num(y, nan=float(known.mean()))[:, :, None] - centre).argmin(axis=2)
    return np.asarray(np.eye(Q)[z])
