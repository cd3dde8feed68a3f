"""From one host's clock to another's, by repeated estimates of the offset between them."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


class Offset:
    """Sender's stamp s -> our time s + c(s), with c continuous and |dc/ds| <= `SLEW`, so that order is kept.

    The target is a line through the last estimates: its slope is the median of the slopes of all pairs (Theil-Sen),
    so that one estimate in four may be wrong. c closes in on it within about `HORIZON`. Two estimates in a row that
    lie more than `JUMP` off are a new clock.

    On one host there is one clock: there, what liblsl measures (some 10 us; 10 ms and more where the machine is busy)
    is noise up to `NOISE`, and c is 0.
    """

    JUMP = 5e-3
    """s"""
    NOISE = 50e-3
    """s"""
    HORIZON = 10.0
    """s"""
    SLEW = 1e-3
    """s/s"""
    SPAN = 30.0
    """s of estimates before drift is told from noise."""

    def __init__(self, same_host: bool = False) -> None:
        self.same_host = same_host
        self.seen: deque[tuple[float, float]] = deque(maxlen=60)
        self.astray: tuple[float, float] | None = None
        self.heard: float | None = None
        self.at, self.c, self.slope = 0.0, 0.0, 0.0
        self.last: float | None = None

    def measured(self, t: float, offset: float) -> bool:
        """An estimate made at t s of our clock. True where it shows a new clock; c has jumped then."""
        if offset == self.heard:  # liblsl gives the last one again until it has another, which proves nothing
            return False
        self.heard = offset
        if self.same_host and abs(offset) < self.NOISE:
            offset = 0.0
        s = t - offset
        if self.seen and abs(offset - self._line(s)) > self.JUMP:
            if self.astray is None or abs(offset - self.astray[1]) > self.JUMP:
                self.astray = s, offset
                return False
            self.seen.clear()
        jump, first = self.astray is not None and not self.seen, not self.seen
        self.astray = None
        self.seen.append((s, offset))
        if first:
            self.at, self.c, self.slope = s, offset, 0.0
        else:
            # The course changes at the last stamp given, so that none moves; stamps need not be of LSL's clock.
            at = s if self.last is None else self.last
            self.at, self.c = at, self.c + self.slope * (at - self.at)
            want = (self._line(s + self.HORIZON) - self.c) / self.HORIZON
            self.slope = min(max(want, -self.SLEW), self.SLEW)
        return jump

    def times(self, stamps: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.last is None:
            self.at = float(stamps[0])
        self.last = float(stamps[-1])
        if not (self.c or self.slope):
            return stamps
        return stamps + (self.c + self.slope * (stamps - self.at))

    def _line(self, s: float) -> float:
        x, y = np.array(self.seen).T
        slope = 0.0
        if x[-1] - x[0] >= self.SPAN:
            i, j = np.triu_indices(len(x), 1)
            slope = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
        return float(np.median(y - slope * x)) + slope * s
