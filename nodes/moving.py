"""Positions, while they change."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel


class Least(NamedTuple):
    """Least speed, in the unit of x a second."""

    speed: float


class Trail(NamedTuple):
    """ring (k, c) and times (k,) of the last samples, NaN where there was none; at (1,): the row of the oldest."""

    ring: NDArray[np.float64]
    times: NDArray[np.float64]
    at: NDArray[np.int64]


class Moving(Kernel):
    """y = x(t) where |x(t) - x(t - over)| >= speed (t - (t - over)), the distance between two places; NaN elsewhere.

    For the truth of decoders of place: what the hippocampus fires at rest is not about where the animal is
    (Zhang et al., J Neurophysiol 79:1017, 1998, leave it out too). The way there and back within `over` counts as
    rest; so do the first `over` seconds, and where a sample at either end is missing.

    Errors: an irregular input; `over` shorter than a sample.
    """

    speed: Positive
    """Least speed, in the unit of x a second."""
    over: Positive = 0.5
    """How far apart in time the two places are, s."""

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        k = round(self.over * x.rate)
        if k < 1:
            raise StreamError(f"over: {self.over:g} s are less than a sample at {x.rate:g} Hz")
        self.params = Least(float(self.speed))
        self.state = Trail(np.full((k, x.n), np.nan), np.zeros(k), np.zeros(1, np.int64))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        at = state.at[0]
        old = state.ring[at]
        square = 0.0
        for c in range(x.shape[0]):
            square += (x[c] - old[c]) ** 2
        fast = math.sqrt(square) >= params.speed * (t - state.times[at])  # no, where one is NaN
        for c in range(x.shape[0]):
            y[c] = x[c] if fast and np.isfinite(x[c]) else np.nan
            old[c] = x[c]
        state.times[at] = t
        state.at[0] = at + 1 if at + 1 < state.times.shape[0] else 0
        return True
