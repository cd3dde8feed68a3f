"""Resample: a stream on a regular grid of times, the same grid for all streams that are to go together."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.node import Node, NotNegative, Positive

EDGE = 1e-9
"""s: times nearer than this are the same."""
HOLE = 60.0
"""s after a sample (or `gap`, where that is longer) for which missing values are given until the next one comes."""


class Resample(Node):
    """A sample at each k / rate s, k whole, from the first sample of a segment to its last. With u(s) the input:

        hold     the last u(s) with s <= t; missing where that is older than `gap`
        linear   between the two neighbours of t - gap, which have come by then; missing where they are further apart
                 than `gap`, or the later one has not come. The delay grows by `gap`.
        mean     of all u(s) with t - 1/rate < s <= t that are there; missing where none is. The delay grows by
                 half of 1/rate less an interval of the input.

    All streams resampled to one rate have their samples at the same times to the bit, so that `merge` puts them side by
    side without a guess, however each of them jitters; several inputs of one node are held at the times of the first
    already (see `Node`), and need this only where the first is not regular. Causal: what comes out for t knows nothing
    after it; it comes out with the first sample at t or later. A gap that opens a segment breaks the grid off. In one
    that does not (an irregular input, a clock that jumped), missing samples come out for `HOLE` = 60 s, and the grid
    goes on with the next sample: there alone are two neighbours of the output further apart than 1 / rate.

    To go to a lower rate without aliases, put `lowpass` before (a corner below half of the new rate; it declares its
    delay), or take the mean, which is worse at that, and all there is for an irregular input.

    Errors: text; an irregular input without `gap`.
    """

    own_times: ClassVar[bool] = True

    rate: Positive
    """Samples a second to come out, Hz."""
    how: Literal["hold", "linear", "mean"] = "hold"
    """What stands between samples."""
    gap: NotNegative = 0.0
    """Samples further apart than this have a hole between them, s; 0: 1.5 intervals of the input's rate."""

    def start(self, *inputs: Spec) -> Spec:
        x = inputs[0]
        if x.dtype == "str":
            raise StreamError("takes numbers, and its input is text")
        if not (x.rate or self.gap or self.how == "mean"):
            raise StreamError("gap: the input is irregular: say for how long a sample holds, s")
        self.longest = (self.gap or 1.5 / (x.rate or 1.0)) + EDGE
        self.hole = max(HOLE, self.longest, 1 / self.rate)
        delay = x.delay
        if self.how == "linear":
            delay += self.longest - EDGE
        elif self.how == "mean":
            delay += max(0.0, 1 / self.rate - (1 / x.rate if x.rate else 0.0)) / 2
        self.segment, self.next, self.seq = -1, 0, 0
        self.times, self.data = np.empty(0), np.empty((0, x.n))
        return Spec(rate=self.rate, channels=x.channels, unit=x.unit, delay=delay)

    def process(self, *inputs: Block) -> Block | None:
        x = inputs[0]
        if not len(x):
            return None
        if x.segment != self.segment:
            self.segment, self.times, self.data = x.segment, np.empty(0), np.empty((0, x.data.shape[1]))
            self.next = int(np.ceil((x.times[0] - EDGE) * self.rate))
        s = np.maximum.accumulate(np.append(self.times, x.times))  # jitter may step back
        u = np.vstack([self.data, np.asarray(x.data, np.float64)])
        last = int(np.floor((s[-1] + EDGE) * self.rate))
        k = []
        for i in np.flatnonzero(np.diff(s) > self.hole):
            k.append(np.arange(self.next, int(np.floor((s[i] + self.hole) * self.rate)) + 1))
            self.next = max(self.next, int(np.ceil((s[i + 1] - EDGE) * self.rate)))
        t = np.concatenate([*k, np.arange(self.next, last + 1)]) / self.rate
        self.next = max(self.next, last + 1)
        with np.errstate(invalid="ignore"):  # of Inf - Inf
            y = getattr(self, f"_{self.how}")(t, s, u) if len(t) else np.empty((0, u.shape[1]))
        # what the next sample of the grid may still look at
        needed = self.next / self.rate - {"hold": 0.0, "linear": self.longest, "mean": 1 / self.rate}[self.how]
        keep = max(0, int(np.searchsorted(s, needed - EDGE, "right")) - 1)
        self.times, self.data = s[keep:], u[keep:]
        self.seq += len(t)
        return Block(y, t, self.seq - len(t), x.segment)

    def _hold(self, t: Array, s: Array, u: Array) -> Array:
        at = np.searchsorted(s, t + EDGE, "right") - 1
        return np.where((t - s[at] <= self.longest)[:, None], u[at], np.nan)

    def _linear(self, t: Array, s: Array, u: Array) -> Array:
        t, known = t - (self.longest - EDGE), np.searchsorted(s, t + EDGE, "right") - 1
        b = np.searchsorted(s, t - EDGE)
        there = (b <= known) & ((b > 0) | (np.abs(s[0] - t) <= EDGE))
        b = np.minimum(b, len(s) - 1)
        a = np.where(np.abs(s[b] - t) <= EDGE, b, np.maximum(b - 1, 0))
        there &= s[b] - s[a] <= self.longest
        w = np.where(a == b, 0.0, (t - s[a]) / np.where(a == b, 1.0, s[b] - s[a]))[:, None]
        return np.where(there[:, None], np.where(w == 0.0, u[a], (1 - w) * u[a] + w * u[b]), np.nan)

    def _mean(self, t: Array, s: Array, u: Array) -> Array:
        there = np.isfinite(u)
        a, b = (np.searchsorted(s, edge + EDGE, "right") for edge in (t - 1 / self.rate, t))
        y = np.full((len(t), u.shape[1]), np.nan)
        for k in np.flatnonzero(a < b):  # a running sum would depend on how blocks were cut
            i, j = a[k], b[k]
            n = there[i:j].sum(axis=0)
            np.divide(np.where(there[i:j], u[i:j], 0.0).sum(axis=0), n, out=y[k], where=n > 0)
        return y
