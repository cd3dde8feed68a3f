"""An alarm that waits: on once a value has been beyond its level for some time."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.stream.node import Kernel, NotNegative, kernel

SLACK = 1e-6
"""s that a hold may be too short: more than times of day are rounded by, which would else decide about a sample."""


class AlarmParams(NamedTuple):
    """hold: less SLACK; side: 1 above, -1 below, 0 either."""

    level: float
    centre: float
    hold: float
    side: int


class AlarmState(NamedTuple):
    """since (c,): s, when the value went beyond, NaN while it is not; on (c,): what was given last."""

    since: NDArray[np.float64]
    on: NDArray[np.float64]


class Alarm(Kernel):
    """y_c = 1 where x_c has been beyond the level for at least `hold`, else 0.

        beyond:  x - centre > level,  x - centre < -level,  or either of them

    `python -m rheobase.tools.alarm` finds the level, or the time, for a rate of false alarms that one can live with. A
    missing sample neither begins nor ends anything.
    """

    level: float
    """How far from the centre, in the unit of x."""

    hold: NotNegative = 0.0
    """How long without a break, s, to 1 us: times are rounded."""

    centre: float = 0.0
    """What is normal, in the unit of x."""

    side: Literal["above", "below", "either"] = "above"
    """On which side."""

    def start(self, x: Spec) -> Spec:
        side = {"above": 1, "below": -1, "either": 0}[self.side]
        self.params = AlarmParams(float(self.level), float(self.centre), self.hold - SLACK, side)
        self.state = AlarmState(np.full(x.n, np.nan), np.zeros(x.n))
        return x.replace(unit="", dtype="float64")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(x.shape[0]):
            if np.isfinite(x[c]):
                e = x[c] - params.centre
                if params.side < 0:
                    e = -e
                elif params.side == 0:
                    e = abs(e)
                if not e > params.level:
                    state.since[c], state.on[c] = np.nan, 0.0
                elif not np.isfinite(state.since[c]):
                    state.since[c] = t
                if t - state.since[c] >= params.hold:
                    state.on[c] = 1.0
            y[c] = state.on[c]
        return True
