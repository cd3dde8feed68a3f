"""What every outlet does when nothing comes any more: it holds the last sample for a while, then says what is safe."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import Sink

log = logging.getLogger("rheobase")


class Outlet(Sink):
    """A sink of one input for somebody outside. Override `open`, `give` and `shut`.

    A receiver holds the last sample by itself. When none has come for `hold` s (silence, a hang above, the end of the
    run, an error), `safe` is given, and again every `REPEAT` s until samples come again or the outlet closes. Should
    the outlet's own process die, the runner gives it in its place (`rheobase.stream.parent`).
    Safe samples carry the time at which they were given, and a segment of their own.
    """

    REPEAT: ClassVar[float] = 0.5

    hold: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.2
    """Time after the last sample at which `safe` is given, s; at most 3."""
    safe: tuple[float, ...] | float | None = None
    """What to give then: a value, or one for each channel; null: nothing."""

    def __post_init__(self) -> None:
        self.last = -np.inf
        self.went_safe = self.withheld = self._extra = self._shift = self._next = self._segment = 0
        self._lock, self._closed, self._safe_now = threading.Lock(), threading.Event(), False
        self._thread: threading.Thread | None = None
        self._row: np.ndarray | None = None
        self._opened = False
        self.repeat = self.REPEAT
        self.patience = 0.2
        """How long the last word waits for somebody to hear it, s."""

    def open(self, x: Spec) -> None:
        """Make the stream known."""
        raise NotImplementedError(f"{type(self).__name__} has no open()")

    def give(self, x: Block) -> None:
        """Send samples. Called from several threads, one at a time."""
        raise NotImplementedError(f"{type(self).__name__} has no give()")

    def shut(self) -> None:
        """What was given has left; close."""
        raise NotImplementedError(f"{type(self).__name__} has no shut()")

    def start(self, *inputs: Spec) -> None:
        if len(inputs) != 1:
            raise StreamError(f"in: takes one input, got {len(inputs)}: use a node for each")
        [spec] = inputs
        self._row = self._safe_row(spec)
        self.open(spec)
        self._opened = True
        self._closed.clear()
        if self._row is not None and self._thread is None:
            self._thread = threading.Thread(target=self._guard, name=f"{self.name} hold", daemon=True)
            self._thread.start()

    def take(self, i: int, x: Block) -> None:
        if self._row is None:
            self.give(x)
            return
        with self._lock:
            if self._safe_now:
                self._safe_now = False
                self._shift += 1
            self._next, self._segment = x.seq + len(x), x.segment
            self.last = now()
            self.give(Block(x.data, x.times, x.seq + self._extra, x.segment + self._shift))

    def withhold(self, i: int, x: Block) -> None:
        """A block that came too late (`late: safe` of its process): what is safe goes out in its place."""
        if self._row is None:
            self.give(x)
            return
        with self._lock:
            self._next = x.seq + len(x)
            self.withheld += len(x)
            if not self._safe_now:
                self._give_safe()

    def stop(self) -> None:
        if not self._opened:
            return
        self._opened = False
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            time.sleep(min(max(self.last + self.hold - now(), 0.0), self.hold))
            if not self._safe_now:
                with self._lock:
                    self._give_safe()
        self.shut()

    def stand_in(self, spec: Spec, last: float) -> Outlet:
        """Another outlet in the place of this one, whose process has died: it says only what is safe, `hold` s after
        the last sample, which was at `last` s."""
        other = type(self)(**{k: getattr(self, k) for k in self.parameters()})
        other.name, other.last, other.patience = self.name, min(last, now()), 2.0
        other.repeat = 0.05  # a reader may only just be finding its way to it
        other.start(spec)
        return other

    def _safe_row(self, spec: Spec) -> np.ndarray | None:
        if self.safe is None:
            return None
        if spec.dtype == "str":
            raise StreamError("safe: is a number, and the stream is text")
        values = np.broadcast_to(self.safe, spec.n) if np.ndim(self.safe) == 0 else np.array(self.safe)
        if len(values) != spec.n:
            raise StreamError(f"safe: has {len(values)} values for {spec.n} channels")
        with np.errstate(all="ignore"):
            row = values.astype(spec.dtype)
        if spec.dtype.startswith("int") and not np.array_equal(row, values):
            raise StreamError(f"safe: {list(values)} is not of {spec.dtype}")
        return row[None]

    def _guard(self) -> None:
        """Give what is safe once nothing has come for `hold` s."""
        wait = 0.0
        while not self._closed.wait(wait):
            with self._lock:
                left = self.last + self.hold - now()
                if left <= 0:
                    self._give_safe()
            wait = left if left > 0 else self.repeat

    def _give_safe(self) -> None:
        assert self._row is not None
        if not self._safe_now:
            self._safe_now = True
            self._shift += 1
            if np.isfinite(self.last):
                self.went_safe += 1
        # an outlet that fails is told of by `take`; here there is nobody to tell
        with contextlib.suppress(Exception):
            self.give(Block(self._row, np.array([now()]), self._next + self._extra, self._segment + self._shift))
            self._extra += 1
