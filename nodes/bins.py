"""Bins: counts, sums or means in equal stretches of time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel


class Width(NamedTuple):
    """samples: in a bin; mean: divide by how many were there."""

    samples: int
    mean: bool


class Bin(NamedTuple):
    """total (c,) and n (c,): sum and number of the bin's samples that are there; seen (1,): samples that came."""

    total: NDArray[np.float64]
    n: NDArray[np.int64]
    seen: NDArray[np.int64]


class Bins(Kernel):
    """y_c = sum (of threshold crossings: spike counts) or mean of x_c over each `width` seconds, one after the other.

    A bin comes out with its last sample and carries its time; its Spec's delay grows by half a bin, as that is
    how far its samples lie back on average. Missing samples are left out; a bin that has no others is missing.
    A gap drops the bin it falls into, and bins begin anew after it.

    Errors: an irregular input; a width that is not a whole number of samples.
    """

    width: Positive = 0.02
    """Bin width, s."""
    how: Literal["sum", "mean"] = "sum"
    """What a bin holds."""

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        exact = self.width * x.rate
        samples = round(exact)
        if samples < 1 or abs(exact - samples) > 1e-6 * samples:
            fit = max(1, samples) / x.rate
            raise StreamError(f"width: {self.width:g} s are {exact:g} samples at {x.rate:g} Hz; did you mean {fit:g}?")
        self.params = Width(samples, self.how == "mean")
        self.state = Bin(np.zeros(x.n), np.zeros(x.n, np.int64), np.zeros(1, np.int64))
        delay = x.delay + (samples - 1) / 2 / x.rate
        return x.replace(rate=x.rate / samples, unit="count" if self.how == "sum" else x.unit, delay=delay)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(x.shape[0]):
            there = np.isfinite(x[c])
            state.total[c] += x[c] if there else 0.0
            state.n[c] += there
        state.seen[0] += 1
        if state.seen[0] < params.samples:
            return False
        for c in range(x.shape[0]):
            if state.n[c] == 0:
                y[c] = np.nan
            else:
                y[c] = state.total[c] / state.n[c] if params.mean else state.total[c]
            state.total[c] = 0.0
            state.n[c] = 0
        state.seen[0] = 0
        return True
