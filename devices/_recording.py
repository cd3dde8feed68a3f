"""A recording to look at: any time of it is put before the panels as if it had just come."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

import numpy as np

from rheobase.devices._feed import IRREGULAR, Feed
from rheobase.devices.replay import Part, Replay
from rheobase.stream.block import Block
from rheobase.stream.clock import now

LONG = 4_000_000
"""Values of a stream that are read at once, at most; of a longer time every so many samples stand for all."""


class Recording:
    """Streams of a file, and the feeds that they fill up to time `at`.

    begin, end  s, times of the first and the last sample
    at          s, what was last put before the panels
    playing     whether `tick` goes on in real time
    """

    def __init__(self, sources: Sequence[Replay], feeds: Sequence[Feed], back: float) -> None:
        self.parts, self.feeds, self.back = [r.parts[0] for r in sources], feeds, back  # a source has one file here
        for feed in feeds:
            feed.from_file = True
        times = [p.times(0, p.stream.n) for p in self.parts]
        self.order = [np.maximum.accumulate(t) if len(t) else t for t in times]  # a clock may have been set back
        known = [t for t in self.order if len(t)]
        self.begin = min((float(t[0]) for t in known), default=0.0)
        self.end = max((float(t[-1]) for t in known), default=0.0)
        self.at, self.playing, self.ticked = self.begin, False, now()

    def seek(self, t: float) -> None:
        """All up to t s, as far back as a window shows."""
        self.at = min(max(t, self.begin), self.end)
        for p, feed, order in zip(self.parts, self.feeds, self.order, strict=True):
            feed.forget()
            b = int(np.searchsorted(order, self.at, side="right"))
            a = int(np.searchsorted(order, self.at - 1.2 * self.back)) if feed.spec.rate else max(0, b - IRREGULAR)
            self._take(p, feed, a, b)

    def tick(self) -> None:
        """Go on in real time, if it plays."""
        before, self.ticked = self.ticked, now()
        if not self.playing:
            return
        t = min(self.at + self.ticked - before, self.end)
        for p, feed, order in zip(self.parts, self.feeds, self.order, strict=True):
            a, b = (int(k) for k in np.searchsorted(order, [self.at, t], side="right"))
            self._take(p, feed, a, b)
        self.at = t
        self.playing = t < self.end

    def _take(self, p: Part, feed: Feed, a: int, b: int) -> None:
        """Samples a to b of a stream, cut where its segments are."""
        starts = [i for i, _, _ in p.starts]
        thin = max(1, (b - a) * feed.spec.n // LONG)
        cuts = [a, *(i for i in starts if a < i < b), b]
        for first, last in itertools.pairwise(cuts):
            _, _, segment = p.starts[max(bisect.bisect_right(starts, first) - 1, 0)]
            for k in range(first, last, step := max(1, LONG // feed.spec.n)):
                end = min(k + step, last)
                data = p.stream.data(k, end)[:, p.columns][::thin]
                feed.take(Block(data, p.times(k, end)[::thin], feed.following, segment))
