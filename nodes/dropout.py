"""Channels that fail for a while: packets lost, a cable off, a command that does not arrive."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._chance import chance, told, uniform
from rheobase.stream.block import Spec
from rheobase.stream.node import Count, Fraction, Kernel, NotNegative, kernel

FILLS = ("nan", "zero", "hold", "random")


class DropoutParams(NamedTuple):
    """begin: chance that an episode begins at a sample where there is none; fill: its place in FILLS."""

    begin: float
    length: int
    share: float
    fill: int
    size: float
    truth: bool


class DropoutState(NamedTuple):
    """s (2,) chance; left (1,) samples of the episode to come; out (c,) whether a channel is; held (c,)."""

    s: NDArray[np.int64]
    left: NDArray[np.int64]
    out: NDArray[np.int64]
    held: NDArray[np.float64]


class Dropout(Kernel):
    """y = x, but for episodes in which some channels give something else.

    An episode lasts `length` samples. Between two, one begins at each sample with the chance

        p / (p + length (1 - p))

    so that in the long run a share p of all samples lies in one. After a decoder it corrupts commands: `fill: random`
    gives any, `fill: hold` the last one again. A node to test with: see `rheo stress`.
    """

    resets: ClassVar[bool] = False

    p: Fraction = 0.1
    """Share of samples that are in an episode."""
    length: Count = 1
    """Of an episode, in samples."""
    share: Fraction = 1.0
    """Chance of each channel to be out in an episode; 1: all of them go together."""
    fill: Literal["nan", "zero", "hold", "random"] = "nan"
    """What comes instead: missing, 0, the channel's last finite sample, or any number from -size to size."""
    size: NotNegative = 1.0
    """Of the numbers of `fill: random`, in the unit of x."""
    truth: bool = False
    """Give, after the others, a channel that says how many are out."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of what happens when."""

    def start(self, x: Spec) -> Spec:
        begin = self.p / (self.p + self.length * (1 - self.p))
        fill = FILLS.index(self.fill)
        self.params = DropoutParams(begin, self.length, self.share, fill, self.size, self.truth)
        none = np.zeros(x.n, np.int64)
        self.state = DropoutState(chance(self.seed), np.zeros(1, np.int64), none, np.full(x.n, np.nan))
        return told(x, self.truth)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c, n = x.shape[0], 0
        if state.left[0] == 0:
            begins = uniform(state.s) < params.begin
            state.left[0] = params.length if begins else 0
            for i in range(c):
                state.out[i] = 1 if begins and uniform(state.s) < params.share else 0
        if state.left[0] > 0:
            state.left[0] -= 1
        for i in range(c):
            if np.isfinite(x[i]) and state.out[i] == 0:
                state.held[i] = x[i]
            y[i] = x[i]
            if state.out[i] == 1:
                n += 1
                if params.fill == 0:
                    y[i] = np.nan
                elif params.fill == 1:
                    y[i] = 0.0
                elif params.fill == 2:
                    y[i] = state.held[i]
                else:
                    y[i] = params.size * (2.0 * uniform(state.s) - 1.0)
        if params.truth:
            y[c] = n
        return True
