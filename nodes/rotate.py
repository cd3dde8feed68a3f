"""Rotate: a vector from the axes of a body into those of the world, or back."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from rheobase.nodes._quaternion import to_body, to_world
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Kernel, kernel


class Way(NamedTuple):
    """world: into the world's axes."""

    world: bool


class Rotate(Kernel):
    """u = R(q)' v (to body) or R(q) v (to world).

    The input is a vector v (3 channels, whose names stay) and beside it (`merge`) the quaternion q (w, x, y, z) that
    takes the body's axes into the world's, as `orientation` gives it. Missing where one of the seven is.

    Errors: other than 7 channels.
    """

    to: Literal["body", "world"]
    """The axes that the vector is wanted in."""
    unit: str = ""
    """Unit of the vector, where the input mixes several; "": that of the input."""

    def start(self, x: Spec) -> Spec:
        if x.n != 7:
            raise StreamError(f"takes a vector and a quaternion (3 + 4 channels), got {x.n} channels")
        self.params = Way(self.to == "world")
        return x.replace(channels=x.channels[:3], unit=self.unit or x.unit)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for c in range(3):
            y[c] = x[c]
        there = to_world(x[3:], y) if params.world else to_body(x[3:], y)
        for c in range(3):
            y[c] = y[c] if there else math.nan
        return True
