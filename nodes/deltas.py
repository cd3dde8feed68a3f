"""Deltas: what each channel has changed by since the sample before."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.stream.node import Kernel, kernel


class Last(NamedTuple):
    """x (c,): the last sample of each channel that was there; NaN before the first."""

    x: NDArray[np.float64]


class Deltas(Kernel):
    """y_t = [x_t, x_t - x_{t-1}], the differences behind all channels; their names "ch" and "d_ch".

    At the start of a segment a difference is 0. A missing value has a missing difference; the one after it is taken to
    the last value that was there.
    """

    def start(self, x: Spec) -> Spec:
        self.state = Last(np.full(x.n, np.nan))
        return x.replace(channels=(*x.channels, *(f"d_{c}" for c in x.channels)))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        n = x.shape[0]
        for c in range(n):
            there, last = np.isfinite(x[c]), state.x[c]
            y[c] = x[c] if there else np.nan
            y[n + c] = np.nan if not there else x[c] - last if np.isfinite(last) else 0.0
            state.x[c] = x[c] if there else last
        return True
