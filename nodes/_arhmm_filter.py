"""One step of `arphmm`: predict, score, correct, and say how long it lives."""

from __future__ import annotations

import math

import numpy as np

from rheobase.nodes._phase_type import move, passage
from rheobase.stream.node import kernel

GIVEN = ("state", "health", "predicted", "z", "score", "pit", "novel", "rul", "rul_capped", "rul_5", "rul_50", "rul_95")
"""What it gives, in this order; the probabilities of the states after it, where there is room."""
NOVEL = -50.0
"""Log-density below which a sample belongs to no state: it is left out, and said to be novel."""
LOG_2PI = math.log(2 * math.pi)


@kernel
def filtered(params, state, x, y):
    """y (12,) or (12 + Q,) from the sample x (d,); params and state as in `arphmm`."""
    alpha, p, w, first = state.alpha, state.room.p, state.room.w, params.first
    Q, d, wide = w.shape[0], x.shape[0], state.ell.shape[0]
    lags = wide - d - 1
    for i in range(y.shape[0]):
        y[i] = np.nan
    y[6] = 0.0
    if state.seen[0] * d < lags:
        state.seen[0] += 1
        for k in range(d):
            there = np.isfinite(x[k])
            keep(state, lags + 1 + k, x[k] if there else params.centre[k], 0.0 if there else params.spread[k])
        y[1] = state.ell[lags + 1]
    else:
        if state.seen[0] * d == lags:
            state.seen[0] += 1
            for n in range(p.shape[0]):
                p[n] = params.pi[n]
        else:
            move(first, params.a, params.J, alpha, p, state.room.into)
        for i in range(Q):
            w[i] = 0.0
            for n in range(first[i], first[i + 1]):
                w[i] += p[n]
        observe(params, state, x, y)
    age = state.guessed[0]
    for j in range(lags - 1, d - 1, -1):
        state.ell[j] = state.ell[j - d]
        state.ell_v[j] = state.ell_v[j - d]
    for k in range(min(d, lags)):
        state.ell[k] = state.ell[lags + 1 + k]
        state.ell_v[k] = state.ell_v[lags + 1 + k]
    state.guessed[0] = min(age + 1, wide)
    for i in range(Q):
        w[i] = 0.0
        for n in range(first[i], first[i + 1]):
            w[i] += alpha[n]
    best = 0
    for i in range(Q):
        if w[i] > w[best]:
            best = i
    y[0] = best
    for i in range(min(Q, y.shape[0] - 12)):
        y[12 + i] = w[i]
    if params.lives:
        y[7], y[8] = 0.0, 0.0
        for n in range(alpha.shape[0]):
            y[7] += alpha[n] * params.mean[n]
            y[8] += alpha[n] * params.capped[n]
        for q in range(3):
            state.r[q] = passage(alpha, params.G, params.levels[q], state.r[q], state.room.some)
            y[9 + q] = state.r[q]
    return True


@kernel
def keep(state, j, value, variance):
    """Put y_tk among the regressors; with a variance it is a guess."""
    state.ell[j] = value
    state.ell_v[j] = variance
    if variance > 0.0:
        state.guessed[0] = 0


@kernel
def observe(params, state, x, y):
    """alpha from p and the sample x, with what was predicted of it; p where it is missing or novel."""
    room, alpha = state.room, state.alpha
    p, w, m, v, log_b = room.p, room.w, room.m, room.v, room.log_b
    ell, ell_v, first = state.ell, state.ell_v, params.first
    Q, d = w.shape[0], x.shape[0]
    at = ell.shape[0] - d
    old = state.guessed[0]  # a guess is among the lags where this is small
    count = 0
    for i in range(Q):
        log_b[i] = 0.0
    for k in range(d):
        for i in range(Q):
            m[i], v[i] = 0.0, params.s2[k, i]
        for j in range(at + k):
            e, row = ell[j], params.B[k, j]
            for i in range(Q):
                m[i] -= e * row[i]
        guess = old * d < at or state.guessed[0] == 0
        if guess:
            for j in range(at + k):
                e, row = ell_v[j], params.B[k, j]
                for i in range(Q):
                    v[i] += e * row[i] * row[i]
        mean, square = 0.0, 0.0
        for i in range(Q):
            mean += w[i] * m[i]
            square += w[i] * (v[i] + m[i] * m[i])
        variance = max(square - mean * mean, 1e-300)
        if k == 0:
            y[1], y[2] = mean, mean
        if not np.isfinite(x[k]):
            keep(state, at + k, mean, variance)
            continue
        count += 1
        if k == 0:
            y[1], y[3], y[5] = x[0], (x[0] - mean) / math.sqrt(variance), 0.0
            for i in range(Q):
                y[5] += w[i] * 0.5 * math.erfc((m[i] - x[0]) / math.sqrt(2.0 * v[i]))
        for i in range(Q):
            e = x[k] - m[i]
            log_b[i] -= 0.5 * (e * e / v[i] + (LOG_2PI + math.log(v[i]) if guess else params.log_2pi_s2[k, i]))
        keep(state, at + k, x[k], 0.0)
        room.mean[k], room.variance[k] = mean, variance
    top = log_b[0]
    for i in range(1, Q):
        top = max(top, log_b[i])
    total = 0.0
    if count and top > NOVEL * count:
        for i in range(Q):
            log_b[i] -= top
            m[i] = math.exp(log_b[i])
            total += w[i] * m[i]
    if total > 1e-300:
        y[4] = math.log(total) + top
        if params.pool > 0.0:
            pooled(params, p, log_b, alpha)
        else:
            for i in range(Q):
                for n in range(first[i], first[i + 1]):
                    alpha[n] = p[n] * m[i]
        total = 0.0
        for n in range(alpha.shape[0]):
            total += alpha[n]
        for n in range(alpha.shape[0]):
            alpha[n] /= total
        return
    for n in range(alpha.shape[0]):
        alpha[n] = p[n]
    if count:
        y[6] = 1.0
        for k in range(d):
            if np.isfinite(x[k]):
                keep(state, at + k, room.mean[k], room.variance[k])


@kernel
def pooled(params, p, log_b, alpha):
    """alpha = p^(1 - g) (q b)^g, the largest 1."""
    g, first = params.pool, params.first
    for i in range(log_b.shape[0]):
        for n in range(first[i], first[i + 1]):
            alpha[n] = (1.0 - g) * math.log(max(p[n], 1e-300)) + g * (params.log_q[n] + log_b[i])
    top = alpha[0]
    for n in range(1, alpha.shape[0]):
        top = max(top, alpha[n])
    for n in range(alpha.shape[0]):
        alpha[n] = math.exp(alpha[n] - top)
