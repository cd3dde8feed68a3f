"""Channels that change places, as where a plug goes back into the wrong socket."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._chance import below, chance, told, uniform
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Fraction, Kernel, kernel


class SwapParams(NamedTuple):
    p: float
    truth: bool


class SwapState(NamedTuple):
    """s (2,) chance; of (c,): the channel of x that each one gives."""

    s: NDArray[np.int64]
    of: NDArray[np.int64]


class ChannelSwap(Kernel):
    """y_i = x_of(i): at each sample, with chance p, two channels drawn at random change places, and stay so.

    A node to test with: see `rheo stress`. Errors: one channel.
    """

    resets: ClassVar[bool] = False

    p: Fraction = 1e-3
    """Chance of two channels to change places at a sample."""
    truth: bool = False
    """Give, after the others, a channel that says how many are not in their place."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of what happens when."""

    def start(self, x: Spec) -> Spec:
        if x.n < 2:
            raise StreamError("needs at least 2 channels, its input has one")
        self.params = SwapParams(self.p, self.truth)
        self.state = SwapState(chance(self.seed), np.arange(x.n))
        return told(x, self.truth)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c, n = x.shape[0], 0
        of = state.of
        if uniform(state.s) < params.p:
            i, j = below(state.s, c), below(state.s, c - 1)
            j += 1 if j >= i else 0
            k = of[i]
            of[i] = of[j]
            of[j] = k
        for i in range(c):
            y[i] = x[of[i]]
            n += 1 if of[i] != i else 0
        if params.truth:
            y[c] = n
        return True
