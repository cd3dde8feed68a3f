"""Nadaraya-Watson regression: z as a mean of the training z, weighted by how near their x are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.nodes._distance import as_kept, in_blocks, in_room, squared_distances
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import Count, Positive, kernel

BLOCK = 1000


class NadarayaWatsonParams(NamedTuple):
    """X (blocks, n, lanes) and Z (d, blocks lanes) have room for `points` pairs; m of them are there."""

    X: NDArray[np.float64]
    Z: NDArray[np.float64]
    m: int
    half: float


class NadarayaWatsonState(NamedTuple):
    distance: NDArray[np.float64]


class NadarayaWatson(Decoder):
    """Nadaraya-Watson regression with a Gaussian kernel.

        y = sum_i k_i z_i / sum_i k_i,   k_i = exp(-|x - x_i|^2 / 2 s)

    over the training pairs (x_i, z_i), with one s for all channels: give it channels of like scale (`zscore`). The
    least distance is subtracted first, so that far from all x_i the nearest one is returned and never NaN. A sample
    with a value that is not finite gives NaN. Nadaraya, Theor Probab Appl 9:141, 1964.
    """

    variance: Positive | None = None
    """s, in units of x^2; none: the one with the least leave-one-out error."""

    points: Count = 5000
    """Most training pairs kept, spread evenly over the recording."""

    shapes = {"X": "m n", "Z": "m d", "s": ""}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        rows = np.flatnonzero(data.rows)
        if len(rows) > self.points:
            rows = rows[np.linspace(0, len(rows) - 1, self.points).round().astype(int)]
        X, Z = as_kept(data.X[rows], self.points), data.Z[rows]
        s = float(like["s"]) if like else self.variance
        return dict(X=X, Z=Z, s=np.array(bandwidth(X, Z) if s is None else s))

    def ready(self, x: Spec, X: Array, Z: Array, s: Array) -> None:
        room = in_room(Z, self.points)
        self.params = NadarayaWatsonParams(in_blocks(X, self.points), room, len(X), 0.5 / float(s))
        self.state = NadarayaWatsonState(np.zeros(room.shape[1]))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        Z, m, half, distance = params.Z, params.m, params.half, state.distance
        squared_distances(params.X, m, x, distance)
        least = np.inf
        for i in range(m):
            least = min(least, distance[i])
        if not np.isfinite(least):
            for c in range(y.shape[0]):
                y[c] = np.nan
            return True
        total = 0.0
        for c in range(y.shape[0]):
            y[c] = 0.0
        for i in range(m):
            e = (distance[i] - least) * half
            if e < 50.0:  # beyond, its share is under 2e-22
                k = math.exp(-e)
                total += k
                for c in range(y.shape[0]):
                    y[c] += k * Z[c, i]
        for c in range(y.shape[0]):
            y[c] /= total
        return True


def leave_one_out(X: Array, Z: Array, s: float) -> float:
    """Mean squared error of each z_i from all other pairs, in blocks: memory grows with m, not m^2."""
    X = X - X.mean(axis=0)  # where it is far from 0, the squares would cancel
    square, error = (X * X).sum(axis=1), 0.0
    for a in range(0, len(X), BLOCK):
        b = min(a + BLOCK, len(X))
        D = square[a:b, None] + square - 2 * X[a:b] @ X.T
        D[np.arange(b - a), np.arange(a, b)] = np.inf
        D -= D.min(axis=1, keepdims=True)
        k = np.exp(D / (-2 * s), out=D)
        error += (((k @ Z) / k.sum(axis=1, keepdims=True) - Z[a:b]) ** 2).sum()
    return error / Z.size


def bandwidth(X: Array, Z: Array) -> float:
    """The s of least leave-one-out error. log s is bounded by the data's scale."""
    scale = 2 * X.var(axis=0).sum()  # mean squared distance of two points
    if not scale:
        return 1.0
    import scipy.optimize  # late: only a fit needs it

    found = scipy.optimize.minimize_scalar(
        lambda log_s: leave_one_out(X, Z, math.exp(log_s)),
        bounds=(math.log(scale * 1e-5), math.log(scale * 10)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return math.exp(found.x)
