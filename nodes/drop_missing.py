"""Drop missing: only samples that are there."""

from __future__ import annotations

import numpy as np

from rheobase.stream.block import Spec
from rheobase.stream.node import Kernel, kernel


class DropMissing(Kernel):
    """y = x where every channel of x is finite; the other samples do not come out, and the stream is irregular.

    For a sensor that is read more often than it has something to say, so that what comes next to a sample is the next
    reading and not a hole.
    """

    def start(self, x: Spec) -> Spec:
        return x.replace(rate=0)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(x.shape[0]):
            if not np.isfinite(x[c]):
                return False
        for c in range(x.shape[0]):
            y[c] = x[c]
        return True
