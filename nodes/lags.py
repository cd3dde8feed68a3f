"""Lags: the present and past samples side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.stream.node import Count, Kernel, kernel


class Fill(NamedTuple):
    """What stands for a past sample that is not there."""

    fill: float


class Past(NamedTuple):
    """ring (k, c): the last k samples; at (1,): the row that the next one takes."""

    ring: NDArray[np.float64]
    at: NDArray[np.int64]


class Lags(Kernel):
    """y = [x_t, x_{t-1}, ..., x_{t-k+1}], all channels of one lag together; channel names "ch", "ch@-1", ...

    One sample out for each one in. Where the past is not there, before the first sample of a segment or where a
    sample was missing, `fill` stands for it: 0 is the mean of z-scored channels. A missing x_t itself comes out
    missing, so that a decoder knows.
    """

    k: Count = 5
    """How many samples, the present one included."""
    fill: float = 0.0
    """What stands for a past sample that is not there, in the unit of the input; .nan: missing."""

    def start(self, x: Spec) -> Spec:
        self.params = Fill(float(self.fill))
        self.state = Past(np.full((self.k, x.n), float(self.fill)), np.zeros(1, np.int64))
        names = [c if lag == 0 else f"{c}@-{lag}" for lag in range(self.k) for c in x.channels]
        return x.replace(channels=tuple(names))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        k, n = state.ring.shape
        at = state.at[0]
        now = state.ring[at]
        for c in range(n):
            there = np.isfinite(x[c])
            now[c] = x[c] if there else params.fill
            y[c] = x[c] if there else np.nan
        for lag in range(1, k):
            row = state.ring[at - lag if at >= lag else at - lag + k]
            out = y[lag * n : (lag + 1) * n]
            for c in range(n):
                out[c] = row[c]
        state.at[0] = at + 1 if at + 1 < k else 0
        return True
