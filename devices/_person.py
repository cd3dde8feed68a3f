"""A simulated person in a closed loop, without clock or streams: neurons, how these change, eye and aim.

Tuning: Moran & Schwartz 1999, J. Neurophysiol. 82:2676. Aiming by a guess of where the delayed cursor is by now:
Golub, Yu & Chase 2015, eLife 4:e10015. Noise that grows with the command: Harris & Wolpert 1998, Nature 394:780.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import StreamError
from rheobase.stream.node import nearest

if TYPE_CHECKING:
    from rheobase.devices.cursor_user import CursorUser

Vector = NDArray[np.float64]

SEEN = ("cursor_x", "cursor_y", "target_x", "target_y", "assist")
"""Channels of the task that the person looks at: m, m, m, m, share of the help (1: open loop). Not what the task takes
for intended: that is the decoder's label, and nobody sees it."""
GLANCE = 0.04
"""s over which the velocity of a cursor is seen."""
KINDS = ("offset", "rotate", "drop", "gain")
BIN = 0.02
"""s: an offset is in standard deviations of a channel's count in bins of this width."""
WANDER = 1.0
"""s between two steps of the random walk of the preferred directions."""


class Change(NamedTuple):
    """What happens to the neurons at `at` s: `kind` (of KINDS) by `value`.

    channels  their numbers, or the share of all that is drawn
    """

    at: float
    kind: str
    value: float
    channels: tuple[int, ...] | float = 1.0


def changes(given: Sequence[Mapping[str, Any]], neurons: int) -> list[Change]:
    """The `changes` of a config, in the order of time. Raises StreamError that names the entry and the key."""
    found = []
    for k, words in enumerate(given):
        try:
            found.append(_change(words, neurons))
        except StreamError as e:
            raise StreamError(f"changes[{k}]: {e}") from None
    return sorted(found, key=lambda c: c.at)


def _change(words: Mapping[str, Any], neurons: int) -> Change:
    if not isinstance(words, Mapping):
        raise StreamError(f"must be a table such as {{at: 60, rotate: 60}}, got {words!r}")
    for key in words:
        if key not in (*KINDS, "at", "channels"):
            raise StreamError(f"unknown key {key!r}{nearest(str(key), (*KINDS, 'at', 'channels'))}")
    kinds = [k for k in KINDS if k in words]
    if len(kinds) != 1:
        raise StreamError(f"needs exactly one of {', '.join(KINDS)}, got {', '.join(kinds) or 'none'}")
    if "at" not in words:
        raise StreamError("needs 'at', s")
    kind = kinds[0]
    at, value = _number("at", words["at"]), _number(kind, words[kind])
    if at < 0 or (kind == "gain" and value < 0):
        raise StreamError(f"{'at' if at < 0 else kind}: must not be negative, got {min(at, value):g}")
    if kind == "drop" and not 0 <= value <= 1:
        raise StreamError(f"drop: must be a share from 0 to 1, got {value:g}")
    which = words.get("channels", 1.0)
    if not isinstance(which, Sequence) or isinstance(which, str):
        share = _number("channels", which)
        if not 0 <= share <= 1:
            raise StreamError(f"channels: must be a list of numbers, or a share from 0 to 1, got {which!r}")
        return Change(at, kind, value, share)
    for c in which:
        if not isinstance(c, int) or isinstance(c, bool) or not 0 <= c < neurons:
            raise StreamError(f"channels: {c!r} is not one of the {neurons} neurons (0 to {neurons - 1})")
    return Change(at, kind, value, tuple(which))


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise StreamError(f"{key}: must be a finite number, got {value!r}")
    return float(value)


class Neurons:
    """Cosine-tuned neurons; with v the intended velocity, `top` the highest speed, p_i the preferred direction,

        rate_i = g_i max(0, b_i + m_i |v| / top cos(angle of v - p_i) + s_i |v| / top)        Hz

    b_i from 5 to 20, m_i from 2 to 14, s_i from 0 to 4 Hz, even draws of the seed `brain`; a share `untuned` has
    m_i = s_i = 0. g_i is 1 until a change says otherwise.
    """

    def __init__(self, n: int, untuned: float, top: float, brain: int) -> None:
        rng = np.random.default_rng(brain)
        self.baseline = rng.uniform(5.0, 20.0, n)
        preferred, depth = rng.uniform(-math.pi, math.pi, n), rng.uniform(2.0, 14.0, n)
        push = rng.uniform(0.0, 4.0, n)
        still = rng.permutation(n)[: round(untuned * n)]
        depth[still] = push[still] = 0.0
        self.x, self.y = np.cos(preferred) * depth / top, np.sin(preferred) * depth / top
        self.push, self.gain = push / top, np.ones(n)

    def rates(self, vx: float, vy: float) -> Vector:
        """Velocity, m/s -> (n,) Hz."""
        drive = self.baseline + vx * self.x + vy * self.y + math.hypot(vx, vy) * self.push
        return np.maximum(drive, 0.0) * self.gain

    def rotate(self, angle: Vector | float, at: Any = slice(None)) -> None:
        """Turn preferred directions by an angle, rad."""
        c, s = np.cos(angle), np.sin(angle)
        x, y = self.x[at], self.y[at]
        self.x[at], self.y[at] = c * x - s * y, s * x + c * y

    def informative(self) -> NDArray[np.int64]:
        """Numbers of the neurons, the deepest tuning beside its own noise first: m_i / sqrt(b_i)."""
        return np.argsort(-np.hypot(self.x, self.y) * self.gain / np.sqrt(self.baseline), kind="stable")


