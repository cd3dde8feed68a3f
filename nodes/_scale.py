"""The scale of Q: how much of what f says is news to the filter, judged on held-out time."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._recursion import Recursion
from rheobase.stream.block import Array, Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop

BOUNDS = (1e-4, 1e2)
"""Least and largest scale tried."""


def calibrate(given: Recursion, F: Array, Q: Array, Z: Array, segment: NDArray[np.int64]) -> tuple[float, float]:
    """The scale of Q of most predictive score, and the spread that its Sigma needs.

        max over scale and spread of mean_t log N(z(t); mu(t), spread Sigma(t))

    F (T, d) and Q (T, d, d) are f and Q of rows that neither had seen, Z (T, d) the truth, NaN where it may not be
    used, all less the mean of z; segment (T,) as in `Training`. For each scale the best spread has a closed form,
    the mean of e' Sigma^-1 e / d over errors e = z - mu, which leaves

        min over scale of mean log det Sigma + d log spread

    Two numbers, for Sigma has two tasks. Where f looks back (lags, a recurrent net) the past is in f already, and the
    prior adds it again: the best mean trusts f more than Q says (scale < 1), and is less sure than Sigma says
    (spread > 1). One number for both buys the width of Sigma with a worse mean: an MLP on 5 lags of Flint run 1, rows
    3500-4999, has nRMSE 0.478 unfiltered, 0.508 at the scale 1 (the best of 13 by log N(z; mu, Sigma)), and 0.476
    here (scale 0.16, spread 6.5). The spread is put on what is given out only, and never fed back.

    Raises StreamError where no score is finite.
    """
    import scipy.optimize  # late: only a fit needs it

    rows = np.isfinite(Z).all(axis=1)
    d = Z.shape[1]

    def score(log_scale: float) -> tuple[float, float]:
        given.scale = math.exp(log_scale)
        mu, Sigma = decode(given, F, Q, segment)
        e, Sigma = (Z - mu)[rows], Sigma[rows]
        sign, log_det = np.linalg.slogdet(Sigma)
        if not (sign > 0).all():
            return math.inf, math.nan
        spread = float(np.mean(np.sum(e * np.linalg.solve(Sigma, e[:, :, None])[:, :, 0], axis=1)) / d)
        return float(np.mean(log_det)) + d * math.log(spread), spread

    grid = np.log(np.geomspace(*BOUNDS, 13))
    scores = [score(v)[0] for v in grid]
    best = int(np.argmin(scores))
    if not math.isfinite(scores[best]):
        raise StreamError("scale: none gives a finite score on the held-out time")
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = scipy.optimize.minimize_scalar(
        lambda v: score(v)[0], bounds=around, method="bounded", options={"xatol": 1e-3}
    )
    return math.exp(found.x), score(found.x)[1]


def decode(given: Recursion, F: Array, Q: Array, segment: NDArray[np.int64]) -> tuple[Array, Array]:
    """Means (T, d) and covariances (T, d, d) of the filter alone, by the compiled step of a run."""
    T, d = F.shape
    x = np.concatenate([F, Q.reshape(T, d * d)], axis=1)
    loop = Loop([given], [-1], [0])
    loop.start(Spec(rate=0, channels=numbered("x", x.shape[1])))
    cuts = [0, *(np.flatnonzero(np.diff(segment)) + 1), T]
    Y = np.empty((T, d + d * (d + 1) // 2))
    for k, (a, b) in enumerate(itertools.pairwise(cuts)):
        if b > a:
            Y[a:b] = loop.process(Block(x[a:b], np.arange(a, b, dtype=float), a, k))[0][1].data
    return Y[:, :d], square(Y[:, d:], d)


def square(upper: Array, d: int) -> Array:
    """(T, d, d) from the upper triangles (T, d (d+1) / 2), row by row."""
    Sigma = np.empty((len(upper), d, d))
    i, j = np.triu_indices(d)
    Sigma[:, i, j] = Sigma[:, j, i] = upper
    return Sigma
