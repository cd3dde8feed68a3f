"""Threshold crossings: the spikes of an electrode without sorting."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, NotNegative, Positive, kernel


class Rule(NamedTuple):
    """rms: multiple of the RMS; learn: samples to learn it from (0: the level is given); sign: 1 up, -1 down;
    dead: samples after a crossing in which none counts."""

    rms: float
    learn: int
    sign: float
    dead: int


class Crossing(NamedTuple):
    """level (c,); squares (c,): sum of x² while learning, over n (c,) samples; seen (1,): samples in all;
    beyond (c,): whether the last sample lay beyond the level; wait (c,): samples until the next may count."""

    level: NDArray[np.float64]
    squares: NDArray[np.float64]
    n: NDArray[np.int64]
    seen: NDArray[np.int64]
    beyond: NDArray[np.int64]
    wait: NDArray[np.int64]


class Threshold(Kernel):
    """y_c = 1 at the first sample beyond the threshold of its channel, 0 elsewhere.

    The threshold is `level`, or else `rms` times the root mean square of the channel over its first `learn`
    seconds, then fixed; until then y = 0. The input should have no offset (band-pass it before), for the RMS is
    taken about zero. A channel that was flat while learning never crosses.

    A missing sample gives a missing one, and a crossing is then looked for from the last sample before it. What
    was learnt outlasts gaps.

    Errors: an irregular input; a threshold of 0 times the RMS.
    """

    resets = False

    rms: float = -3.5
    """Threshold in multiples of the channel's RMS."""
    level: float | None = None
    """Threshold in the unit of the input; where it is given, `rms` and `learn` are not used."""
    learn: Positive = 10.0
    """Time to learn the RMS from, s."""
    direction: Literal["auto", "down", "up"] = "auto"
    """The way in which the signal crosses; auto: away from zero."""
    refractory: NotNegative = 0.001
    """Least time between crossings, s."""

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        if self.level is None and not (math.isfinite(self.rms) and self.rms):
            raise StreamError(f"rms: must be a finite number that is not 0, got {self.rms:g}")
        if self.level is not None and not math.isfinite(self.level):
            raise StreamError(f"level: must be finite, got {self.level:g}")
        down = self.direction == "down"
        if self.direction == "auto":
            down = (self.rms if self.level is None else self.level) < 0
        learn = max(1, round(self.learn * x.rate)) if self.level is None else 0
        self.params = Rule(self.rms, learn, -1.0 if down else 1.0, max(1, round(self.refractory * x.rate)))
        self.state = Crossing(
            level=np.full(x.n, np.nan if self.level is None else self.level),
            squares=np.zeros(x.n),
            n=np.zeros(x.n, np.int64),
            seen=np.zeros(1, np.int64),
            beyond=np.ones(x.n, np.int64),  # what lies beyond from the start has not crossed
            wait=np.zeros(x.n, np.int64),
        )
        return x.replace(unit="")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        learning = state.seen[0] < params.learn
        for c in range(x.shape[0]):
            state.wait[c] = max(0, state.wait[c] - 1)
            if not np.isfinite(x[c]):
                y[c] = np.nan
                continue
            y[c] = 0.0
            if learning:
                state.squares[c] += x[c] * x[c]
                state.n[c] += 1
            else:
                # NaN (not learnt) compares false: never beyond
                beyond = params.sign * x[c] > params.sign * state.level[c]
                if beyond and not state.beyond[c] and state.wait[c] == 0:
                    y[c] = 1.0
                    state.wait[c] = params.dead
                state.beyond[c] = beyond
        if learning:
            state.seen[0] += 1
            if state.seen[0] == params.learn:
                for c in range(x.shape[0]):
                    if state.squares[c] > 0.0:
                        state.level[c] = params.rms * math.sqrt(state.squares[c] / state.n[c])
        return True
