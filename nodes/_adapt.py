"""A switching GLM that follows slow change: transitions and weights learnt on, bin by bin, with forgetting.

Transitions by forward-only smoothing (Cappé, J Comput Graph Stat 20:728, 2011): of every step i -> j so far

    r(k | l) = p(z_t-1 = k | z_t = l, x until t - 1)
    rho_t(i, j, l) = sum_k keep rho_t-1(i, j, k) r(k | l) + add 1{l = j} r(i | l)
    Pi_ij ~ sum_l rho_t(i, j, l) alpha_t(l)

Weights of each state and neuron by recursive Fisher scoring, P the inverse of the information so far, g = gamma_t-L(s):

    lam = 1 - (1 - keep) g,   K = P h / (lam + g I h' P h),   I = f'^2 / f (Poisson),   w += K g d log p / du
    P <- (P - g I K (P h)') / lam

so a state forgets only while it is there. Nothing is learnt where no state is likely.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes import _em, _follow, _glm
from rheobase.nodes._em import PSEUDO
from rheobase.nodes._hmm import FLOOR
from rheobase.stream.block import StreamError
from rheobase.stream.node import kernel

F = NDArray[np.float64]

SURE = 0.5
"""Nothing is learnt where no state is likelier than this."""
LITTLE = 0.01
"""Nor of a state that is less likely than this."""
DOUBT = 0.25
"""Largest variance of a weight: a neuron that never fires does not make its weights anything."""
GAP = 1.0
"""s: after a longer gap the chain begins anew."""


class Forgetting(NamedTuple):
    """keep: what a bin leaves of those before; bins: so many are remembered; gap: longest time between two bins, s; of:
    a number that stands for the model.
    """

    on: bool
    keep: float
    bins: float
    gap: float
    of: float


class Adapting(NamedTuple):
    """W (M, S N), Pi, log_Pi (S, S) as they are by now; P (S N, M, M); rho (S, S, S) and room for the next; alpha (S,)
    of the bin before; steps (S, S) counted; hs (lag + 1, M) and xs (lag + 1, N), rings whose oldest row is at (1,); of
    (1,), the model they come of; last (1,), time of the last bin; Ph (M,), room. Without size where nothing is learnt.
    """

    W: F
    Pi: F
    log_Pi: F
    P: F
    rho: F
    next: F
    alpha: F
    steps: F
    hs: F
    xs: F
    at: NDArray[np.int64]
    of: F
    last: F
    Ph: F


def forgetting(tau: float, rate: float, W: F) -> Forgetting:
    """Of a time constant tau, s, at so many bins a second."""
    if not tau:
        return Forgetting(False, 1.0, 0.0, 0.0, 0.0)
    if not rate:
        raise StreamError("adapt: needs bins of a regular rate")
    bins = tau * rate
    if bins <= 1:
        raise StreamError(f"adapt: {tau:g} s is less than a bin")
    return Forgetting(True, math.exp(-1 / bins), bins, GAP + 1 / rate, float(zlib.crc32(W.tobytes())))


def moments(data: _em.Data, m: _em.Model, gamma: F, law: int) -> dict[str, F]:
    """What weights that adapt begin to doubt from: of each state the mean h h' (S, M, M), times its share, and the mean
    Fisher information of u (S, N).
    """
    S, M, N = m.W.shape
    second, inform = np.zeros((S, M, M)), np.zeros((S, N))
    for rows in _glm.chunks(len(data.X)):
        for s in range(S):
            h, g = data.H[rows], gamma[rows, s]
            U = h @ m.W[s]
            f = _glm.means(U, law)
            second[s] += (h * g[:, None]).T @ h / len(data.X)
            inform[s] += g @ _glm.gradients(f, f, _glm.slopes(U, f, law), m.V[s], law)[1]
    return {"moments": second, "inform": inform / np.maximum(gamma.sum(axis=0), 1.0)[:, None]}


def adapting(f: Forgetting, W: F, Pi: F, log_Pi: F, moments: F, inform: F, lag: int) -> Adapting:
    """What a run begins with: the model, and the doubt that so many bins of its own training would leave."""
    (M, SN), S = W.shape, len(Pi)
    if not f.on:
        none, flat = np.zeros((0, 0)), np.zeros((0, 0, 0))
        one = np.zeros(1)
        return Adapting(
            none, none, none, flat, flat, flat, np.zeros(0), none, none, none, np.zeros(1, np.int64), one, one.copy(),
            np.zeros(0),
        )  # fmt: skip
    J: F = f.bins * inform.reshape(SN, 1, 1) * np.repeat(moments, SN // S, axis=0) + np.eye(M) / DOUBT
    share = np.maximum(moments[:, -1, -1], 0)  # the last feature is 1
    rho = (share[:, None] * Pi)[:, :, None] * np.ones(S)  # as if of each step that much had been seen
    return Adapting(
        W.copy(), Pi.copy(), log_Pi.copy(), np.asarray(np.linalg.inv(J), float), rho, np.zeros((S, S, S)),
        np.full(S, 1 / S), np.zeros((S, S)), np.zeros((lag, M)), np.full((lag, SN // S), np.nan),
        np.zeros(1, np.int64), np.full(1, f.of), np.full(1, -np.inf), np.zeros(M),
    )  # fmt: skip


@kernel
def copy(A, B):
    """B = A, of two dimensions."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            B[i, j] = A[i, j]


