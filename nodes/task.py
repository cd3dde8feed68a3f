"""A cursor, its targets, and what became of each trial: the task of a closed loop."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._targets import CELLS, KINDS, sequence
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, NotNegative, Positive, Seed, kernel, nearest

TASK = (
    "cursor_x", "cursor_y", "target_x", "target_y", "radius",
    "intended_x", "intended_y", "number", "held", "outcome", "assist",
)  # fmt: skip
"""Channels of a task: see `Task`."""
UNITS = ("m", "m", "m", "m", "m", "m/s", "m/s", "", "s", "", "")
GOING, ACQUIRED, TIMEOUT, WRONG = 0, 1, 2, 3
"""Values of the channel `outcome`."""


class Rules(NamedTuple):
    """targets (trials, 3): x, y, radius, m; dt: s; hold, timeout: samples; until (k,): samples since the start at
    which each assisted block ends; attenuate (k,): share of the perpendicular velocity that it takes away; reaction:
    samples; brake: m (open loop: 0); speed: m/s; screen: m; side: of a cell, m; control, grid, home: whether the
    decoder moves the cursor, targets are the cells of a grid, each trial begins in the centre."""

    targets: NDArray[np.float64]
    dt: float
    hold: int
    timeout: int
    until: NDArray[np.int64]
    attenuate: NDArray[np.float64]
    reaction: int
    brake: float
    speed: float
    screen: float
    side: float
    control: bool
    grid: bool
    home: bool


class Progress(NamedTuple):
    """cursor, begin (2,): where it is, and was when the trial began, m; last (3,): the target before this one;
    number, spent, held, seen (1,): of the trial, samples of it, of them in a target until now, samples since the
    start; cell (1,): of the grid, where it is held; tally (4,): trials by outcome."""

    cursor: NDArray[np.float64]
    begin: NDArray[np.float64]
    last: NDArray[np.float64]
    number: NDArray[np.int64]
    spent: NDArray[np.int64]
    held: NDArray[np.int64]
    seen: NDArray[np.int64]
    cell: NDArray[np.int64]
    tally: NDArray[np.int64]


class Task(Kernel):
    """p(t) = p(t-1) + v'(t) dt: a cursor, and targets to take with it, one trial after the other.

    control       v = the first two channels of the input, m/s: the decoder moves the cursor
    not control   "open loop": the input sets the pace only, and the cursor goes by itself on the minimum-jerk path
                  from where the trial began to the target, p = b + (g - b)(10 s^3 - 15 s^4 + 6 s^5), its peak
                  `speed` (Flash & Hogan 1985, J. Neurosci. 5:1688)
    assist        v' = v less the share `attenuate` of its part perpendicular to the direction of the target
                  (Brandman et al. 2018, J. Neural Eng. 15:026007)

    A target is acquired by keeping the cursor's centre within `radius` of its own for `hold` s on end, and given up
    after `timeout` s. In the grid every cell is selected by `hold` s in it, also a wrong one. Sizes and times of each
    task: `_targets.py`.

    One sample out for one in, at its time:

    cursor_x, cursor_y      after this sample's move, m
    target_x, _y, radius    of the trial this sample belongs to, m (grid: half the side of the cell)
    intended_x, _y          what the person is thought to want, m/s: `speed` straight from where the cursor was to the
                            target, 0 inside it: the label to learn from (Gilja et al. 2012, Nat. Neurosci. 15:1752).
                            For the first `reaction` s of a trial the target is that of the one before (none: 0).
                            control: closer than `brake` m as much slower, as people do (Willett et al. 2017, J. Neural
                            Eng. 14:016001): to learn full speed there is to learn to shoot past
    number                  of the trial, from 1
    held                    time on end in the target (grid: in the cell it is in), s
    outcome                 0; on the last sample of a trial 1 acquired, 2 timed out, 3 wrong cell selected
    assist                  share of the perpendicular velocity taken away (open loop: 1)

    It reads no clock: time is the number of samples. A velocity that is not finite leaves the cursor where it is, and
    the trial's time goes on. Over a gap in the stream neither moves: the trial goes on with the next sample.

    Errors: an irregular input; control without two channels, or in a unit other than m/s; targets beyond the
    screen; a hold that is longer than the time-out.
    """

    resets = False

    task: Literal["centre_out", "radial8", "fitts", "grid"] = "radial8"
    """Which task."""
    control: bool = True
    """Whether the decoder moves the cursor; false: it goes by itself."""
    hold: Positive | None = None
    """Time to stay in a target, s; null: the task's own."""
    timeout: Positive | None = None
    """Time until a target is given up, s; null: the task's own."""
    reach: Positive | None = None
    """Distance from the centre to the targets, m; fitts, grid: half the side of the square they lie in; null: the
    task's own."""
    sizes: list[Positive] | None = None
    """Diameters of the targets, m; null: the task's own. The cells of a grid follow from `reach`."""
    speed: Positive = 0.2
    """Speed intended, m/s; open loop: the highest on the way."""
    screen: Positive = 0.16
    """Half the side of the square that the cursor cannot leave, m."""
    assist: list[dict[str, float]] | None = None
    """Blocks of help, one after the other: {seconds: s, attenuate: share of the perpendicular velocity taken away, 0 to
    below 1}; afterwards none."""
    reaction: NotNegative = 0.15
    """Time from a target's coming to the person's acting on it, s: until then they are thought to want the last one."""
    brake: NotNegative = 0.08
    """Distance to the target below which whoever moves the cursor is thought to slow down, m."""
    seed: Seed = 0
    """Seed of the order of targets."""

    def check(self) -> None:
        self._layout()
        self._assist()

    def start(self, x: Spec) -> Spec:
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        if self.control and x.n < 2:
            raise StreamError(f"control: the input must have two channels, velocity x and y in m/s; it has {x.n}")
        if self.control and x.unit not in ("", "m/s"):
            raise StreamError(f"control: the input is in {x.unit!r}, not m/s: fit its decoder on a truth in m/s")
        hold, timeout, reach, targets = self._layout()
        seconds, attenuate = self._assist()
        self.params = Rules(
            targets=targets,
            dt=1 / x.rate,
            hold=max(1, round(hold * x.rate)),
            timeout=max(1, round(timeout * x.rate)),
            until=np.round(np.cumsum(seconds) * x.rate).astype(np.int64),
            attenuate=np.array(attenuate),
            reaction=round(self.reaction * x.rate),
            brake=self.brake if self.control else 0.0,
            speed=self.speed,
            screen=self.screen,
            side=2 * reach / CELLS,
            control=self.control,
            grid=self.task == "grid",
            home=self.task == "centre_out",
        )
        self.state = Progress(
            cursor=np.zeros(2),
            begin=np.zeros(2),
            last=np.array([0.0, 0.0, targets[0, 2]]),
            number=np.ones(1, np.int64),
            spent=np.zeros(1, np.int64),
            held=np.zeros(1, np.int64),
            seen=np.zeros(1, np.int64),
            cell=np.full(1, -1, np.int64),
            tally=np.zeros(4, np.int64),
        )
        return x.replace(channels=TASK, unit="")

    def _layout(self) -> tuple[float, float, float, NDArray[np.float64]]:
        """Hold, s, time-out, s, reach, m, and the targets. Raises StreamError where they do not go together."""
        usual = KINDS[self.task]
        hold, timeout = self.hold or usual.hold, self.timeout or usual.timeout
        reach, sizes = self.reach or usual.reach, tuple(self.sizes or usual.sizes)
        if self.task == "grid" and self.sizes is not None:
            raise StreamError("sizes: the cells of a grid follow from its reach")
        if self.sizes is not None and not self.sizes:
            raise StreamError("sizes: name at least one")
        if hold > timeout:
            raise StreamError(f"hold: {hold:g} s is longer than the time-out of {timeout:g} s")
        furthest = reach + (max(sizes) / 2 if self.task in ("centre_out", "radial8") else 0.0)
        if furthest > self.screen:
            raise StreamError(f"screen: targets reach {furthest:g} m from the centre, the screen {self.screen:g} m")
        try:
            return hold, timeout, reach, sequence(self.task, reach, sizes, self.seed)
        except ValueError as e:
            raise StreamError(f"sizes: {e}") from None

    def _assist(self) -> tuple[list[float], list[float]]:
        """Lengths of the assisted blocks, s, and what each takes away; none: one block of no length."""
        known = ("seconds", "attenuate")
        for block in self.assist or []:
            for key in block:
                if key not in known:
                    raise StreamError(f"assist: unknown key {key!r}{nearest(key, known)}")
            for key in known:
                if key not in block:
                    raise StreamError(f"assist: each block needs {key!r}")
            if not (math.isfinite(block["seconds"]) and block["seconds"] > 0):
                raise StreamError(f"assist: seconds: must be more than 0, got {block['seconds']:g}")
            if not 0 <= block["attenuate"] < 1:
                raise StreamError(f"assist: attenuate: must be from 0 to below 1, got {block['attenuate']:g}")
        blocks = self.assist or [{"seconds": 0.0, "attenuate": 0.0}]
        return [b["seconds"] for b in blocks], [b["attenuate"] for b in blocks]

    @property
    def health(self) -> dict[str, int]:
        """Trials by outcome."""
        names = {"acquired": ACQUIRED, "timeouts": TIMEOUT, "wrong": WRONG}
        return {k: int(self.state.tally[i]) for k, i in names.items()} if self.state else {}

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        n, p = params, state.cursor
        g = n.targets[(state.number[0] - 1) % n.targets.shape[0]]
        state.spent[0] += 1
        dx, dy = g[0] - p[0], g[1] - p[1]
        far = math.sqrt(dx * dx + dy * dy)
        aim = g if state.spent[0] > n.reaction else state.last
        away = max(math.sqrt((aim[0] - p[0]) ** 2 + (aim[1] - p[1]) ** 2), n.brake)
        wish = 0.0 if inside(n, p, aim) else n.speed / away
        y[5], y[6] = wish * (aim[0] - p[0]), wish * (aim[1] - p[1])
        if n.control:
            share = assisted(n, state.seen[0])
            vx, vy = x[0], x[1]
            if not (np.isfinite(vx) and np.isfinite(vy)):
                vx, vy = 0.0, 0.0
            if share > 0.0 and far > 0.0:
                along = (vx * dx + vy * dy) / (far * far)
                vx -= share * (vx - along * dx)
                vy -= share * (vy - along * dy)
        else:
            share = 1.0
            way = math.sqrt((g[0] - state.begin[0]) ** 2 + (g[1] - state.begin[1]) ** 2)
            on = done(n, way, state.spent[0])
            vx = (state.begin[0] + on * (g[0] - state.begin[0]) - p[0]) / n.dt
            vy = (state.begin[1] + on * (g[1] - state.begin[1]) - p[1]) / n.dt
        p[0] = min(max(p[0] + vx * n.dt, -n.screen), n.screen)
        p[1] = min(max(p[1] + vy * n.dt, -n.screen), n.screen)
        within = inside(n, p, g)
        if n.grid:
            cell = under(n, p)
            state.held[0] = state.held[0] + 1 if cell >= 0 and cell == state.cell[0] else cell >= 0
            state.cell[0] = cell
        else:
            state.held[0] = state.held[0] + 1 if within else 0
        outcome = 0
        if state.held[0] >= n.hold:
            outcome = 1 if within else 3
        elif state.spent[0] >= n.timeout:
            outcome = 2
        y[0], y[1], y[2], y[3], y[4] = p[0], p[1], g[0], g[1], g[2]
        y[7], y[8], y[9], y[10] = state.number[0], state.held[0] * n.dt, outcome, share
        state.seen[0] += 1
        if outcome > 0:
            state.tally[outcome] += 1
            state.number[0] += 1
            state.spent[0], state.held[0], state.cell[0] = 0, 0, -1
            state.last[:] = g
            if n.home:
                p[0], p[1], state.last[0], state.last[1] = 0.0, 0.0, 0.0, 0.0
            state.begin[0], state.begin[1] = p[0], p[1]
        return True


@kernel
def assisted(n, seen):
    """Share of the perpendicular velocity taken away so many samples after the start."""
    for k in range(n.until.shape[0]):
        if seen < n.until[k]:
            return n.attenuate[k]
    return 0.0


@kernel
def done(n, way, spent):
    """Share of a minimum-jerk path of `way` m that is behind after so many samples; its peak speed is 15/8 of the
    mean."""
    s = spent * n.dt * n.speed / (1.875 * way) if way > 0.0 else 1.0
    s = min(s, 1.0)
    return s * s * s * (10.0 - 15.0 * s + 6.0 * s * s)


@kernel
def under(n, p):
    """Number of the cell of the grid that p lies in, -1: none."""
    i = math.floor(p[0] / n.side + CELLS / 2)
    j = math.floor(p[1] / n.side + CELLS / 2)
    if 0 <= i < CELLS and 0 <= j < CELLS:
        return CELLS * j + i
    return -1


@kernel
def inside(n, p, g):
    """Whether p lies in target g."""
    if n.grid:
        return under(n, p) == under(n, g)
    return math.sqrt((p[0] - g[0]) ** 2 + (p[1] - g[1]) ** 2) <= g[2]
