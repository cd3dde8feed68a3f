"""Time: one clock for all processes of a host, paced waiting, and the age of samples.

`now()` is LSL's clock: liblsl's `local_clock` reads the steady clock, which on Linux and macOS is what
`time.monotonic` reads (a test holds the two together), so the runtime needs no liblsl.
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Collection

import numpy as np

log = logging.getLogger("rheobase")

now = time.monotonic
"""Seconds of the LSL clock."""

SPIN = 200e-6
"""s: the last part of a wait is spun, since a sleeping thread wakes late (27 to 76 us measured)."""


def fine_timer() -> None:
    """Let this thread's sleeps end on time: timer slack 1 ns instead of 50 us (Linux; nothing elsewhere)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK


def real_time(cpu: Collection[int], priority: int) -> None:
    """Bind this thread, and those it will make, to some cores, and let it go before all others (SCHED_FIFO).

    What the system does not allow is logged, and the run goes on without.
    """
    if cpu:
        try:
            os.sched_setaffinity(0, cpu)
        except (OSError, AttributeError) as e:
            log.warning("cpu: %s: not bound to %s (%s)", threading.current_thread().name, list(cpu), _why(e))
    if priority:
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except (OSError, AttributeError) as e:
            why = f"{_why(e)}: needs CAP_SYS_NICE or `ulimit -r {priority}`"
            log.warning("priority: %s: stays on the usual scheduler (%s)", threading.current_thread().name, why)


def _why(e: Exception) -> str:
    return e.strerror or str(e) if isinstance(e, OSError) else "not on this system"


def wait_until(t: float, spin: float = SPIN) -> float:
    """Sleep, then spin, until t s of `now()`. Returns how late it is, s."""
    left = t - now()
    if left > spin:
        time.sleep(left - spin)
    while True:
        late = now() - t
        if late >= 0:
            return late


class Ages:
    """Histogram of ages, s: 1 us to 1000 s in steps of 2 %, constant memory.

    Quantiles are upper edges of their step, so they err by at most 2 %, upwards; `max` is exact.
    """

    STEP = math.log(1.02)
    LOW = 1e-6

    def __init__(self) -> None:
        self.counts = np.zeros(int(math.log(1e9) / self.STEP) + 2, np.int64)
        self.max = -math.inf
        self.n = 0

    def add(self, age: float) -> None:
        i = int(math.log(age / self.LOW) / self.STEP) + 1 if age > self.LOW else 0
        self.counts[min(i, len(self.counts) - 1)] += 1
        self.n += 1
        if age > self.max:
            self.max = age

    def quantile(self, q: float) -> float:
        """Age that a share q of the samples does not exceed, s (NaN where none came)."""
        if not self.n:
            return math.nan
        i = int(np.searchsorted(np.cumsum(self.counts), math.ceil(q * self.n)))
        return min(self.LOW * math.exp(i * self.STEP), self.max)

    def table(self) -> dict[str, float]:
        return {
            "n": self.n,
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "p99.9": self.quantile(0.999),
            "max": self.max if self.n else math.nan,
        }
