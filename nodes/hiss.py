"""HiSS: a sequence model in two levels, a fast one over a few samples and a slow one over what it made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import affine, part
from rheobase.nodes._level import Level, LevelParams, checked, forward, initial, layers, level, lost, scaled, streamed
from rheobase.nodes._sequence import SequenceModel
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import Count, kernel


class HiSSParams(NamedTuple):
    """low, high: `LevelParams`; k: samples in a chunk."""

    low: LevelParams
    high: LevelParams
    x_mean: NDArray[np.float64]
    x_scale: NDArray[np.float64]
    k: int


class HiSSState(NamedTuple):
    """i (1,): samples of this chunk so far; seen (1,): of them, those with a value; the state of both stacks, and room:
    z (n,), u (h,), f (d,), and of the high level a second state to try a chunk that is not over (peek)."""

    i: NDArray[np.int64]
    seen: NDArray[np.int64]
    low: Any
    high: Any
    z: NDArray[np.float64]
    u: NDArray[np.float64]
    f: NDArray[np.float64]
    peek: Any = ()


class HiSS(SequenceModel):
    """y = out(high(c_1, c_2, ...)),   c_j = low(x of chunk j)'s last output: hierarchical state-space model.

    Chunks are `k` samples that follow one another; `low` begins afresh with each, `high` runs on, at 1/k of the rate.
    Either is a stack of layers of any kind, and an affine map: {type: s4d | s4 | mamba | lstm | transformer, width: 64,
    layers: 2, states, init, memory, heads, context} (`_level.py`). Bhirangi et al., ICML 2024.

    An estimate comes with the last sample of each chunk. With `emit: sample` there is one for each sample, from what
    there is of its chunk; a last channel `partial` is 1 where the chunk was not over, which is not what it was learnt
    on. A value that is missing counts as its mean, and a chunk without any as missing: then y is NaN. A new segment
    (after a gap) begins a new chunk, and both levels afresh.

    x should be made by causal nodes above: its rate, `deltas`, a `lowpass`; it is standardised by the learnt rows.

    Errors: an unknown kind or key; s4 learnt on `span` samples has no more than these in a chunk.
    """

    k: Count = 10
    """Samples in a chunk."""

    low: str | dict[str, Any] = "s4d"
    """Layers over the samples of a chunk."""

    high: str | dict[str, Any] = "s4d"
    """Layers over chunks."""

    emit: Literal["chunk", "sample"] = "chunk"
    """When there is an estimate."""

    adjustable = (*SequenceModel.adjustable, "emit")

    @property
    def every(self) -> int:
        return self.k

    def levels(self) -> dict[str, Level]:
        return {"low": level("low", self.low), "high": level("high", self.high, self.chunks)}

    def begin(self, rng: np.random.Generator, rate: float, n: int, d: int) -> dict[str, Array]:
        low, high = self.levels().values()
        found = {f"low.{k}": v for k, v in initial("low", rng, low, rate, n, high.width).items()}
        found |= {f"high.{k}": v for k, v in initial("high", rng, high, rate / self.k, 0, d).items()}
        for word, length in (("low.L", self.k), ("high.L", self.chunks)):
            if word in found:
                found[word] = np.array(float(length))
        return found

    def forward(self, p: dict[str, Any], x: Any, drop: Callable[[Any], Any]) -> Any:
        low, high = self.levels().values()
        b, T, n = x.shape
        c = forward(low, part("low.", p), x.reshape(b * T // self.k, self.k, n), drop, last=True)
        return forward(high, part("high.", p), c.view(b, T // self.k, -1), drop)

    def fits(self, arrays: dict[str, Array], n: int, d: int) -> None:
        low, high = self.levels().values()
        checked(low, part("low.", arrays), n, high.width)
        checked(high, part("high.", arrays), 0, d)

    def make_ready(self, x: Spec, arrays: dict[str, Array], ratio: float) -> None:
        low, high = self.levels().values()
        p_low, s_low = streamed(low, part("low.", arrays), ratio)
        p_high, s_high = streamed(high, part("high.", arrays), ratio)
        peek = self.emit == "sample"
        self.params = HiSSParams(p_low, p_high, arrays["x_mean"], arrays["x_scale"], self.k)
        i, seen = np.zeros((2, 1), np.int64)
        room = (np.zeros(x.n), np.zeros(low.width), np.zeros(high.width))
        tried = streamed(high, part("high.", arrays), ratio)[1] if peek else ()
        self.state = HiSSState(i, seen, s_low, s_high, *room, tried)
        self.step = composed(layers(low.type), layers(high.type), peek)  # type: ignore[method-assign, misc]

    def estimate(self, Y: Array, d: int) -> Array:
        """What is said of a part of a chunk is no estimate."""
        return np.where(Y[:, d:] == 1, np.nan, Y[:, :d]) if self.emit == "sample" else Y[:, :d]

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        if self.emit == "sample":
            return out.replace(channels=(*out.channels, "partial"))
        return out.replace(rate=x.rate / self.k)


def composed(low: Any, high: Any, peek: bool) -> Callable[..., bool]:
    """The step of two kinds of layers."""
    low_step, low_fresh, high_step, high_copied = low.step, low.fresh, high.step, high.copied

    @kernel
    def out(p, f, y):
        for i in range(p.out_b.shape[0]):
            y[i] = p.out_b[i]
        for j in range(f.shape[0]):
            for i in range(p.out_b.shape[0]):
                y[i] += f[j] * p.out_W[j, i]

    @kernel
    def begun(params, state, x):
        """Through the low level; whether the chunk is over."""
        i = state.i[0]
        if i == 0:
            low_fresh(state.low)
            state.seen[0] = 0
        if scaled(x, params.x_mean, params.x_scale, state.z):
            state.seen[0] += 1
        affine(params.low.in_W, params.low.in_b, state.z, state.u)
        low_step(params.low.stack, state.low, state.u)
        over = i + 1 == params.k
        state.i[0] = 0 if over else i + 1
        return over

    @kernel
    def whole(params, state, t, x, y):
        if not begun(params, state, x):
            return False
        affine(params.low.out_W, params.low.out_b, state.u, state.f)
        high_step(params.high.stack, state.high, state.f)
        out(params.high, state.f, y)
        if not state.seen[0]:
            lost(y)
        return True

    @kernel
    def each(params, state, t, x, y):
        over = begun(params, state, x)
        affine(params.low.out_W, params.low.out_b, state.u, state.f)
        high_copied(state.high, state.peek)
        high_step(params.high.stack, state.peek, state.f)
        if over:
            high_copied(state.peek, state.high)
        out(params.high, state.f, y)
        if not state.seen[0]:
            lost(y)
        y[y.shape[0] - 1] = 0.0 if over else 1.0
        return True

    return each if peek else whole
