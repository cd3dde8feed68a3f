"""Running z-score."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, NotNegative, Positive, kernel


class Memory(NamedTuple):
    """window, freeze: in samples (freeze 0: never); clip: largest |y| (inf: none)."""

    window: float
    freeze: int
    clip: float


class Moments(NamedTuple):
    """mean (c,), var (c,) over n (c,) samples that were there; seen (1,): samples that came."""

    mean: NDArray[np.float64]
    var: NDArray[np.float64]
    n: NDArray[np.int64]
    seen: NDArray[np.int64]


class Zscore(Kernel):
    """y_c = (x_c - mean_c) / sd_c, with mean and sd of all samples so far, the present one included.

    Older samples fade: with a = max(1/n, 1/(window rate)),

        d = x - mean,   mean <- mean + a d,   var <- (1 - a) (var + a d²)

    which is Welford's mean and variance (over n) until the window is full, and the exponentially weighted ones
    after it (Finch, Incremental calculation of weighted mean and variance, 2009). y = 0 where the sd is 0.

    A missing sample comes out missing and is not learnt from. What was learnt outlasts gaps.

    Errors: an irregular input; a window shorter than two samples.
    """

    resets = False

    window: Positive = 60.0
    """Time constant of the fading, s."""
    freeze: NotNegative = 0.0
    """Time after which mean and sd stay as they are, s; 0: never."""
    clip: NotNegative = 0.0
    """Largest |y| that is given, in sd; 0: any."""

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        if self.window * x.rate < 2:
            raise StreamError(f"window: {self.window:g} s are less than two samples at {x.rate:g} Hz")
        freeze = max(2, round(self.freeze * x.rate)) if self.freeze else 0
        self.params = Memory(float(self.window * x.rate), freeze, float(self.clip or math.inf))
        self.state = Moments(np.zeros(x.n), np.zeros(x.n), np.zeros(x.n, np.int64), np.zeros(1, np.int64))
        return x.replace(unit="")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        learning = params.freeze == 0 or state.seen[0] < params.freeze
        state.seen[0] += 1
        for c in range(x.shape[0]):
            if not np.isfinite(x[c]):
                y[c] = np.nan
                continue
            if learning:
                state.n[c] += 1
                a = 1.0 / min(float(state.n[c]), params.window)
                d = x[c] - state.mean[c]
                state.mean[c] += a * d
                state.var[c] = (1.0 - a) * (state.var[c] + a * d * d)
            z = (x[c] - state.mean[c]) / math.sqrt(state.var[c]) if state.var[c] > 0.0 else 0.0
            y[c] = min(max(z, -params.clip), params.clip)
        return True
