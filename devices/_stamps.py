"""Whether a source says when its samples were taken, by the stamps that it gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FAR = 86400.0
"""s: stamps that are further from now than this are of no clock of this host."""


class Stamps:
    """Looks at the first `ENOUGH` stamps of a stream, once; `said` is what is wrong with them, in a line.

    - of another clock: a day and more from now (seconds since 1970, most often);
    - made on arrival: many samples carry one stamp, or they lie off a straight line by more than half an interval
      (a device's own clock keeps far closer; lost samples are no jitter, so the median of |residuals| counts).
    """

    ENOUGH = 500

    def __init__(self, rate: float) -> None:
        self.rate, self.said, self.done = rate, "", False
        self._seen: list[NDArray[np.float64]] = []
        self._n = 0

    def look(self, times: NDArray[np.float64], now: float) -> str:
        """What is wrong, when it is first known; else nothing."""
        if self.done:
            return ""
        if abs(now - float(times[-1])) > FAR:
            self.done = True
            epoch = abs(float(times[-1])) > 1e9
            what = "seconds since 1970" if epoch else "of a clock that is not this host's"
            self.said = f"its stamps are {what}, not of LSL's clock: ages mean nothing"
            return self.said
        self._seen.append(times)
        self._n += len(times)
        if self._n < self.ENOUGH:
            return ""
        self.done = True
        self.said = self._judge(np.concatenate(self._seen)) if self.rate else ""
        self._seen.clear()
        return self.said

    def _judge(self, t: NDArray[np.float64]) -> str:
        step = np.diff(t)
        same = float(np.mean(step == 0))
        if same > 0.1:
            return f"{same:.0%} of its samples carry the stamp of the one before: made on arrival, in chunks"
        k = np.arange(len(t))
        line = np.median(t - k / self.rate)
        off = float(np.median(np.abs(t - k / self.rate - line)))
        slope, start = np.polyfit(k, t, 1)
        off = min(off, float(np.median(np.abs(t - start - slope * k))))
        if off > 0.5 / self.rate:
            return f"its stamps lie off their line by {off * 1e3:.1f} ms: made on arrival?"
        return ""
