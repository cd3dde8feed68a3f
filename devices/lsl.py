"""A live stream of the Lab Streaming Layer, its times on this host's clock.

liblsl measures the offset between the sender's clock and ours again and again; `Offset` makes of these estimates a
correction that runs on without steps. What is a segment: the time since the outlet (re)started, up to a gap in a
regular stream or a jump of the sender's clock.
"""

from __future__ import annotations

import itertools
import logging
import platform
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pylsl
from numpy.typing import NDArray
from pylsl.util import LostError
from pylsl.util import TimeoutError as NoAnswer

from rheobase.devices._lsl_info import device, spec_of, unchanged
from rheobase.devices._offset import Offset
from rheobase.devices._stamps import Stamps
from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import NotNegative, Positive, Source, nearest

log = logging.getLogger("rheobase")

PROPERTIES = ("name", "type", "source_id", "hostname", "session_id")
IDLE = 0.1
"""s: the longest wait for a sample before the loop looks about."""
QUIET = 1.0
"""s without a sample after which we look whether the stream is still there."""
STALE = 0.5
"""s without a sample after which a regular stream is stale, and not yet lost."""
CHECK = 0.5
"""s between two looks at what liblsl says about the sender's clock."""


class Lsl(Source):
    """An LSL inlet.

    Samples that arrive are never thrown away; where the outlet restarts (same properties), the stream goes on in a
    new segment. Where only another device has these properties (another source_id or host), it goes on with that one:
    log and `note` say which, and from which segment on. `health` counts how often it was lost, segments, and samples
    with a value that is not finite. `state` is connecting, live, stale or lost, each change in the log; `note` also
    says where its stamps are not when samples were taken.

    Raises StreamError when no such stream is found (it names those that are there), when the stream is not what
    `channels` and `rate` expect, when it comes back with other channels, rate or type, and when it stays away for
    `lost` s.
    """

    stream: dict[str, str]
    """What to look for: name, type, source_id, hostname, session_id, one or several."""
    wait: Positive = 10.0
    """How long to look for it, s."""
    channels: tuple[str, ...] | int | None = None
    """Channels it must have: their names, or how many."""
    rate: NotNegative = 0.0
    """Sampling rate it must have, Hz; 0: any."""
    gap: Positive = 0.1
    """Times of a regular stream that are further apart than this and one interval start a new segment, s."""
    lost: NotNegative = 0.0
    """Gone for longer than this is an error, s; 0: wait for it for ever, with a warning in the log. An irregular
    stream may be silent: it has to be asked for, which takes up to 3 s more."""

    def check(self) -> None:
        for key in self.stream:
            if key not in PROPERTIES:
                raise StreamError(f"stream: unknown property {key!r}{nearest(key, PROPERTIES)}")
        if not self.stream:
            raise StreamError(f"stream: say which one, by {', '.join(PROPERTIES)}")

    def start(self, *inputs: Spec) -> Spec:
        self.check()
        self.lock, self.timed, self.fresh = threading.Lock(), threading.Event(), True
        self.stop()
        self.words = " and ".join(f"{k} {v!r}" for k, v in self.stream.items())
        self.health = {"lost": 0, "segments": 0, "nonfinite": 0}
        self.state, self.odd, self.other = "connecting", "", ""
        found = self._find()
        self.device = device(found)
        self._open(found)
        try:
            self.spec = spec_of(self.inlet.info(self.wait))
        except (LostError, NoAnswer):
            raise StreamError(f"stream: LSL stream with {self.words} vanished while it was opened") from None
        self._expect(self.spec)
        self.ended = threading.Event()
        threading.Thread(target=self._keep_time, args=(self.ended,), name=f"{self.name} clock", daemon=True).start()
        return self.spec

    @property
    def note(self) -> str:
        return "; ".join(filter(None, (self.odd, self.other)))

    def stop(self) -> None:
        if ended := getattr(self, "ended", None):
            ended.set()

    def blocks(self) -> Iterator[Block | None]:
        seq, last = 0, -np.inf
        most = max(1024, int(self.spec.rate * IDLE))
        self.heard, self.stamped = now(), Stamps(self.spec.rate)
        while not self.ended.is_set():
            data, stamps = self._pull(most)
            if not (len(stamps) and self.uid):
                self._look()
            self._change(len(stamps))
            if not len(stamps):
                yield None
                continue
            self.heard, self.gone = now(), False
            while not self.timed.wait(IDLE):
                if now() - self.heard > self.wait:
                    raise StreamError(
                        f"LSL stream with {self.words}: its host does not answer what time it is there; "
                        "are the UDP ports of LSL (16572-16604) closed?"
                    )
                yield None
            with self.lock:
                times = self.offset.times(stamps)
                fresh, self.fresh = self.fresh, False
            if data.dtype.kind == "f" and not (finite := np.isfinite(data)).all():
                self.health["nonfinite"] += int((~finite.all(axis=1)).sum())
            cuts = self._gaps(times, last)
            if (fresh or cuts) and not self.stamped.done:
                self.stamped = Stamps(self.spec.rate)
            if said := self.stamped.look(times, self.heard):
                self.odd = said
                log.warning("%s: LSL stream with %s: %s", self.name, self.words, said)
            if fresh and not cuts:
                cuts = [0]
            last = times[-1]
            for a, b in itertools.pairwise([*({0} - {*cuts}), *cuts, len(times)]):
                self.health["segments"] += a in cuts
                yield Block(data[a:b], times[a:b], seq, self.health["segments"] - 1)
                seq += b - a

    def _change(self, n: int) -> None:
        """The state, after n samples have come."""
        due = max(STALE, 3 / self.spec.rate) if self.spec.rate else np.inf
        state = "live" if n else "lost" if self.gone or self.broken else self.state
        if state == "live" and not n and now() - self.heard > due:
            state = "stale"
        if state == "stale" != self.state:
            log.warning("%s: LSL stream with %s is stale", self.name, self.words)
        self.state = state

    def _gaps(self, times: NDArray[np.float64], last: float) -> list[int]:
        """Where a new segment starts because of the times alone."""
        if not self.spec.rate:
            return []
        most = self.gap + 1 / self.spec.rate
        cuts = [] if -self.gap <= times[0] - last <= most else [0]
        if len(times) > 1:
            step = np.diff(times)
            cuts += (np.flatnonzero((step > most) | (step < -self.gap)) + 1).tolist()
        return cuts

    def _find(self) -> Any:
        """The stream, as soon as it is there."""
        resolver = pylsl.ContinuousResolver(forget_after=2 * QUIET)
        deadline = now() + self.wait
        pause = threading.Event()
        while True:
            seen = resolver.results()
            if found := [i for i in seen if self._fits(i)]:
                break
            if now() > deadline:
                near = [nearest(v, {getattr(i, k)() for i in seen}) for k, v in self.stream.items()]
                near = [w for w in near if "did you mean" in w][:1]
                there = ", ".join(f"{i.name()!r} ({i.type()}, {i.channel_count()} channels)" for i in seen[:20])
                raise StreamError(
                    f"stream: no LSL stream with {self.words} within {self.wait:g} s{''.join(near)}"
                    f"; there is {there or 'none at all'}"
                )
            pause.wait(0.01)
        if len(found) > 1:
            log.warning("%s: there are %d LSL streams with %s; taking the newest", self.name, len(found), self.words)
        return max(found, key=lambda i: i.created_at())

    def _fits(self, info: Any) -> bool:
        return all(getattr(info, key)() == value for key, value in self.stream.items())

    def _expect(self, spec: Spec) -> None:
        what = f"LSL stream with {self.words}"
        n = self.channels if isinstance(self.channels, int) else len(self.channels or spec.channels)
        if n != spec.n:
            raise StreamError(f"channels: {what} has {spec.n} channels, not {n}")
        for c in self.channels if isinstance(self.channels, tuple) else ():
            if c not in spec.channels:
                raise StreamError(f"channels: {what} has no channel {c!r}{nearest(c, spec.channels)}")
        if isinstance(self.channels, tuple) and self.channels != spec.channels:
            raise StreamError(f"channels: {what} has them in this order: {', '.join(spec.channels)}")
        if self.rate and not np.isclose(self.rate, spec.rate):
            raise StreamError(f"rate: {what} has {spec.rate:g} Hz, not {self.rate:g} Hz")

    def _open(self, info: Any) -> None:
        """Make ready for an outlet; the first pull opens its stream, so that nothing of before lies about. What
        comes from it is a new segment, on a clock still to be compared with ours."""
        # recover=True keeps what has arrived when the connection breaks; without it liblsl drops that
        self.inlet = pylsl.StreamInlet(info, recover=True, as_numpy=True)
        self.uid, self.here = info.uid(), info.hostname() == platform.node()
        self.resolver: Any = None
        self.broken = self.gone = False
        self._new_clock()

    def _new_clock(self) -> None:
        with self.lock:
            self.offset, self.fresh = Offset(self.here), True
            self.timed.clear()

    def _pull(self, most: int) -> tuple[Array, NDArray[np.float64]]:
        try:
            data, stamps = self.inlet.pull_chunk(IDLE, 1)
            if n := self.inlet.samples_available():
                more, later = self.inlet.pull_chunk(0.0, min(n, most))
                data, stamps = np.concatenate([data, more]), np.concatenate([stamps, later])
        except LostError:  # liblsl does not look for an outlet without source_id again
            self.broken = True
            self.ended.wait(IDLE)
            return np.empty((0, self.spec.n)), np.empty(0)
        if self.inlet.was_clock_reset():  # liblsl has found the restarted outlet; its samples come next
            self.health["lost"] += not self.gone
            self.uid = ""
            self._new_clock()
        if self.spec.dtype == "str":
            data = np.array([[v.decode(errors="replace") for v in row] for row in data], object)
        return data, stamps

    def _look(self) -> None:
        """Nothing comes, or from an outlet that we do not know: what is there?"""
        quiet = now() - self.heard
        if quiet < QUIET and self.uid and not self.broken:
            return
        if not self.resolver:
            self.resolver = pylsl.ContinuousResolver(forget_after=2 * QUIET)
            if not self.spec.rate:  # it may well have nothing to say: only no answer counts, from now on
                self.heard, quiet = now(), 0.0
        there = {i.uid(): i for i in self.resolver.results() if self._fits(i)}
        if there and self.uid not in there:
            id_, host = self.device
            info = max(there.values(), key=lambda i: (i.source_id() == id_, i.hostname() == host, i.created_at()))
            back = info.source_id() == id_
            late = self.broken or quiet > 3 * QUIET  # liblsl has had its time to find it by itself
            if (back or late) and self._same(info):
                if not self.uid and back:
                    self.uid = info.uid()
                    self._follow(info)
                elif late:
                    self.health["lost"] += not self.gone
                    self._open(info)
                    self._follow(info)
                    return
        if self.uid in there and not self.spec.rate:
            self.heard = now()  # there, with nothing to say
        elif quiet > 2 * QUIET and not self.gone:
            self.gone = True
            self.health["lost"] += 1
            log.warning("%s: nothing comes from LSL stream with %s; waiting for it", self.name, self.words)
        if self.lost and quiet > self.lost + (0 if self.spec.rate else 2 * QUIET):
            raise StreamError(f"LSL stream with {self.words} has been gone for {quiet:.1f} s")

    def _same(self, info: Any) -> bool:
        """Whether an outlet can go on where the other ended; False: it has gone again."""
        try:
            new = spec_of(pylsl.StreamInlet(info).info(self.wait))
        except (LostError, NoAnswer):
            return False
        unchanged(new, self.spec, f"LSL stream with {self.words}")
        return True

    def _follow(self, info: Any) -> None:
        """The stream goes on from this outlet: say so where it is of another device than before."""
        if device(info) != self.device:
            (new, here), (old, there) = device(info), self.device
            self.device = new, here
            segment = self.health["segments"] - (not self.fresh)
            self.other = f"from segment {segment} on from source_id {new!r} on {here}, before from {old!r} on {there}"
            log.warning("%s: LSL stream with %s goes on from another device: %s", self.name, self.words, self.other)

    def _keep_time(self, ended: threading.Event) -> None:
        while not ended.wait(CHECK if self.timed.is_set() else 0.01):
            inlet, offset = self.inlet, self.offset
            try:
                estimate = inlet.time_correction(2.0)
            except (LostError, NoAnswer):
                continue
            with self.lock:
                if offset is self.offset:  # else it is that of an outlet that is no more
                    self.fresh |= offset.measured(now(), estimate)
                    self.timed.set()
