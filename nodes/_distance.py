"""Squared distances from a sample to the support points of a regressor, in one pass over memory.

At 3000 points and 192 channels the points are 4.6 MB: reading them is what takes the time. So they lie in blocks of
`LANES` points, within a block channel by channel: memory is read once, in its order, and the sums of a block stay in
registers. Each distance is summed channel after channel, whatever the build.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Array
from rheobase.stream.node import kernel

LANES = 32


def in_blocks(X: Array, points: int) -> NDArray[np.float64]:
    """X (m, n) as (blocks, n, LANES) with room for so many points; the rest is 0."""
    m, n = X.shape
    room = np.zeros((-(-points // LANES), LANES, n))
    room.reshape(-1, n)[:m] = X
    return np.ascontiguousarray(room.transpose(0, 2, 1))


def in_room(V: Array, points: int) -> NDArray[np.float64]:
    """V (m, d) as (d, blocks LANES): a row for each output, with room for so many points; the rest is 0."""
    room = np.zeros((V.shape[1], -(-points // LANES) * LANES))
    room[:, : len(V)] = V.T
    return room


@kernel
def squared_distances(X, count, x, distance):
    """distance[i] = |x - x_i|^2 for i < count; X (blocks, n, LANES), distance (blocks LANES,)."""
    lanes = X.shape[2]
    for b in range((count + lanes - 1) // lanes):
        points, sums = X[b], distance[b * lanes : (b + 1) * lanes]
        for i in range(lanes):
            sums[i] = 0.0
        for j in range(x.shape[0]):
            xj = x[j]
            row = points[j]
            for i in range(lanes):
                sums[i] += (xj - row[i]) * (xj - row[i])
