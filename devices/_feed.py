"""The recent past of one stream, for a screen: its last samples as they are, and minutes of it in columns of lowest and
highest value, in memory that neither rate nor duration makes grow.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Block, Spec
from rheobase.stream.clock import now

Times = NDArray[np.float64]
Values = NDArray[np.float32]

COLUMNS = 1200
"""Columns kept for the time that a window shows, which is about the pixels of a wide panel."""
FINE, COARSE = 32 << 20, 64 << 20
"""Bytes, at most, of the last samples of an input, and of its columns."""
IRREGULAR = 1 << 17
"""Samples kept of a stream without a rate, at most."""
UNITS = 50_000
"""Units of a fleet that are remembered, at most: those heard last."""
LARGEST = 1e30
"""What is larger is no number that can be drawn."""
MANY = 300_000
"""Values in the time that a window shows, above which it takes columns of them."""
WORDS = 1000
"""Markers kept."""


class Ring:
    """The last `size` columns of n channels, a column being `every` samples. Empty: none were written."""

    def __init__(self, size: int, n: int, every: int) -> None:
        self.size, self.every, self.at = size, every, 0
        self.grown = size
        """Columns since the one whose time went back."""
        self.times = np.full(size, -np.inf)
        self.low = np.empty((size, n), np.float32)  # memory that is not written is not taken
        self.high = self.low if every == 1 else np.empty((size, n), np.float32)

    def write(self, times: Times, low: Values, high: Values) -> None:
        times, low, high = times[-self.size :], low[-self.size :], high[-self.size :]
        back = np.flatnonzero(np.diff(times, prepend=self.times[self.at - 1]) < 0)
        self.grown = len(times) - int(back[-1]) if len(back) else self.grown + len(times)
        end = self.at + len(times)
        for a, b, skip in ((self.at, min(end, self.size), 0), (0, end - self.size, self.size - self.at)):
            if b > a:
                part = slice(skip, skip + b - a)
                self.times[a:b], self.low[a:b] = times[part], low[part]
                if self.every > 1:
                    self.high[a:b] = high[part]
        self.at = end % self.size

    def between(self, a: float, b: float) -> tuple[Times, Values, Values]:
        """What lies after a s and up to b s, in the order in which it came."""
        if self.grown < self.size:  # a clock that was set back: look at all
            times = np.concatenate([self.times[self.at :], self.times[: self.at]])
            at = (np.flatnonzero((times > a) & (times <= b)) + self.at) % self.size
            parts: list[Any] = [at]
        else:
            halves = (self.at, self.times[self.at :]), (0, self.times[: self.at])
            ends = [(k, *np.searchsorted(t, (a, b), side="right")) for k, t in halves]
            parts = [slice(k + i, k + j) for k, i, j in ends if j > i] or [slice(0, 0)]

        def taken(x: NDArray[Any]) -> NDArray[Any]:
            return x[parts[0]] if len(parts) == 1 else np.concatenate([x[p] for p in parts])

        low = taken(self.low)
        return taken(self.times), low, low if self.every == 1 else taken(self.high)

    @property
    def oldest(self) -> float:
        """Time of the oldest column that is kept; -inf as long as none was overwritten."""
        return float(self.times[self.at])


class Feed:
    """The recent past of one input, and its health.

    span  time that a window shows at first, s: sets the width of a column
    past  time to look back, s
    """

    def __init__(self, name: str, spec: Spec, span: float, past: float = 0.0) -> None:
        self.name, self.spec, self.span, self.past = name, spec, span, max(past, span)
        self.from_file = False
        self.forget()

    def forget(self) -> None:
        """As if nothing had come yet."""
        spec, span, past = self.spec, self.span, self.past
        words = spec.dtype == "str"
        most = max(16, FINE // (4 * spec.n))
        size = 1 if words else min(math.ceil(spec.rate * past) if spec.rate else IRREGULAR, most)
        self.fine = Ring(size, spec.n, 1)
        self.coarse: Ring | None = None
        every = math.ceil(spec.rate * span / COLUMNS)
        if not words and every > 1 and (size < spec.rate * past or spec.rate * span * spec.n > MANY):
            columns = min(math.ceil(past * spec.rate / every), COARSE // (8 * spec.n))
            self.coarse = Ring(columns, spec.n, every)
        self.words: deque[tuple[float, str]] = deque(maxlen=WORDS)
        self.units: dict[float, tuple[float, Values]] | None = {} if spec.channels[0] == "unit" else None
        """Of a fleet: unit -> the time of its newest sample, and that sample."""
        self.newest, self.last = -math.inf, np.full(spec.n, np.nan, np.float32)
        self.filled = self.samples = self.drops = self.segment = self.following = 0
        self.heard = -math.inf
        self.ages: deque[float] = deque(maxlen=1000)
        self.clock: deque[tuple[float, int]] = deque(maxlen=400)
        self.lost: deque[tuple[float, int]] = deque(maxlen=400)

    def take(self, x: Block) -> None:
        if not len(x):
            return
        self.heard = now()
        if self.samples and (missing := max(x.seq - self.following, 0)):
            self.drops += missing
            self.lost.append((float(x.times[0]), missing))
        self.following = x.seq + len(x)
        self.samples += len(x)
        self.ages.append(self.heard - float(x.times[0]))
        words = self.spec.dtype == "str"
        if x.segment != self.segment:
            self.segment, self.filled = x.segment, 0
            self.clock.clear()
            if not words:
                gap = np.full((1, self.spec.n), np.nan, np.float32)
                for ring in filter(None, (self.fine, self.coarse)):
                    ring.write(x.times[:1], gap, gap)
        self.clock.append((float(x.times[-1]), self.samples))
        self.newest = float(x.times[-1])
        if words:
            self.words.extend(
                (float(t), " ".join(map(str, line))) for t, line in zip(x.times[-WORDS:], x.data[-WORDS:], strict=True)
            )
            return
        data = shown(x.data)
        self.fine.write(x.times, data, data)
        self.last = data[-1].copy()
        if self.coarse:
            self._columns(self.coarse, x.times, data)
        if self.units is not None:
            self._fleet(x.times, data)

    def _columns(self, ring: Ring, times: Times, data: Values) -> None:
        left = (ring.every - self.filled) % ring.every
        if left:
            part, at = data[:left], ring.at - 1
            ring.low[at] = np.fmin(ring.low[at], np.fmin.reduce(part))
            ring.high[at] = np.fmax(ring.high[at], np.fmax.reduce(part))
            self.filled = (self.filled + len(part)) % ring.every
            data, times = data[left:], times[left:]
        if len(data):
            starts = np.arange(0, len(data), ring.every)
            ring.write(times[starts], np.fmin.reduceat(data, starts), np.fmax.reduceat(data, starts))
            self.filled = (len(data) - int(starts[-1])) % ring.every

    def _fleet(self, times: Times, data: Values) -> None:
        assert self.units is not None
        names, back = np.unique(data[::-1, 0], return_index=True)
        for name, k in zip(names.tolist(), (len(data) - 1 - back).tolist(), strict=True):
            if name == name:
                self.units.pop(name, None)  # the newest stands last
                self.units[name] = float(times[k]), data[k].copy()
        while len(self.units) > UNITS:
            del self.units[next(iter(self.units))]

    def between(self, a: float, b: float, pixels: int = 0) -> tuple[Times, Values, Values]:
        """Times, lowest and highest values of what lies after a s and up to b s: samples where they are there and
        not many to a pixel, else columns."""
        ring = self.fine
        if self.coarse and (self.fine.oldest > a or (b - a) * self.spec.rate > 3 * max(pixels, COLUMNS // 3)):
            ring = self.coarse
            if self.fine.oldest <= a and (b - a) * self.spec.rate / ring.every < pixels / 2:
                ring = self.fine
        return ring.between(a, b)

    def samples_between(self, a: float, b: float) -> tuple[Times, Values]:
        """The samples themselves, as far as they are there."""
        times, x, _ = self.fine.between(a, b)
        return times, x

    @property
    def oldest(self) -> float:
        """The earliest time that can be looked at, s."""
        ring = self.coarse or self.fine
        kept = ring.times[ring.times > -np.inf]
        return float(kept.min()) if len(kept) else -math.inf

    @property
    def bytes(self) -> int:
        """Memory that its samples take, at most."""
        rings = [r for r in (self.fine, self.coarse) if r]
        return sum(r.times.nbytes + r.low.nbytes + (r.high.nbytes if r.every > 1 else 0) for r in rings)

    def rate(self) -> float:
        """Samples a second over the last blocks, by their own times, Hz."""
        if len(self.clock) < 2 or self.clock[-1][0] <= self.clock[0][0]:
            return self.spec.rate if self.from_file and self.spec.rate else math.nan
        return (self.clock[-1][1] - self.clock[0][1]) / (self.clock[-1][0] - self.clock[0][0])

    @property
    def recorded(self) -> bool:
        """Whether its times are those of a recording, so that ages mean nothing."""
        return self.from_file or (bool(self.ages) and float(np.median(self.ages)) > 1e3)

    def health(self) -> dict[str, Any]:
        """Rate, age p50 and p99, dropped, segment, and a word where something is wrong, as text."""
        silent = now() - self.heard
        p50, p99 = np.quantile(self.ages, [0.5, 0.99], method="higher") * 1e3 if self.ages else (math.nan, math.nan)
        wrong = [] if self.samples else ["nothing yet"]
        wrong += (
            [f"silent for {silent:.0f} s"]
            if self.samples and self.spec.rate and silent > 1 and not self.recorded
            else []
        )
        wrong += ["samples dropped"] if self.drops else []

        def age(x: float) -> str:
            return "recorded" if self.recorded else f"{x:,.1f} ms" if self.ages else "–"

        return {
            "rate": f"{self.rate():,.1f} Hz" if math.isfinite(self.rate()) else "–",
            "age p50": age(p50),
            "age p99": age(p99),
            "dropped": f"{self.drops:,}",
            "segment": str(self.segment),
            "": ", ".join(wrong),
        }


def shown(x: NDArray[Any]) -> Values:
    """Samples as they are drawn: NaN in place of what cannot be."""
    with np.errstate(over="ignore"):
        data = x.astype(np.float32)
    bad = ~(np.abs(data) <= LARGEST)
    if bad.any():
        data[bad] = np.nan
    return data
