"""A sequence model of one level: a stack of layers, sample by sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import affine, part
from rheobase.nodes._level import Level, LevelParams, checked, forward, initial, layers, level, lost, scaled, streamed
from rheobase.nodes._sequence import SequenceModel
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import Count, kernel


class SequenceParams(NamedTuple):
    """net: `LevelParams`; k: samples from one estimate to the next."""

    net: LevelParams
    x_mean: NDArray[np.float64]
    x_scale: NDArray[np.float64]
    k: int


class SequenceState(NamedTuple):
    """i (1,): samples since the last estimate; stack: of the layers; z (n,), u (h,): room to work in."""

    i: NDArray[np.int64]
    stack: Any
    z: NDArray[np.float64]
    u: NDArray[np.float64]


class Sequence(SequenceModel):
    """y(t) = out(stack(in(x(t)))): layers of one kind, at the rate of x.

    `net` is {type: s4d | s4 | mamba | lstm | transformer, width: 64, layers: 2, states, init, memory, heads, context}
    (`_level.py`). What HiSS is compared with, and enough where x is slow.

    A value that is missing counts as its mean; where all are, y is NaN. A new segment begins afresh. State-space layers
    learnt at one rate run at another: their step dt is scaled.
    """

    net: str | dict[str, Any] = "s4d"
    """The layers."""

    k: Count = 1
    """An estimate comes with every k-th sample, and only these are learnt."""

    @property
    def every(self) -> int:
        return self.k

    @property
    def any_rate(self) -> bool:
        """State spaces do: their step is scaled."""
        return self.k == 1 and self.levels()["net"].type in ("s4d", "s4")

    def levels(self) -> dict[str, Level]:
        return {"net": level("net", self.net, self.chunks * self.k)}

    def begin(self, rng: np.random.Generator, rate: float, n: int, d: int) -> dict[str, Array]:
        found = {f"net.{k}": v for k, v in initial("net", rng, self.levels()["net"], rate, n, d).items()}
        if "net.L" in found:
            found["net.L"] = np.array(float(self.chunks * self.k))
        return found

    def forward(self, p: dict[str, Any], x: Any, drop: Callable[[Any], Any]) -> Any:
        return forward(self.levels()["net"], part("net.", p), x, drop)[:, self.k - 1 :: self.k]

    def fits(self, arrays: dict[str, Array], n: int, d: int) -> None:
        checked(self.levels()["net"], part("net.", arrays), n, d)

    def make_ready(self, x: Spec, arrays: dict[str, Array], ratio: float) -> None:
        net = self.levels()["net"]
        params, stack = streamed(net, part("net.", arrays), ratio)
        self.params = SequenceParams(params, arrays["x_mean"], arrays["x_scale"], self.k)
        self.state = SequenceState(np.zeros(1, np.int64), stack, np.zeros(x.n), np.zeros(net.width))
        self.step = composed(layers(net.type))  # type: ignore[method-assign, misc]

    def start(self, x: Spec) -> Spec:
        return super().start(x).replace(rate=x.rate / self.k)


def composed(net: Any) -> Callable[..., bool]:
    """The step of one kind of layer."""
    net_step = net.step

    @kernel
    def step(params, state, t, x, y):
        there = scaled(x, params.x_mean, params.x_scale, state.z)
        affine(params.net.in_W, params.net.in_b, state.z, state.u)
        net_step(params.net.stack, state.stack, state.u)
        state.i[0] += 1
        if state.i[0] < params.k:
            return False
        state.i[0] = 0
        affine(params.net.out_W, params.net.out_b, state.u, y)
        if not there:
            lost(y)
        return True

    return step
