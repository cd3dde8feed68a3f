"""Squared distances from a sample to the support points of a regressor, in one pass over memory.

At 3000 points and 192 channels the points are 4.6 MB, and reading them is what takes the time. So they lie in blocks of
`LANES` points, within a block channel by channel: memory is read once, in its order, while the sums of a block stay in
registers. And where they outgrow a core's own cache they are kept as float32, half as wide: bins come 20 ms apart, and
meanwhile other work has pushed them out. All arithmetic is float64, and each distance is summed channel after channel,
whatever the build.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Array
from rheobase.stream.node import kernel

LANES = 32
CACHE = 2**20
"""Bytes: a core's own cache. Points that need more as float64 are float32."""


def narrow(points: int, n: int) -> bool:
    """Whether so many points of n channels are kept as float32."""
    return points * n * 8 > CACHE


def as_kept(X: Array, points: int) -> Array:
    """X (m, n) rounded to what is kept of it, so that what is learnt is learnt of just that."""
    return X.astype(np.float32).astype(np.float64) if narrow(points, X.shape[1]) else X


def in_blocks(X: Array, points: int) -> NDArray[np.float64]:
    """X (m, n) as (blocks, n, LANES) with room for so many points, the rest 0.

    float32 lie two in the place of one float64, (blocks, n, LANES / 2): a loop's parameters are all float64.
    """
    m, n = X.shape
    room = np.zeros((-(-points // LANES), LANES, n))
    room.reshape(-1, n)[:m] = X
    room = np.ascontiguousarray(room.transpose(0, 2, 1))
    return room.astype(np.float32).view(np.float64) if narrow(points, n) else room


def in_room(V: Array, points: int) -> NDArray[np.float64]:
    """V (m, d) as (d, blocks LANES): a row for each output, with room for so many points, the rest 0."""
    room = np.zeros((V.shape[1], -(-points // LANES) * LANES))
    room[:, : len(V)] = V.T
    return room


@kernel
def squared_distances(X, m, x, distance):
    """distance[i] = |x - x_i|^2 for i < m; X from `in_blocks`, distance (blocks LANES,)."""
    short = X.shape[2] != LANES
    lanes = 2 * X.shape[2] if short else X.shape[2]  # not LANES itself: numba would unroll before it vectorises
    for b in range((m + lanes - 1) // lanes):
        sums = distance[b * lanes : (b + 1) * lanes]
        for i in range(lanes):
            sums[i] = 0.0
        if short:
            points32 = X[b].view(np.float32)
            for j in range(x.shape[0]):
                xj, row32 = x[j], points32[j]
                for i in range(lanes):
                    e = xj - np.float64(row32[i])
                    sums[i] += e * e
        else:
            points = X[b]
            for j in range(x.shape[0]):
                xj, row = x[j], points[j]
                for i in range(lanes):
                    e = xj - row[i]
                    sums[i] += e * e
