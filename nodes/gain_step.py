"""Channels whose gain jumps, as where an amplifier or an electrode changes."""

from __future__ import annotations

from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._chance import below, chance, told, uniform
from rheobase.stream.block import Spec
from rheobase.stream.node import Fraction, Kernel, Positive, kernel


class GainParams(NamedTuple):
    p: float
    size: float
    truth: bool


class GainState(NamedTuple):
    """s (2,) chance; g (c,) gains."""

    s: NDArray[np.int64]
    g: NDArray[np.float64]


class GainStep(Kernel):
    """y_i = g_i x_i: at each sample, with chance p, the gain of a channel drawn at random becomes `size` or 1 / `size`,
    either as likely, and stays so.

    A node to test with: see `rheo stress`.
    """

    resets: ClassVar[bool] = False

    p: Fraction = 1e-3
    """Chance of a channel to change at a sample."""
    size: Positive = 2.0
    """What the gain becomes, or one over it; it was 1."""
    truth: bool = False
    """Give, after the others, a channel that says how many have another gain than 1."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of what happens when."""

    def start(self, x: Spec) -> Spec:
        self.params = GainParams(self.p, self.size, self.truth)
        self.state = GainState(chance(self.seed), np.ones(x.n))
        return told(x, self.truth)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c, n = x.shape[0], 0
        g = state.g
        if uniform(state.s) < params.p:
            i = below(state.s, c)
            g[i] = params.size if uniform(state.s) < 0.5 else 1.0 / params.size
        for i in range(c):
            y[i] = g[i] * x[i]
            n += 1 if g[i] != 1.0 else 0
        if params.truth:
            y[c] = n
        return True
