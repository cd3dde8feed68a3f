"""Samples that arrive late, as over a busy network."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._chance import below, chance, told, uniform
from rheobase.stream.block import Spec
from rheobase.stream.node import Count, Fraction, Kernel, kernel


class JitterParams(NamedTuple):
    p: float
    reorder: bool
    truth: bool


class JitterState(NamedTuple):
    """s (2,) chance; k (1,) samples so far; sample j is in row j % (most + 1) of last, and arrives at due of that row,
    in samples."""

    s: NDArray[np.int64]
    k: NDArray[np.int64]
    due: NDArray[np.int64]
    last: NDArray[np.float64]


class Jitter(Kernel):
    """y(k) = x(j), j the newest of those that have arrived: sample j arrives d(j) samples late, which is 0 but with
    chance p, and then any of 1 ... `most`. Times are those at which the samples would have come.

    With `reorder`, y(k) = x(k - d(k)): samples come out of order, some of them twice and some never. The first sample
    is on time. A node to test with: see `rheo stress`.
    """

    resets: ClassVar[bool] = False

    p: Fraction = 0.1
    """Chance of a sample to be late."""
    most: Count = 3
    """Samples by which one is late at most."""
    reorder: bool = False
    """Let older samples come after newer ones."""
    truth: bool = False
    """Give, after the others, a channel that says how many samples they are behind."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of what happens when."""

    def start(self, x: Spec) -> Spec:
        self.params = JitterParams(self.p, self.reorder, self.truth)
        room, none = np.zeros((self.most + 1, x.n)), np.zeros(self.most + 1, np.int64)
        self.state = JitterState(chance(self.seed), np.zeros(1, np.int64), none, room)
        return told(x, self.truth)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c, rows, k = x.shape[0], state.due.shape[0], state.k[0]
        late = 1 + below(state.s, rows - 1) if uniform(state.s) < params.p else 0
        late = min(late, k) if params.reorder or k == 0 else late
        state.due[k % rows] = k + late
        for i in range(c):
            state.last[k % rows, i] = x[i]
        behind = late
        if not params.reorder:
            behind = 0
            while state.due[(k - behind) % rows] > k:
                behind += 1
        for i in range(c):
            y[i] = state.last[(k - behind) % rows, i]
        if params.truth:
            y[c] = behind
        state.k[0] = k + 1
        return True
