"""A simulated person who moves a cursor by thought: neurons, eye and aim, met only through LSL.

It stands for the world in a closed loop: a graph reads the neurons from an LSL stream, decodes a velocity, moves a
cursor by it (`task`), and shows that by another LSL stream; the person sees the cursor move and aims anew.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from rheobase.devices._person import SEEN, World, changes
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import Ages, fine_timer, now, wait_until
from rheobase.stream.node import Count, Fraction, NotNegative, Positive, Seed, Source, nearest

log = logging.getLogger("rheobase")

STALE = 0.5
"""s: the person rests when nothing new was to be seen for so long."""


class CursorUser(Source):
    """A simulated person in a closed loop by LSL. Gives its true intention, `wanted_x` and `wanted_y`, m/s.

    Opens the LSL stream `array` of spike counts, and looks at the LSL stream `task` (that of a `task` node, from
    which it takes the channels of `SEEN` by name). As long as there is none, the person rests. Neurons and aim are
    described in `_person.py`; the same seeds and the same sights give the same spikes.

    Writes `user.json` into the run directory when it stops: age of what is seen (from the last spike that could have
    moved the cursor to the person's reading of it, without `delay`), changes made, steps begun late.

    Errors: a step that is no whole number of samples; a wrong entry of `changes`; a task stream that lacks a channel.
    """

    task: str = "Task"
    """Name of the LSL stream of the task to look at."""
    array: str = "Array"
    """Name of the LSL stream of spike counts to open."""
    neurons: Count = 96
    """Number of neurons."""
    untuned: Fraction = 0.2
    """Share of the neurons that know nothing of the movement."""
    rate: Positive = 1000.0
    """Samples of spike counts a second, Hz."""
    step: Positive = 0.005
    """Time between two looks at the task, and two sendings of spikes, s."""
    speed: Positive = 0.2
    """Highest speed intended, m/s."""
    gain: Positive = 3.0
    """Speed intended for each metre between cursor and target, 1/s."""
    delay: NotNegative = 0.12
    """Time from the cursor's being shown to the person's seeing it, s."""
    noise: NotNegative = 0.15
    """Noise of the intended velocity, as a share of it."""
    drift: NotNegative = 0.0
    """Random walk of each preferred direction: standard deviation after a minute, degrees."""
    changes: list[dict[str, Any]] | None = None
    """What happens to the neurons, each {at: s, one of: offset (standard deviations of a channel's count in 20 ms
    bins so far), rotate (degrees), drop (share that falls silent), gain (factor of the rate); channels: numbers, or
    the share of all that is drawn (default 1)}."""
    brain: int = 1
    """Which person: seed of the neurons' tuning."""
    seed: Seed = 0
    """Seed of spikes, noise and whatever is drawn in a change."""

    def check(self) -> None:
        exact = self.step * self.rate
        if not math.isclose(exact, round(exact)) or exact < 0.5:
            raise StreamError(f"step: {self.step} s is not a whole number of samples at {self.rate} Hz")
        changes(self.changes or [], self.neurons)

    def start(self, *inputs: Spec) -> Spec:
        """Open the stream of spikes. Raises StreamError as `check` does."""
        import pylsl

        self.check()
        self.inlet: Any = None
        self.resolver: Any = None
        self.outlet: Any = None  # the one of a start before closes first
        self.shown: list[float] | None = None
        self.heard = -math.inf
        self.world, self.ages = World(self), Ages()
        self.late, self.worst = 0, 0.0
        info = pylsl.StreamInfo(
            self.array, "Spikes", self.neurons, self.rate, pylsl.cf_float32, f"rheobase-cursor-user-{self.array}"
        )
        info.set_channel_labels(list(numbered("n", self.neurons)))
        info.set_channel_units(["count"] * self.neurons)
        self.outlet = pylsl.StreamOutlet(info, max_buffered=10)
        return Spec(rate=1 / self.step, channels=("wanted_x", "wanted_y"), unit="m/s")

    def blocks(self) -> Iterator[Block | None]:
        import pylsl

        self.resolver = pylsl.ContinuousResolver("name", self.task)
        fine_timer()
        begin, k = now(), 0
        while True:
            late = wait_until(begin + (k + 1) * self.step)
            self.late += late > self.step
            self.worst = max(self.worst, late)
            counts = self.world.step(self._look()).astype(np.float32)
            self.outlet.push_chunk(counts, begin + k * self.step + np.arange(1, len(counts) + 1) / self.rate)
            yield Block(np.array([self.world.wanted]), np.array([begin + (k + 1) * self.step]), seq=k)
            k += 1

    def _look(self) -> list[float] | None:
        """What is to be seen now; None where there is nothing, or nothing new for long."""
        from pylsl.util import LostError

        if self.inlet is None:
            found = self.resolver.results()
            if not found:
                return None
            self._open(max(found, key=lambda s: s.created_at()))
        try:
            samples, times = self.inlet.pull_chunk(timeout=0.0)
        except LostError:
            self.inlet = None
            return None
        if len(times):
            self.shown, self.heard = samples[-1, self.where].astype(float).tolist(), now()
            self.ages.add(self.heard - times[-1])
        fresh = self.shown is not None and now() - self.heard <= STALE and all(map(math.isfinite, self.shown))
        return self.shown if fresh else None

    def _open(self, found: Any) -> None:
        """Raises StreamError where the stream lacks a channel."""
        import pylsl

        inlet = pylsl.StreamInlet(found, max_buflen=1, as_numpy=True)
        there = inlet.info(5.0).get_channel_labels() or []
        what = f"task: LSL stream {self.task!r}"
        if found.channel_format() == pylsl.cf_string:
            raise StreamError(f"{what} is text; it must be that of a task node")
        for name in SEEN:
            if name not in there:
                raise StreamError(f"{what} has no channel {name!r}{nearest(name, filter(None, there))}")
        self.where = [there.index(name) for name in SEEN]
        self.inlet = inlet

    @property
    def health(self) -> dict[str, Any]:
        """What the tables of a run tell of it."""
        if not hasattr(self, "ages"):
            return {}
        p50, p99 = (f"{1e3 * self.ages.quantile(q):.1f} ms" if self.ages.n else "–" for q in (0.5, 0.99))
        return {"age_p50": p50, "age_p99": p99, "changes": self.world.made, "late_steps": self.late}

    def score(self) -> dict[str, Any]:
        """How it went so far."""
        ages = {k: v if math.isfinite(v) else None for k, v in self.ages.table().items()}
        return {
            "seconds": round(self.world.t, 3),
            "seen_age_s": ages,
            "changes": self.world.made,
            "late_steps": self.late,
            "worst_lateness_s": self.worst,
        }

    def stop(self) -> None:
        if self.late:
            text = "%s: %d of %d steps began more than %g s late, the worst %.3f s: the machine is too busy"
            log.warning(text, self.name or "cursor_user", self.late, self.world.steps, self.step, self.worst)
        if self.folder is not None:
            (self.folder / "user.json").write_text(json.dumps(self.score(), indent=2) + "\n")
        self.inlet, self.resolver, self.outlet = None, None, None
