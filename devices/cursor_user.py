"""A simulated person who moves a cursor by thought: neurons, aim and centre-out task, met only through LSL.

It plays the part of the world in a closed loop: a graph reads the neurons from one LSL stream, decodes a
velocity, sends it by another, and the person sees the cursor move and aims anew. Nothing is shared but streams.

    Array     spike counts a millisecond, one channel a neuron
    Task      where cursor and target are and what is intended (`TASK`, one sample a `step`)
    Markers   JSON: {"event": "target" | "acquired" | "timeout", "number": ..., "x": ..., "y": ...}

Task and numbers (target 2.4 cm, 12.1 cm from the centre, held for 0.3 s): the Radial-8 task of Brandman et al.
2018, J. Neural Eng. 15:026007. Tuning: Moran & Schwartz 1999, J. Neurophysiol. 82:2676. Aiming by a guess of where
the delayed cursor is by now: Golub, Yu & Chase 2015, eLife 4:e10015. Noise that grows with the command: Harris &
Wolpert 1998, Nature 394:780. Smooth straight paths: Flash & Hogan 1985, J. Neurosci. 5:1688.
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pylsl
from numpy.typing import NDArray

from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import Ages, fine_timer, now, wait_until
from rheobase.stream.node import Count, NotNegative, Positive, Source

Vector = NDArray[np.float64]
log = logging.getLogger("rheobase")

TASK = ("cursor_x", "cursor_y", "target_x", "target_y", "intended_x", "intended_y", "number", "held", "control")
"""Channels of the task: m, m, m, m, m/s, m/s, targets shown so far, s held, 1 where the decoder moves the cursor."""
UNITS = ("m", "m", "m", "m", "m/s", "m/s", "", "s", "")

TARGET, REACH = 0.024, 0.121
"""m: diameter of a target; distance from the centre to the others."""
SCREEN = 0.16
"""m: half the side of the square that the cursor cannot leave."""
STALE = 0.25
"""s: the cursor rests when the decoder has sent nothing for so long."""


class Neurons:
    """Cosine-tuned Poisson neurons: rate_i = max(0, b_i + m_i |v| / v_max cos(angle of v - preferred_i)), Hz."""

    def __init__(self, n: int, top: float, brain: int) -> None:
        rng = np.random.default_rng(brain)
        self.baseline = rng.uniform(5.0, 20.0, n)
        preferred, depth = rng.uniform(-math.pi, math.pi, n), rng.uniform(2.0, 14.0, n)
        self.tuning = np.stack([np.cos(preferred), np.sin(preferred)]) * depth / top

    def rates(self, v: Vector) -> Vector:
        """Velocity (2,) m/s -> (n,) Hz."""
        return np.maximum(self.baseline + v @ self.tuning, 0.0)


class CentreOut:
    """Centre-out-and-back: the cursor, the target, and how well it went.

    A target is acquired when the cursor's centre has stayed inside it for `hold` s; it times out after `patience` s.
    Efficiency of a path is the straight distance from where the cursor was when the target came to where it
    was when it was acquired, over the length of the way it took (the hold included).
    """

    def __init__(self, hold: float, patience: float, rng: np.random.Generator) -> None:
        self.hold, self.patience, self.rng = hold, patience, rng
        self.cursor = np.zeros(2)
        self.target = np.zeros(2)
        self.order: list[int] = []
        self.number = self.acquired = self.timeouts = 0
        self.efficiency: list[float] = []
        self.times: list[float] = []
        self.next_target()

    def next_target(self) -> str:
        """Out to one of eight (all eight before any comes twice), then back."""
        if self.number % 2:
            self.target = np.zeros(2)
        else:
            self.order = self.order or list(self.rng.permutation(8))
            angle = self.order.pop() * math.pi / 4
            self.target = REACH * np.array([math.cos(angle), math.sin(angle)])
        self.number += 1
        self.begin, self.path, self.spent, self.held = self.cursor.copy(), 0.0, 0.0, 0.0
        return self.event("target")

    def event(self, what: str) -> str:
        x, y = (round(float(c), 4) for c in self.target)
        return json.dumps({"event": what, "number": self.number, "x": x, "y": y})

    def move(self, v: Vector, dt: float) -> list[str]:
        """Move the cursor at v m/s for dt s; what happened, as markers."""
        before = self.cursor
        self.cursor = np.clip(before + v * dt, -SCREEN, SCREEN)
        self.path += math.dist(before, self.cursor)
        self.spent += dt
        self.held = self.held + dt if math.dist(self.cursor, self.target) <= TARGET / 2 else 0.0
        if self.held >= self.hold - 1e-9:
            self.acquired += 1
            self.times.append(self.spent)
            self.efficiency.append(math.dist(self.begin, self.cursor) / self.path if self.path > 0 else 1.0)
            return [self.event("acquired"), self.next_target()]
        if self.spent >= self.patience - 1e-9:
            self.timeouts += 1
            return [self.event("timeout"), self.next_target()]
        return []

    def score(self) -> dict[str, Any]:
        return {
            "targets": self.acquired + self.timeouts,
            "acquired": self.acquired,
            "timeouts": self.timeouts,
            "path_efficiency": float(np.mean(self.efficiency)) if self.acquired else None,
            "time_to_target_s": float(np.mean(self.times)) if self.acquired else None,
        }


class Person:
    """Aims. `observe`: follows in mind a cursor that goes by itself. `control`: steers what it sees."""

    def __init__(self, user: CursorUser, task: CentreOut, rng: np.random.Generator) -> None:
        self.task, self.rng = task, rng
        self.speed, self.gain, self.noise, self.dt = user.speed, user.gain, user.noise, user.step
        delay = round(user.delay / user.step)
        self.seen: deque[tuple[Vector, Vector]] = deque(maxlen=delay + 1)
        self.sent: deque[Vector] = deque(maxlen=delay)
        self.tremor = np.zeros(2)
        self.intended = np.zeros(2)

    def follow(self) -> Vector:
        """Velocity, m/s, of a minimum-jerk path from where the target's trial began, at most `speed`."""
        task = self.task
        way = task.target - task.begin
        last = 1.875 * math.hypot(*way) / self.speed
        if last == 0.0 or task.spent >= last:
            return np.zeros(2)

        def done(t: float) -> float:
            u = min(t / last, 1.0)
            return u**3 * (10.0 - 15.0 * u + 6.0 * u * u)

        return way * ((done(task.spent + self.dt) - done(task.spent)) / self.dt)

    def steer(self) -> Vector:
        """Towards the target from where the cursor, seen late, ought to be by now; at most `speed` m/s."""
        cursor, target = self.seen[0]
        v = self.gain * (target - cursor - self.dt * np.sum(self.sent, axis=0))
        return v * min(1.0, self.speed / max(math.hypot(*v), 1e-12))

    def aim(self, control: bool) -> Vector:
        """What it intends now, m/s."""
        self.seen.append((self.task.cursor, self.task.target))
        v = self.steer() if control else self.follow()
        keep = math.exp(-self.dt / 0.1)
        self.tremor = keep * self.tremor + math.sqrt(1.0 - keep**2) * self.rng.standard_normal(2)
        self.intended = v + self.noise * math.hypot(*v) * self.tremor
        self.sent.append(self.intended)
        return self.intended