class Person:
    """Sees the task `delay` s late and aims.

    Closed loop: v = gain (target - cursor as it ought to be by now); that is the cursor seen and all that was
    intended since. Open loop: the velocity of the cursor seen, over GLANCE s. In both, at most `speed`, and then
    v + noise |v| (a random pair of unit variance that is remembered for 0.1 s). Nothing seen: rest.
    """

    def __init__(self, user: CursorUser, rng: np.random.Generator) -> None:
        self.speed, self.gain, self.noise, self.dt, self.rng = user.speed, user.gain, user.noise, user.step, rng
        delay = round(user.delay / user.step)
        self.seen: deque[Sequence[float] | None] = deque(maxlen=delay + 1)
        self.sent: deque[tuple[float, float]] = deque(maxlen=delay)
        self.past: deque[tuple[float, float]] = deque(maxlen=max(1, round(GLANCE / user.step)) + 1)
        self.tremor = (0.0, 0.0)
        self.keep = math.exp(-self.dt / 0.1)

    def aim(self, row: Sequence[float] | None) -> tuple[float, float]:
        """What is to be seen now (`SEEN`) -> what is intended now, m/s."""
        self.seen.append(row)
        vx, vy = self._steer(self.seen[0])
        keep, shake = self.keep, math.sqrt(1.0 - self.keep**2)
        a, b = self.rng.standard_normal(2).tolist()
        self.tremor = keep * self.tremor[0] + shake * a, keep * self.tremor[1] + shake * b
        size = self.noise * math.hypot(vx, vy)
        wanted = vx + size * self.tremor[0], vy + size * self.tremor[1]
        self.sent.append(wanted)
        return wanted

    def _steer(self, row: Sequence[float] | None) -> tuple[float, float]:
        if row is None:
            self.past.clear()
            return 0.0, 0.0
        x, y, to_x, to_y, assist = row
        self.past.append((x, y))
        if assist == 1.0:
            span = self.dt * max(len(self.past) - 1, 1)
            vx, vy = (x - self.past[0][0]) / span, (y - self.past[0][1]) / span
        else:
            vx = self.gain * (to_x - x - self.dt * sum(v[0] for v in self.sent))
            vy = self.gain * (to_y - y - self.dt * sum(v[1] for v in self.sent))
        slower = min(1.0, self.speed / max(math.hypot(vx, vy), 1e-12))
        return vx * slower, vy * slower


class World:
    """Person and neurons, a `step` at a time: the same seed and the same sights give the same spikes."""

    def __init__(self, user: CursorUser) -> None:
        spikes, aim, drawn = (np.random.default_rng(s) for s in np.random.SeedSequence(user.seed).spawn(3))
        self.dt, self.rate, self.drift = user.step, user.rate, math.radians(user.drift)
        self.samples = round(user.step * user.rate)
        self.neurons = Neurons(user.neurons, user.untuned, user.speed, user.brain)
        self.person = Person(user, aim)
        self.pending = changes(user.changes or [], user.neurons)
        self.spikes, self.drawn = spikes, drawn
        self.wanted = (0.0, 0.0)
        self.steps = self.made = 0
        self.offset = False
        self.wandered = 0.0
        n = user.neurons
        self.added, self.owed = np.zeros(n), np.zeros(n)
        self.sum, self.square = np.zeros(n), np.zeros(n)

    @property
    def t(self) -> float:
        """s since the beginning."""
        return self.steps * self.dt

    def step(self, row: Sequence[float] | None) -> Vector:
        """What is to be seen of the task (`SEEN`; None: nothing) -> spike counts (samples, neurons)."""
        while self.pending and self.pending[0].at <= self.t + 1e-9:
            self.change(self.pending.pop(0))
        if self.drift and self.t - self.wandered >= WANDER:
            self.wandered += WANDER
            sd = self.drift * math.sqrt(WANDER / 60.0)
            self.neurons.rotate(sd * self.drawn.standard_normal(len(self.added)))
        self.wanted = self.person.aim(row)
        rates = self.neurons.rates(*self.wanted)
        self.sum += rates
        self.square += rates * rates
        self.steps += 1
        counts = self.spikes.poisson(rates / self.rate, (self.samples, len(rates))).astype(np.float64)
        if self.offset:
            counts = np.maximum(counts + self._extra(), 0.0)
        return counts

    def change(self, c: Change) -> None:
        """Let it happen now."""
        self.made += 1
        n = len(self.added)
        at = self._draw(n, c.channels) if isinstance(c.channels, float) else np.array(c.channels, np.int64)
        if c.kind == "rotate":
            self.neurons.rotate(math.radians(c.value), at)
        elif c.kind == "gain":
            self.neurons.gain[at] *= c.value
        elif c.kind == "drop":
            self.neurons.gain[at[self._draw(len(at), c.value)]] = 0.0
        else:
            self.added[at] += c.value * self.deviation()[at] / BIN
            self.offset = True

    def deviation(self) -> Vector:
        """Standard deviation of each neuron's count in a bin of BIN s, over all time so far."""
        if not self.steps:
            return np.sqrt(self.neurons.rates(0.0, 0.0) * BIN)
        mean = self.sum / self.steps
        moved = np.maximum(self.square / self.steps - mean * mean, 0.0)
        return np.sqrt(mean * BIN + moved * BIN * BIN)

    def _draw(self, n: int, share: float) -> NDArray[np.int64]:
        return np.sort(self.drawn.permutation(n)[: round(share * n)])

    def _extra(self) -> Vector:
        """Whole counts that an offset adds to each sample; what is left over is owed to the next one."""
        due = self.owed + self.added / self.rate * np.arange(1, self.samples + 1)[:, None]
        whole = np.floor(due + 1e-9)
        self.owed = due[-1] - whole[-1]
        return np.diff(whole, axis=0, prepend=0.0)
