"""Fading means of each channel over several spans of the past, and how old the stream is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, kernel


class AveragesParams(NamedTuple):
    """over (k,): spans in samples; age: whether the age comes last."""

    over: NDArray[np.float64]
    age: bool


class AveragesState(NamedTuple):
    """m (k, c) means of n (c,) samples that were there; seen (1,): all samples."""

    m: NDArray[np.float64]
    n: NDArray[np.int64]
    seen: NDArray[np.int64]


class Averages(Kernel):
    """What the past was like, over short spans and long ones: for each span, c channels of

        m <- m + a (x - m),   a = max(1/n, 1/span)

    the plain mean of all n samples until there are `span` of them, and a fading one after that: a summary that knows no
    future and is right from the first sample on. A missing sample changes nothing; before the first one, NaN.

    Errors: a span below 1.
    """

    over: tuple[float, ...] = (5, 20, 80)
    """Spans, in samples."""

    age: bool = False
    """After the means give the number of samples since the start (of the segment), in hundreds."""

    def start(self, x: Spec) -> Spec:
        if not self.over or min(self.over) < 1:
            raise StreamError("over: spans are of at least one sample")
        self.params = AveragesParams(np.array(self.over, float), self.age)
        k = len(self.over)
        self.state = AveragesState(np.full((k, x.n), np.nan), np.zeros(x.n, np.int64), np.zeros(1, np.int64))
        names = [f"{c}~{span:g}" for span in self.over for c in x.channels]
        return x.replace(channels=(*names, *["age"] * self.age), dtype="float64")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c = x.shape[0]
        state.seen[0] += 1
        for j in range(c):
            if np.isfinite(x[j]):
                state.n[j] += 1
                if state.n[j] == 1:
                    for i in range(params.over.shape[0]):
                        state.m[i, j] = 0.0
                for i in range(params.over.shape[0]):
                    state.m[i, j] += max(1.0 / state.n[j], 1.0 / params.over[i]) * (x[j] - state.m[i, j])
            for i in range(params.over.shape[0]):
                y[i * c + j] = state.m[i, j]
        if params.age:
            y[params.over.shape[0] * c] = 0.01 * state.seen[0]
        return True
