"""Integral: what has come together of a channel, the long past forgotten."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel


class Fading(NamedTuple):
    """keep: share of the sum that is left after a sample; gain: s that a sample counts for."""

    keep: float
    gain: float


class Sum(NamedTuple):
    """total and last (c,): the integral, and the sample before."""

    total: NDArray[np.float64]
    last: NDArray[np.float64]


class Integral(Kernel):
    """y' = x - y / tau, from 0 at the start of each segment:

        y(t) = a y(t - dt) + tau (1 - a) (x(t) + x(t - dt)) / 2,   a = exp(-dt / tau)

    which is the integral of x over the last tau s or so. An offset of x comes to tau times as much, and no more: so
    acceleration can be made a velocity whose error does not grow, of which what is slower than 1 / (2 pi tau) Hz is
    lost. For a missing sample 0 stands in the sum, and comes out missing.

    Errors: an irregular input.
    """

    tau: Positive
    """How long the past counts, s."""
    unit: str = ""
    """Unit of what comes out; "": that of the input, times s."""

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        keep = math.exp(-1 / (self.tau * x.rate))
        self.params = Fading(keep, self.tau * (1 - keep))
        self.state = Sum(np.zeros(x.n), np.zeros(x.n))
        return x.replace(unit=self.unit or f"{x.unit} s".strip())

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(x.shape[0]):
            there = math.isfinite(x[c])
            now = x[c] if there else 0.0
            state.total[c] = params.keep * state.total[c] + params.gain * 0.5 * (now + state.last[c])
            state.last[c] = now
            y[c] = state.total[c] if there else math.nan
        return True
