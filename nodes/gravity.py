"""Gravity taken out of what an accelerometer measures: acceleration through space."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rheobase.nodes._quaternion import to_body, to_world
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, Positive, kernel

GRAVITY = 9.80665
"""m/s^2: standard gravity (3rd General Conference on Weights and Measures, 1901)."""


class Pull(NamedTuple):
    """g: m/s^2; world: whether to give the world's axes."""

    g: float
    world: bool


class Gravity(Kernel):
    """a = R(q) f - (0, 0, g) in the axes of the world (z up), or a = f - R(q)' (0, 0, g) in those of the body.

    The input is the specific force f (3 channels, m/s^2, +g upwards at rest) and beside it (`merge`) the quaternion q
    (w, x, y, z) that takes the body's axes into the world's, as `orientation` gives it. An error of one degree in q
    leaves 0.17 m/s^2. Missing where one of the seven is.

    Errors: other than 7 channels.
    """

    frame: Literal["body", "world"] = "body"
    """The axes that the acceleration is given in."""
    g: Positive = GRAVITY
    """Gravity at the place, m/s^2."""

    def start(self, x: Spec) -> Spec:
        if x.n != 7:
            raise StreamError(f"takes an acceleration and a quaternion (3 + 4 channels), got {x.n} channels")
        self.params = Pull(float(self.g), self.frame == "world")
        return x.replace(channels=("a_x", "a_y", "a_z"), unit="m/s^2")

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        q, f = x[3:], x[:3]
        y[0], y[1], y[2] = 0.0, 0.0, params.g
        there = to_body(q, y)
        for c in range(3):
            y[c] = f[c] - y[c]
            there &= math.isfinite(f[c])
        if params.world:  # turning the difference keeps its digits
            there &= to_world(q, y)
        for c in range(3):
            y[c] = y[c] if there else math.nan
        return True