class World:
    """Neurons, person and task, one `step` at a time, without clock or stream: the same seed gives the same spikes."""

    def __init__(self, user: CursorUser) -> None:
        spikes, aim, targets = (np.random.default_rng(s) for s in np.random.SeedSequence(user.seed).spawn(3))
        self.control = user.mode == "control"
        self.dt, self.rate, self.spikes = user.step, user.rate, spikes
        self.task = CentreOut(user.hold, user.patience, targets)
        self.neurons = Neurons(user.neurons, user.speed, user.brain)
        self.person = Person(user, self.task, aim)
        self.samples = round(user.step * user.rate)

    def step(self, decoded: Vector | None) -> tuple[NDArray[np.float32], Vector, list[str]]:
        """The decoder's velocity (2,) m/s (None: there is no decoder yet, and no trial goes on) -> counts
        (samples, neurons), task (9,), markers."""
        task = self.task
        intended = self.person.aim(self.control)
        expected = np.broadcast_to(self.neurons.rates(intended) / self.rate, (self.samples, len(self.neurons.baseline)))
        counts = self.spikes.poisson(expected).astype(np.float32)
        markers: list[str] = []
        if not self.control:
            markers = task.move(self.person.follow(), self.dt)
        elif decoded is not None:
            markers = task.move(decoded, self.dt)
        row = np.array([*task.cursor, *task.target, *intended, task.number, task.held, float(self.control)])
        return counts, row, markers


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
        self.stop_streams()
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
        except pylsl.LostError:
            self.inlet = None
            return self._rest()
        if len(times):
            self.latest, self.heard = samples[-1, :2].astype(np.float64), now()
            self.ages.add(self.heard - times[-1])
        return self._rest() if now() - self.heard > STALE or not np.isfinite(self.latest).all() else self.latest

    def _rest(self) -> Vector | None:
        return None if math.isinf(self.heard) else np.zeros(2)

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
        self.stop_streams()

    def stop_streams(self) -> None:
        self.outlets: tuple[Any, ...] = ()
        self.inlet: Any = None
        self.resolver: Any = None


def outlet(name: str, kind: str, rate: float, form: int, channels: Sequence[str], units: Sequence[str]) -> Any:
    """An LSL outlet whose channels have names and units."""
    info = pylsl.StreamInfo(name, kind, len(channels), rate, form, f"rheobase-cursor-user-{name}")
    info.set_channel_labels(list(channels))
    info.set_channel_units(list(units))
    return pylsl.StreamOutlet(info, max_buffered=10)
