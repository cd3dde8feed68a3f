"""Inputs of a node meet by their times, whatever the order in which they come."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rheobase.stream.block import Array, Block, Spec

Listener = Callable[[Block], None]


class Align:
    """Sample and hold: each further input at the times of the first.

    A sample of the first input at time t goes on as soon as no further input can still bring one at or before t:
    when it has come to t, or when its next is due later (less than half its period after its last). An input
    that falls behind by more than `WAIT` s of stream time (`EVENT_WAIT` where it is irregular, since nobody
    knows when its next is due) is held as it is; `late` counts the samples that came too late for that. A regular
    one that is silent for `GONE` s, or one that has ended, is waited for no more until it comes again. Of one that
    runs ahead of a silent first input, `KEEP` s are kept. Times that go back by more than `BACK` s are those of a clock
    that was set: nothing of before is held.

    recorded: nothing is guessed and nothing is late, however far one input is ahead of another. Where they are
    read in order of time, `until` says how far all of them have come, whatever their blocks; not so where a further
    input is `slow`, since what it gives for a time may come of a later sample (`Node.own_times`). `again` says that
    all times go back, as where a clock was set.
    """

    WAIT = 1.0
    EVENT_WAIT = 0.05
    GONE = 2.0
    KEEP = 10.0
    BACK = 1.0

    def __init__(
        self, specs: Sequence[Spec], give: Callable[..., None], recorded: bool = False, slow: bool = False
    ) -> None:
        self.specs, self.give, self.recorded, self.slow = specs, give, recorded, slow
        self.driver: list[Block] = []
        self.newest = self.first = -math.inf
        self.came = 0.0
        self.held: list[tuple[list[Array], list[Array]]] = [([], []) for _ in specs[1:]]
        self.reach = [-math.inf] * (len(specs) - 1)
        self.done = self.sure = -math.inf
        self.late = 0

    def taker(self, i: int) -> Listener:
        def take(x: Block) -> None:
            if i == 0:
                if x.times[0] < self.newest - self.BACK and not self.recorded:
                    self._go(math.inf)
                    self.done, self.first = -math.inf, float(x.times[0])
                self.driver.append(x)
                self.newest, self.came = float(x.times[-1]), time.monotonic()
                if self.first == -math.inf:
                    self.first = float(x.times[0])
            else:
                if x.times[0] < self.reach[i - 1] - self.BACK and not self.recorded:
                    self._go(math.inf)
                    self.held[i - 1] = ([], [])
                times, data = self.held[i - 1]
                times.append(x.times)
                data.append(x.data)
                self.reach[i - 1] = float(x.times[-1])
                self.late += int(np.count_nonzero(x.times <= self.done))
                if not self.recorded:
                    while len(times) > 1 and times[1][0] < self.reach[i - 1] - self.KEEP:
                        times.pop(0)
                        data.pop(0)
            self._go(self._safe(self.newest))

        return take

    def ended(self, i: int) -> None:
        """Input i, a further one, gives no more."""
        self.reach[i - 1] = math.inf
        self._go(self._safe(self.newest))

    def idle(self) -> None:
        """Nothing comes: the time of the first input goes on all the same."""
        if self.driver and not self.recorded:
            self._go(self._safe(self.newest + time.monotonic() - self.came))

    def again(self) -> None:
        """All times go back: what waits may go, and nothing of before is held."""
        self._go(math.inf)
        self.held = [([], []) for _ in self.held]
        self.reach = [-math.inf] * len(self.reach)
        self.newest = self.first = self.done = self.sure = -math.inf

    def until(self, t: float) -> None:
        """All that lies before t s has come."""
        if not self.slow:
            self.sure = max(self.sure, math.nextafter(t, -math.inf))
            self._go(self._safe(self.newest))

    def finish(self) -> None:
        """No more comes: let go of what waits."""
        self._go(math.inf)

    def _safe(self, newest: float) -> float:
        """Samples of the first input, which has come to `newest`, may go up to this time."""
        if self.recorded:
            return max(self.sure, min(self.reach))
        safe = math.inf
        for spec, reach in zip(self.specs[1:], self.reach, strict=True):
            if spec.rate and newest - max(reach, self.first) > self.GONE:
                continue
            due = reach + 0.5 / spec.rate if spec.rate else reach
            safe = min(safe, max(due, newest - (self.WAIT if spec.rate else self.EVENT_WAIT)))
        return safe

    def _go(self, safe: float) -> None:
        while self.driver:
            block = self.driver[0]
            # times grow within a segment only, so go sample by sample at its end
            m = int(np.searchsorted(block.times, safe, "right"))
            if m == 0:
                return
            part = block.cut(0, m)
            if m == len(block):
                self.driver.pop(0)
            else:
                self.driver[0] = block.cut(m, len(block))
            self.done = float(part.times[-1])
            self.give(part, *(self._hold(i, part) for i in range(len(self.held))))

    def _hold(self, i: int, part: Block) -> Block:
        spec = self.specs[i + 1]
        times, data = self.held[i]
        empty: Any = "" if spec.dtype == "str" else math.nan
        all_times = np.concatenate([[-math.inf], *times])
        first = np.full((1, spec.n), empty, object if spec.dtype == "str" else np.float64)
        all_data = np.concatenate([first, *data])
        at = np.maximum(np.searchsorted(all_times, part.times, "right") - 1, 0)
        keep = int(at[-1])
        if keep > 0:
            self.held[i] = [all_times[keep:]], [all_data[keep:]]
        return Block(all_data[at], all_times[at], part.seq, part.segment)
