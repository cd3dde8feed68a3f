"""Slow, obvious twins of the signal kernels: whole arrays (n, c), one thought a line, no state."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float64]


def by_channel(f, x: Samples, *args) -> Samples:
    """f on the finite samples of each channel, NaN in the place of the others: what 'holds the channel' means."""
    y = np.full(x.shape, np.nan)
    for c in range(x.shape[1]):
        there = np.isfinite(x[:, c])
        y[there, c] = f(x[there, c], *args)
    return y


def cascade(u: Samples, sos: Samples) -> Samples:
    """The difference equation of each section, one channel (n,)."""
    for b0, b1, b2, a0, a1, a2 in sos:
        v = np.zeros(len(u) + 2)
        u = np.concatenate([[0.0, 0.0], u])
        for t in range(2, len(u)):
            v[t] = (b0 * u[t] + b1 * u[t - 1] + b2 * u[t - 2] - a1 * v[t - 1] - a2 * v[t - 2]) / a0
        u = v[2:]
    return u


def average_reference(x: Samples, used: list[int]) -> Samples:
    y = np.where(np.isfinite(x), x, np.nan)
    for row in y:
        there = [c for c in used if np.isfinite(row[c])]
        if there:
            row[there] -= np.mean(row[there])
    return y


def crossings(x: Samples, rms: float, learn: int, dead: int) -> Samples:
    """Crossings of rms times the RMS of the first `learn` samples, each at least `dead` samples after the last."""
    y = np.where(np.isfinite(x), 0.0, np.nan)
    for c in range(x.shape[1]):
        first = x[:learn, c]
        first = first[np.isfinite(first)]
        if not len(first) or not first.any():
            continue
        level = rms * np.sqrt(np.mean(first**2))
        rest = [t for t in range(learn, len(x)) if np.isfinite(x[t, c])]
        last = -dead
        for before, t in pairwise(rest):
            was, now = (x[s, c] < level if rms < 0 else x[s, c] > level for s in (before, t))
            if now and not was and t - last >= dead:
                y[t, c] = 1.0
                last = t
    return y


def bins(x: Samples, samples: int, mean: bool) -> Samples:
    y = np.full((len(x) // samples, x.shape[1]), np.nan)
    for k, c in np.ndindex(*y.shape):
        inside = x[k * samples : (k + 1) * samples, c]
        inside = inside[np.isfinite(inside)]
        if len(inside):
            y[k, c] = np.mean(inside) if mean else np.sum(inside)
    return y


def zscore(u: Samples, window: float) -> Samples:
    """One channel (n,): mean and variance written out as weighted sums over all the past."""
    y = np.zeros(len(u))
    weights = np.zeros(0)
    for t in range(len(u)):
        a = max(1 / (t + 1), 1 / window)
        weights = np.append((1 - a) * weights, a)
        past = u[: t + 1]
        mean = np.sum(weights * past)
        var = np.sum(weights * (past - mean) ** 2)
        y[t] = (u[t] - mean) / np.sqrt(var) if t else 0.0
    return y


def lags(x: Samples, k: int, fill: float) -> Samples:
    y = np.zeros((len(x), k, x.shape[1]))
    for t, lag, c in np.ndindex(*y.shape):
        there = t >= lag and np.isfinite(x[t - lag, c])
        y[t, lag, c] = x[t - lag, c] if there else (np.nan if lag == 0 else fill)
    return y.reshape(len(x), -1)