@kernel
def clear(A):
    """A = 0."""
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            A[i, j] = 0.0


@kernel
def take_over(f, W, Pi, log_Pi, a):
    """Begin from the model where another was swapped in."""
    if a.of[0] != f.of:
        a.of[0] = f.of
        copy(W, a.W)
        copy(Pi, a.Pi)
        copy(log_Pi, a.log_Pi)


@kernel
def count_steps(rho, new, before, now, Pi, keep, add, steps):
    """rho of one bin more, from the filtered posteriors (S,) before and now; steps_ij = sum_l rho(i, j, l) now_l."""
    S = before.shape[0]
    for q in range(S):
        total = 0.0
        for k in range(S):
            total += before[k] * Pi[k, q]
        for i in range(S):
            for j in range(S):
                v = 0.0
                for k in range(S):
                    v += rho[i, j, k] * (before[k] * Pi[k, q] / total)
                v *= keep
                if j == q:
                    v += add * (before[i] * Pi[i, q] / total)
                new[i, j, q] = v
    for i in range(S):
        for j in range(S):
            steps[i, j] = 0.0
            for q in range(S):
                rho[i, j, q] = new[i, j, q]
                steps[i, j] += new[i, j, q] * now[q]


@kernel
def revise(steps, prior, weight, Pi, log_Pi):
    """Pi of counted steps and of the model's own, which count little."""
    S = steps.shape[0]
    for i in range(S):
        total = 0.0
        for j in range(S):
            Pi[i, j] = steps[i, j] + weight * prior[i, j]
            total += Pi[i, j]
        for j in range(S):
            Pi[i, j] /= total
            log_Pi[i, j] = math.log(max(Pi[i, j], FLOOR))


@kernel
def learn_from(params, state, x):
    """Transitions by this bin, weights by the one `lag` bins before."""
    a, f, now, N = state.adapt, params.forget, state.at[2], state.past.shape[1]
    S, (L, M) = a.Pi.shape[0], a.hs.shape
    alpha = state.alphas[now]
    if state.at[3] > 1:
        count_steps(a.rho, a.next, a.alpha, alpha, a.Pi, f.keep, 1.0 - f.keep, a.steps)
        revise(a.steps, params.Pi, PSEUDO / f.bins, a.Pi, a.log_Pi)
    for s in range(S):
        a.alpha[s] = alpha[s]
    at = a.at[0]
    for m in range(M):
        a.hs[at, m] = state.h[m]
    for n in range(N):
        a.xs[at, n] = x[n]
    at = at + 1 if at + 1 < L else 0  # the oldest row
    a.at[0] = at
    if state.at[3] < L:
        return
    gamma = state.gamma
    most = 0.0
    for s in range(S):
        most = max(most, gamma[s])
    if most < SURE:
        return
    h = a.hs[at]
    for s in range(S):
        if gamma[s] > LITTLE:
            for n in range(N):
                if _follow.observed(a.xs[at, n], params.law):
                    i = s * N + n
                    u = 0.0
                    for m in range(M):
                        u += a.W[m, i] * h[m]
                    fisher_step(a.xs[at, n], u, params.V[i], gamma[s], h, params.law, f.keep, a.P[i], a.W, i, a.Ph)


@kernel
def fisher_step(x, u, v, g, h, law, keep, P, W, i, Ph):
    """Column i of the weights W (M, ...) and their doubt P (M, M) after a value x, by a state of probability g."""
    M = h.shape[0]
    f = _follow.mean(u, law)
    d = _follow.slope(u, f, law)
    if law == _glm.BERNOULLI:
        p = f * (1.0 - f) + _glm.LEAST
        up, inform = ((1.0 if x > 0.0 else 0.0) - f) * d / p, d * d / p
    elif law == _glm.GAUSSIAN:
        up, inform = (x - f) / v, 1.0 / v
    else:
        up, inform = (x / (f + _glm.LEAST) - 1.0) * d, d * d / (f + _glm.LEAST)
    lam = 1.0 - (1.0 - keep) * g
    total = 0.0
    for k in range(M):
        Ph[k] = 0.0
        row = P[k]
        for m in range(M):
            Ph[k] += row[m] * h[m]
        total += Ph[k] * h[k]
    denominator = lam + g * inform * total
    for k in range(M):
        W[k, i] += Ph[k] / denominator * g * up
        c = g * inform * Ph[k] / denominator
        row = P[k]
        for m in range(M):
            row[m] = (row[m] - c * Ph[m]) / lam
    for k in range(M):
        if P[k, k] > DOUBT:
            c = math.sqrt(DOUBT / P[k, k])
            for m in range(M):
                P[k, m] *= c
                P[m, k] *= c
