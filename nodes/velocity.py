"""Velocity from positions, in the world's axes or in those of the body: the truth for decoders of motion."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._quaternion import to_body
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel


class Span(NamedTuple):
    """longest: two samples that far apart, s, have a gap between them."""

    longest: float


class Trail(NamedTuple):
    """ring (2 h + 1, c) and times (2 h + 1,) of the last samples, NaN where there was none; at (1,): the row of the
    next."""

    ring: NDArray[np.float64]
    times: NDArray[np.float64]
    at: NDArray[np.int64]


class Velocity(Kernel):
    """v = (p(t + h) - p(t - h)) / 2 h, the centred difference of positions `over` = 2 h s apart.

    The input is a position (x, y, z), or a position and an orientation (x, y, z, q_w, q_x, q_y, q_z) beside it
    (`merge`), whose quaternion q takes the body's axes into the world's: then v is given in the axes of the body at t,
    R(q(t))' v. The result for time t comes out at t + h: its Spec's delay grows by h.

    Missing where one of the samples at t - h, t (of the orientation), t + h is, or where a gap lies between them; so
    are the first 2 h seconds of a segment. What shakes faster than 0.44 / over Hz is damped by more than 3 dB.

    Errors: neither 3 nor 7 channels; an irregular input; `over` of less than two samples.
    """

    over: Positive
    """How far apart in time the two positions are, s; rounded to an even number of samples."""

    def start(self, x: Spec) -> Spec:
        if x.n not in (3, 7):
            raise StreamError(f"takes a position (3 channels) or position and quaternion (7), got {x.n} channels")
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        h = round(self.over * x.rate / 2)
        if h < 1:
            raise StreamError(f"over: {self.over:g} s are less than two samples at {x.rate:g} Hz")
        self.params = Span((2 * h + 0.5) / x.rate)
        k = 2 * h + 1
        self.state = Trail(np.full((k, x.n), np.nan), np.full(k, np.nan), np.zeros(1, np.int64))
        return x.replace(channels=("v_x", "v_y", "v_z"), unit=f"{x.unit or 'm'}/s", delay=x.delay + h / x.rate)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        k, n = state.ring.shape
        at = state.at[0]
        new, old = state.ring[at], state.ring[at + 1 if at + 1 < k else 0]
        for c in range(n):
            new[c] = x[c]
        state.times[at] = t
        span = t - state.times[at + 1 if at + 1 < k else 0]
        middle = state.ring[at - k // 2 if at >= k // 2 else at - k // 2 + k]
        state.at[0] = at + 1 if at + 1 < k else 0
        whole = 0.0 < span < params.longest
        for c in range(3):
            y[c] = (x[c] - old[c]) / span if whole else np.nan
            whole &= np.isfinite(y[c])
        if whole and n == 7:
            whole = to_body(middle[3:], y)
        for c in range(3):
            y[c] = y[c] if whole else np.nan
        return True
