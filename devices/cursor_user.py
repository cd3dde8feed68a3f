"""A simulated person who moves a cursor by thought: neurons, aim and centre-out task, met only through LSL.

It plays the part of the world in a closed loop: a graph reads the neurons from one LSL stream, decodes a
velocity, sends it by another, and the person sees the cursor move and aims anew. Nothing is shared but streams.

    Array     spike counts a millisecond, one channel a neuron
    Task      where cursor and target are and what is intended (`TASK`, one sample a `step`)
    Markers   JSON: {"event": "target" | "acquired" | "timeout", "number": ..., "x": ..., "y": ...}
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pylsl
from pylsl.util import LostError

from rheobase.devices._centre_out import Vector, World
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import Ages, fine_timer, now, wait_until
from rheobase.stream.node import Count, NotNegative, Positive, Source

log = logging.getLogger("rheobase")

TASK = ("cursor_x", "cursor_y", "target_x", "target_y", "intended_x", "intended_y", "number", "held", "control")
"""Channels of the task: m, m, m, m, m/s, m/s, targets shown so far, s held, 1 where the decoder moves the cursor."""
UNITS = ("m", "m", "m", "m", "m/s", "m/s", "", "s", "")

STALE = 0.25
"""s: the cursor rests when the decoder has sent nothing for so long."""


class CursorUser(Source):
    """A simulated person in a closed loop by LSL. Gives the task stream (`TASK`) to the graph as well.

    Writes `task.json` into the run directory when it stops: targets acquired, time-outs, path efficiency, time to
    target, age of the decoded velocity when it moved the cursor, and how often it fell behind its own clock.
    """

    mode: Literal["observe", "control"] = "control"
    """observe: the cursor goes by itself and the person follows in mind; control: the decoder moves it."""
    cursor: str = "Cursor"
    """Name of the LSL stream that carries the decoded velocity (its first two channels, m/s)."""
    array: str = "Array"
    """Name of the LSL stream of spike counts it opens."""
    task: str = "Task"
    """Name of the LSL stream of the task it opens."""
    markers: str = "Markers"
    """Name of the LSL stream of markers it opens."""
    neurons: Count = 96
    """Number of neurons."""
    rate: Positive = 1000.0
    """Samples of spike counts a second, Hz."""
    step: Positive = 0.005
    """Time between two movements of the cursor, two task samples and two sendings of spikes, s."""
    speed: Positive = 0.2
    """Highest speed intended, m/s."""
    gain: Positive = 3.0
    """Speed intended for each metre between cursor and target, 1/s."""
    delay: NotNegative = 0.12
    """Time from a movement of the cursor to the person's seeing it, s."""
    noise: NotNegative = 0.15
    """Noise of the intended velocity, as a share of it."""
    hold: Positive = 0.3
    """Time to stay in a target, s."""
    patience: Positive = 5.0
    """Time until a target is given up, s."""
    brain: int = 1
    """Which person: seed of the neurons' tuning."""
    seed: int = 0
    """Seed of spikes, noise and order of targets."""

    def start(self, *inputs: Spec) -> Spec:
        """Open the streams. Raises StreamError where `step` and `rate` do not go together."""
        if not math.isclose(self.step * self.rate, round(self.step * self.rate)) or self.step * self.rate < 0.5:
            raise StreamError(f"step: {self.step} s is not a whole number of samples at {self.rate} Hz")
        self.outlets: tuple[Any, ...] = ()
        self.inlet: Any = None
        self.resolver: Any = None
        self.world = World(self)
        self.ages = Ages()
        self.steps = self.late = 0
        self.latest, self.heard = np.zeros(2), -math.inf
        self.worst = 0.0
        neurons = numbered("n", self.neurons)
        self.outlets = (
            outlet(self.array, "Spikes", self.rate, pylsl.cf_float32, neurons, ["count"] * self.neurons),
            outlet(self.task, "Task", 1 / self.step, pylsl.cf_double64, TASK, UNITS),
            outlet(self.markers, "Markers", pylsl.IRREGULAR_RATE, pylsl.cf_string, ["marker"], [""]),
        )
        return Spec(rate=1 / self.step, channels=TASK, unit="m")

    def blocks(self) -> Iterator[Block | None]:
        counts_out, task_out, markers_out = self.outlets
        if self.mode == "control":
            self.resolver = pylsl.ContinuousResolver("name", self.cursor)
        fine_timer()
        begin = now()
        markers_out.push_sample([self.world.task.event("target")], begin)
        while True:
            k = self.steps
            t = begin + (k + 1) * self.step
            late = wait_until(t)
            self.late += late > self.step
            self.worst = max(self.worst, late)
            counts, row, markers = self.world.step(self._decoded())
            self.steps += 1
            counts_out.push_chunk(counts, begin + k * self.step + np.arange(1, len(counts) + 1) / self.rate)
            task_out.push_sample(row, t)
            for marker in markers:
                markers_out.push_sample([marker], t)
            yield Block(row[None], np.array([t]), seq=k)

    def _decoded(self) -> Vector | None:
        """The newest velocity; zero where it is stale or missing, None until the first has come."""
        if self.mode == "observe":
            return None
        if self.inlet is None:
            found = self.resolver.results()
            if not found:
                return self._rest()
            info = max(found, key=lambda s: s.created_at())
            if info.channel_count() < 2 or info.channel_format() == pylsl.cf_string:
                raise StreamError(
                    f"cursor: LSL stream {self.cursor!r} must have two channels of numbers, "
                    f"velocity x and y in m/s; it has {info.channel_count()}"
                )
            self.inlet = pylsl.StreamInlet(info, max_buflen=1, as_numpy=True)
        try:
            samples, times = self.inlet.pull_chunk(timeout=0.0)
        except LostError:
            self.inlet = None
            return self._rest()
        if len(times):
            self.latest, self.heard = samples[-1, :2].astype(np.float64), now()
            self.ages.add(self.heard - times[-1])
        return self._rest() if now() - self.heard > STALE or not np.isfinite(self.latest).all() else self.latest

    def _rest(self) -> Vector | None:
        return None if math.isinf(self.heard) else np.zeros(2)

    @property
    def health(self) -> dict[str, Any]:
        """What the tables of a run tell of it."""
        return {**self.world.task.score(), "late_steps": self.late}

    def score(self) -> dict[str, Any]:
        """How it went so far."""
        ages = {k: None if not math.isfinite(v) else v for k, v in self.ages.table().items()}
        return {
            "mode": self.mode,
            "seconds": round(self.steps * self.step, 3),
            **self.world.task.score(),
            "velocity_age_s": ages,
            "late_steps": self.late,
            "worst_lateness_s": self.worst,
        }

    def stop(self) -> None:
        if self.late:
            text = "%s: %d of %d steps began more than %g s late, the worst %.3f s: the machine is too busy"
            log.warning(text, self.name or "cursor_user", self.late, self.steps, self.step, self.worst)
        if self.folder is not None:
            (self.folder / "task.json").write_text(json.dumps(self.score(), indent=2) + "\n")
        self.outlets, self.inlet, self.resolver = (), None, None


def outlet(name: str, kind: str, rate: float, form: int, channels: Sequence[str], units: Sequence[str]) -> Any:
    """An LSL outlet whose channels have names and units."""
    info = pylsl.StreamInfo(name, kind, len(channels), rate, form, f"rheobase-cursor-user-{name}")
    info.set_channel_labels(list(channels))
    info.set_channel_units(list(units))
    return pylsl.StreamOutlet(info, max_buffered=10)
