"""A simulated person at the centre-out task: neurons, aim, cursor and targets, without clock or streams.

Task and numbers (target 2.4 cm, 12.1 cm from the centre, held for 0.3 s): the Radial-8 task of Brandman et al.
2018, J. Neural Eng. 15:026007. Tuning: Moran & Schwartz 1999, J. Neurophysiol. 82:2676. Aiming by a guess of where
the delayed cursor is by now: Golub, Yu & Chase 2015, eLife 4:e10015. Noise that grows with the command: Harris &
Wolpert 1998, Nature 394:780. Smooth straight paths: Flash & Hogan 1985, J. Neurosci. 5:1688.
"""

from __future__ import annotations

import json
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rheobase.devices.cursor_user import CursorUser

Vector = NDArray[np.float64]

TARGET, REACH = 0.024, 0.121
"""m: diameter of a target; distance from the centre to the others."""
SCREEN = 0.16
"""m: half the side of the square that the cursor cannot leave."""


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
            "path_efficiency": round(float(np.mean(self.efficiency)), 4) if self.acquired else None,
            "time_to_target_s": round(float(np.mean(self.times)), 4) if self.acquired else None,
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
        aimed: Vector = v * min(1.0, self.speed / max(math.hypot(*v), 1e-12))
        return aimed

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
