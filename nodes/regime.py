"""A stream whose mixing changes at once, and may change back: tuning that turns, a sensor that is moved."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._chance import told
from rheobase.stream.block import Spec
from rheobase.stream.node import Kernel, NotNegative, Positive, kernel


class RegimeParams(NamedTuple):
    """order (c,): channels 0 and 1 of it turn together, 2 and 3, ...; one that is left over does not."""

    order: NDArray[np.int64]
    cos: float
    sin: float
    gain: float
    at: float
    every: float
    truth: bool


class RegimeState(NamedTuple):
    """t0 (1,): time of the first sample, s; NaN before it."""

    t0: NDArray[np.float64]


class Regime(Kernel):
    """y = x in the first regime; in the second one, for each pair (a, b) of channels,

        y_a = gain (cos(angle) x_a - sin(angle) x_b),   y_b = gain (sin(angle) x_a + cos(angle) x_b)

    The second begins `at` s after the first sample, for good (sudden), or the two take turns of `every` s (cyclic).
    Which channels are a pair is drawn by the seed. A node to test with: see `rheo stress`.
    """

    resets: ClassVar[bool] = False

    angle: float = 0.5236
    """By which pairs of channels turn, rad."""
    gain: Positive = 1.0
    """Of the second regime."""
    at: NotNegative = 0.0
    """s after the first sample at which the second regime begins."""
    every: NotNegative = 0.0
    """After so many s it changes again; 0: it stays."""
    truth: bool = False
    """Give, after the others, a channel that says whether the second regime is on."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Of which channels are a pair."""

    def start(self, x: Spec) -> Spec:
        order = np.random.default_rng(self.seed).permutation(x.n)
        changes = self.angle != 0 or self.gain != 1
        at = self.at if changes else math.inf  # not even -0.0 becomes 0.0, nor does a NaN reach its partner
        self.params = RegimeParams(
            order, math.cos(self.angle), math.sin(self.angle), self.gain, at, self.every, self.truth
        )
        self.state = RegimeState(np.full(1, np.nan))
        return told(x, self.truth)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        c = x.shape[0]
        if np.isnan(state.t0[0]):
            state.t0[0] = t
        since = t - state.t0[0] - params.at
        on = since >= 0.0 and (params.every == 0.0 or np.floor(since / params.every) % 2.0 == 0.0)
        for i in range(c):
            y[i] = params.gain * x[i] if on else x[i]
        if on:
            for k in range(c // 2):
                a, b = params.order[2 * k], params.order[2 * k + 1]
                y[a] = params.gain * (params.cos * x[a] - params.sin * x[b])
                y[b] = params.gain * (params.sin * x[a] + params.cos * x[b])
        if params.truth:
            y[c] = 1.0 if on else 0.0
        return True
