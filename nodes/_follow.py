"""A switching GLM, one bin at a time: the kernels of `hmm_glm`. What each computes for a whole recording, `_glm.py` and
`_hmm.py` do.
"""

from __future__ import annotations

import math

import numpy as np

from rheobase.nodes import _hmm
from rheobase.nodes._glm import BERNOULLI, EXP, GAUSSIAN, LEAST, SIGMOID, SOFTPLUS, TOP
from rheobase.stream.node import kernel


@kernel
def mean(u, law):
    """f(u)."""
    if law in (SIGMOID, BERNOULLI):
        p = 1.0 / (1.0 + math.exp(-min(max(u, -500.0), 500.0)))
        return LEAST + (1.0 - LEAST) * p if law == SIGMOID else p
    if law == SOFTPLUS:
        return max(u, 0.0) + math.log1p(math.exp(-abs(u)))
    if law == EXP:
        return math.exp(min(u, TOP))
    return u


@kernel
def slope(u, f, law):
    """f'(u)."""
    if law in (SIGMOID, BERNOULLI):
        return f * (1.0 - f)
    if law == SOFTPLUS:
        return -math.expm1(-f)
    if law == EXP:
        return f if u < TOP else 0.0
    return 1.0


@kernel
def log_p(x, f, v, law):
    """log p(x) of one value, less its constant."""
    if law == BERNOULLI:
        return math.log((f if x > 0.0 else 1.0 - f) + LEAST)
    if law == GAUSSIAN:
        return -0.5 * ((x - f) * (x - f) / v + math.log(2.0 * math.pi * v))
    if x == 0.0:
        return -f
    return x * math.log(f + LEAST) - f


@kernel
def observed(x, law):
    """Whether a value is an observation."""
    return np.isfinite(x) and (x >= 0.0 or law == GAUSSIAN)


@kernel
def push(ring, at, x, law):
    """Put x (n,) into the ring (k, n) at its row `at`, what is no observation as 0. Returns the row after it."""
    for j in range(ring.shape[1]):
        ring[at, j] = x[j] if observed(x[j], law) else 0.0
    return at + 1 if at + 1 < ring.shape[0] else 0


@kernel
def recall(ring, at, phi, h):
    """h (B n,) = sum_k phi_bk (the row k + 1 before `at`), basis by basis."""
    K, n = ring.shape
    for i in range(h.shape[0]):
        h[i] = 0.0
    for k in range(phi.shape[1]):
        i = at - 1 - k
        row = ring[i + K if i < 0 else i]
        for b in range(phi.shape[0]):
            w = phi[b, k]
            into = h[b * n : (b + 1) * n]
            for j in range(n):
                into[j] += w * row[j]


@kernel
def project(W, h, u):
    """u = W' h, W (M, k)."""
    for i in range(u.shape[0]):
        u[i] = 0.0
    for m in range(h.shape[0]):
        hm = h[m]
        if hm != 0.0:
            row = W[m]
            for i in range(u.shape[0]):
                u[i] += hm * row[i]


@kernel
def likelihoods(u, x, V, law, f, ell):
    """Means f (S N,) of u, and ell (S,) = log p(x | s). Of values that are no observation it says nothing."""
    N, S = x.shape[0], ell.shape[0]
    for i in range(f.shape[0]):
        f[i] = mean(u[i], law)
    constant = 0.0
    if law < BERNOULLI:
        for n in range(N):
            if x[n] > 1.0 and np.isfinite(x[n]):
                constant -= math.lgamma(x[n] + 1.0)
    for s in range(S):
        total = constant
        for n in range(N):
            if observed(x[n], law):
                total += log_p(x[n], f[s * N + n], V[s * N + n], law)
        ell[s] = total


@kernel
def follow(params, W, Pi, log_Pi, s, x, y):
    """One bin: what is expected, what it says, and what is known of the states now and `lag` bins ago."""
    N, (L, S) = s.past.shape[1], s.alphas.shape
    own = params.phi.shape[0] * N
    counts, begun = x[:N], s.at[3] > 0
    s.at[1] = push(s.asked, s.at[1], x[N:], GAUSSIAN)
    recall(s.past, s.at[0], params.phi, s.h[:own])
    recall(s.asked, s.at[1], params.psi, s.h[own : s.h.shape[0] - 1])
    s.h[s.h.shape[0] - 1] = 1.0
    s.at[0] = push(s.past, s.at[0], counts, params.law)
    project(W, s.h, s.u)
    likelihoods(s.u, counts, params.V, params.law, s.f, s.ell)
    if begun:
        _hmm.advance(s.alphas[s.at[2]], Pi, s.p)
    else:
        for k in range(S):
            s.p[k] = params.p0[k]
    now = s.at[2] + 1 if s.at[2] + 1 < L else 0
    s.at[2] = now
    score = _hmm.correct(s.p, s.ell, s.es[now], s.alphas[now])
    _hmm.climb(s.delta, s.room, s.ell, log_Pi, params.log_p0, not begun, s.backs[now])
    back = min(params.lag, s.at[3])
    _hmm.look_back(Pi, s.alphas, s.es, now, back, s.gamma, s.beta, s.room)
    found = _hmm.trace_back(s.backs, now, back, _hmm.largest(s.delta)) if params.viterbi else _hmm.largest(s.gamma)
    if not begun or s.gamma[found] >= params.enter:
        s.label[0] = found
    s.at[3] += 1
    for k in range(S):
        y[k] = s.gamma[k]
    y[S] = s.label[0]
    y[S + 1] = score
    if params.rates:
        for n in range(N):
            y[S + 2 + n] = 0.0
        for k in range(S):
            for n in range(N):
                y[S + 2 + n] += s.p[k] * s.f[k * N + n]
