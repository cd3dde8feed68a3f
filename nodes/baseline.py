"""Baseline: what each channel has moved by since the start."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.stream.node import Kernel, Positive, kernel


class Until(NamedTuple):
    """over: s of the mean; size: give |y|."""

    over: float
    size: bool


class Start(NamedTuple):
    """total and n (c,): sum and number of the first samples; began (1,): time of the first, s; NaN before it."""

    total: NDArray[np.float64]
    n: NDArray[np.int64]
    began: NDArray[np.float64]


class Baseline(Kernel):
    """y = x - m, m the mean of the channel over the first `over` s of the segment (until then: so far).

    For sensors whose level says nothing of what is to be told, or too much: magnetometers in a skin, whose level tells
    the session that a recording is from. A channel that was missing all that time starts with its first sample.
    """

    over: Positive = 0.2
    """How long the start is, s."""
    size: bool = False
    """Give |x - m|: how far, not in which direction."""

    def start(self, x: Spec) -> Spec:
        self.params = Until(float(self.over), self.size)
        self.state = Start(np.zeros(x.n), np.zeros(x.n, np.int64), np.full(1, np.nan))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        if np.isnan(state.began[0]):
            state.began[0] = t
        early = t - state.began[0] < params.over
        for c in range(x.shape[0]):
            there = np.isfinite(x[c])
            if there and (early or state.n[c] == 0):
                state.total[c] += x[c]
                state.n[c] += 1
            off = x[c] - state.total[c] / state.n[c] if there else np.nan
            y[c] = abs(off) if params.size else off
        return True
