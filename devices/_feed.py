"""The recent past of one stream, in as many columns as a screen can show, and its health."""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Block, Spec
from rheobase.stream.clock import now

Kind = Literal["traces", "image", "cursor", "numbers"]

COLUMNS = {"traces": 600, "image": 600, "cursor": 2000, "numbers": 1}
"""Columns kept for each input: more than the panels have pixels would be lost on the screen. A cursor's are single
samples up to 200 Hz, so that its path is what it was."""


class Feed:
    """The recent past of one input, in columns of `every` samples, and its health."""

    def __init__(self, name: str, spec: Spec, kind: Kind, span: float) -> None:
        self.name, self.spec, self.kind = name, spec, kind
        self.columns = COLUMNS[kind]
        self.every = max(1, math.ceil(spec.rate * span / self.columns))
        self.times = np.full(self.columns, -np.inf)
        self.low = np.full((self.columns, spec.n), np.nan)
        self.high = self.low.copy()
        self.lines: deque[str] = deque(maxlen=8)
        self.at = self.filled = 0
        self.samples = self.drops = self.segment = self.following = 0
        self.heard = -math.inf
        self.ages: deque[float] = deque(maxlen=1000)
        self.clock: deque[tuple[float, int]] = deque(maxlen=400)

    def take(self, x: Block) -> None:
        if not len(x):
            return
        self.drops += max(x.seq - self.following, 0) if self.samples else 0
        self.following = x.seq + len(x)
        self.samples += len(x)
        self.heard = now()
        self.ages.append(self.heard - float(x.times[0]))
        if x.segment != self.segment:
            self.segment, self.filled = x.segment, 0
            self.clock.clear()
            gap = np.full((1, self.spec.n), np.nan)
            self._write(x.times[:1], gap, gap)
        self.clock.append((float(x.times[-1]), self.samples))
        if self.spec.dtype == "str":
            self.lines.extend(str(line) for line in x.data[:, 0])
            return
        left = (self.every - self.filled) % self.every
        if left:
            part = x.data[:left].astype(np.float64)
            self.low[self.at - 1] = np.fmin(self.low[self.at - 1], np.fmin.reduce(part))
            self.high[self.at - 1] = np.fmax(self.high[self.at - 1], np.fmax.reduce(part))
            self.filled = (self.filled + len(part)) % self.every
        data, times = x.data[left:].astype(np.float64), x.times[left:]
        if len(data):
            starts = np.arange(0, len(data), self.every)[-self.columns :]
            self._write(times[starts], np.fmin.reduceat(data, starts), np.fmax.reduceat(data, starts))
            self.filled = (len(data) - int(starts[-1])) % self.every

    def _write(self, times: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        where = (self.at + np.arange(len(times))) % self.columns
        self.times[where], self.low[where], self.high[where] = times, low, high
        self.at = (self.at + len(times)) % self.columns

    def recent(self, since: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times, lowest and highest values, in order, of the columns after `since`."""
        order = np.roll(np.arange(self.columns), -self.at)
        order = order[self.times[order] > since]
        return self.times[order], self.low[order], self.high[order]

    @property
    def newest(self) -> float:
        return float(self.times.max()) if self.spec.dtype != "str" else -math.inf

    def rate(self) -> float:
        """Samples a second over the last blocks, by their own times, Hz."""
        if len(self.clock) < 2 or self.clock[-1][0] <= self.clock[0][0]:
            return math.nan
        return (self.clock[-1][1] - self.clock[0][1]) / (self.clock[-1][0] - self.clock[0][0])

    def health(self) -> tuple[str, ...]:
        """Rate, age p50 and p99, dropped, segment, and a word where something is wrong."""
        silent = now() - self.heard
        p50, p99 = np.quantile(self.ages, [0.5, 0.99], method="higher") * 1e3 if self.ages else (math.nan, math.nan)
        recorded = p50 > 1e6
        wrong = [] if self.samples else ["nothing yet"]
        wrong += [f"silent for {silent:.0f} s"] if self.samples and silent > 1 else []
        wrong += ["samples dropped"] if self.drops else []
        return (
            f"{self.rate():,.1f} Hz" if math.isfinite(self.rate()) else "–",
            "recorded" if recorded else f"{p50:,.1f} ms" if self.ages else "–",
            "recorded" if recorded else f"{p99:,.1f} ms" if self.ages else "–",
            f"{self.drops:,}",
            str(self.segment),
            ", ".join(wrong),
        )
