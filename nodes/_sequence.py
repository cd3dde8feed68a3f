"""What the learnt sequence models share: their learning, and how their arrays are written down."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from rheobase.nodes._decoder import Decoder, Training
from rheobase.nodes._level import Level, layers
from rheobase.nodes._training import Schedule, train
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, Fraction, NotNegative, Positive, Seed, nearest

ENDS = ("x_mean", "x_scale", "best")


def _nobody(epoch: int, epochs: int, error: float) -> None:
    pass


class SequenceModel(Decoder):
    """A decoder of one or more levels, each a stack of layers, learnt by windows (`_training.py`)."""

    chunks: Count = 40
    """Estimates in a window of learning: as far back as an error is followed."""

    lookahead: int = 0
    """Samples by which what is estimated lies before the sample that the estimate comes with; a delay."""

    batch: Count = 16
    """Windows in a step of learning."""

    epochs: Count = 100
    """Most passes over the training rows."""

    patience: Count = 20
    """Epochs without a better one, after which learning stops."""

    held_out: Fraction = 0.15
    """Share of each segment that the best epoch is chosen by, and not learnt from: the ends of up to five pieces."""

    learning_rate: Positive = 3e-3
    """Largest step of AdamW, dimensionless; of the dynamics of state spaces at most 0.001."""

    decay: NotNegative = 0.01
    """Weight decay of AdamW, dimensionless."""

    dropout: Fraction = 0.1
    """Share of features left out at random after each layer, in learning."""

    noise: NotNegative = 0.0
    """Standard deviation of what is added to x in learning, in those of x."""

    channel_dropout: Fraction = 0.0
    """Share of the channels of a window that are held at their mean in learning: for sensors that may fail."""

    turn: tuple[tuple[str, str], ...] = ()
    """Pairs of channels, of x and of z, that are turned together by an angle drawn for each window (random yaw)."""

    seed: Seed = 0
    """Of the first weights, the windows, and all that is drawn in learning."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it is learnt."""

    resume: str = ""
    """File that learning keeps after each epoch, and that the same fit goes on from. `rheo eval` does without."""

    adjustable: ClassVar[tuple[str, ...]] = ("model", "device", "resume")

    told: Callable[[int, int, float], None] = dataclasses.field(default_factory=lambda: _nobody, init=False, repr=False)
    """Hears of each epoch of learning: its number, of how many, and the error on what is held out."""

    shapes: ClassVar[dict[str, str]] = {"x_mean": "n", "x_scale": "n", "best": ""}

    @property
    def replaceable(self) -> bool:
        """What a network remembers means nothing to another one."""
        return False

    @property
    def every(self) -> int:
        """Samples from one estimate to the next."""
        raise NotImplementedError

    def levels(self) -> dict[str, Level]:
        """Its levels by name. Raises StreamError where one is described wrongly."""
        raise NotImplementedError

    def begin(self, rng: np.random.Generator, rate: float, n: int, d: int) -> dict[str, Array]:
        """What learning starts from, for n channels at `rate` Hz and d outputs."""
        raise NotImplementedError

    def forward(self, p: dict[str, Any], x: Any, drop: Callable[[Any], Any]) -> Any:
        """(batch, span / every, d) of torch tensors x (batch, span, n), both standardised."""
        raise NotImplementedError

    def fits(self, arrays: dict[str, Array], n: int, d: int) -> None:
        """Raises StreamError where an array is missing or of another shape."""
        raise NotImplementedError

    def make_ready(self, x: Spec, arrays: dict[str, Array], ratio: float) -> None:
        """Set params, state and step; ratio: (rate learnt at) / (rate run at)."""
        raise NotImplementedError

    def check(self) -> None:
        self.levels()
        if self.lookahead < 0:
            raise StreamError(f"lookahead: {self.lookahead} is negative")
        self._leaves_something()
        super().check()

    def serves_a_filter(self) -> None:
        """Raises StreamError where it cannot be the f of a filter, which asks at each sample what is true of it."""
        if self.every > 1 or self.lookahead or getattr(self, "emit", "") == "sample":
            raise StreamError("must say at each sample what is true of it: k 1, lookahead 0, emit chunk")
        if self.resume:
            raise StreamError("resume: it is learnt twice, on other rows, which one file cannot keep")

    def _leaves_something(self) -> None:
        for key in ("dropout", "channel_dropout", "held_out"):
            if getattr(self, key) == 1:
                raise StreamError(f"{key}: 1 leaves nothing to learn from")

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        self._leaves_something()
        n, d = data.X.shape[1], data.Z.shape[1]
        start = self.begin(np.random.default_rng(self.seed), self.header["in"].get("rate", 0.0), n, d)
        slow, fixed = set(), set()
        for name, given in self.levels().items():
            slow |= {f"{name}.{k}" for k in layers(given.type).SLOW}
            fixed |= {f"{name}.{k}" for k in ("L", "heads", "context")}
        schedule = Schedule(
            span=self.chunks * self.every, every=self.every, turned=self._turned(), slow=frozenset(slow),
            fixed=frozenset(fixed), **{k: getattr(self, k) for k in Schedule._fields if k in self.parameters()},
        )  # fmt: skip
        found = train(self.forward, start, data, schedule, like, self.told)
        last = list(self.levels())[-1]
        found[f"{last}.out_b"] = found[f"{last}.out_b"] * found["z_scale"] + found["z_mean"]
        found[f"{last}.out_W"] = found[f"{last}.out_W"] * found["z_scale"]
        return {k: v for k, v in found.items() if k not in ("z_mean", "z_scale")}

    def _turned(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The pairs of `turn` as columns of x and of z: of each that has them. Raises StreamError."""
        known = [list(self.header[key].get("channels", ())) for key in ("in", "out")]
        found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for pair in self.turn:
            for word in pair:
                if word not in [*known[0], *known[1]]:
                    raise StreamError(f"turn: no channel {word!r}{nearest(word, [*known[0], *known[1]])}")
            sides = [k for k in (0, 1) if set(pair) <= set(known[k])]
            if not sides:
                raise StreamError(f"turn: {pair[0]!r} and {pair[1]!r} are of different streams: none turns with both")
            for k in sides:
                found[k].append((known[k].index(pair[0]), known[k].index(pair[1])))
        for side in found:
            if len({c for pair in side for c in pair}) < 2 * len(side):
                raise StreamError("turn: a channel stands in it twice")
        if found[1] and not found[0]:
            raise StreamError("turn: no pair of the input is turned, so that the truth would not go with it")
        return found

    def ready(self, x: Spec, **arrays: Array) -> None:
        self.fits(arrays, x.n, len(self.header["out"]["channels"]))
        then = self.header["in"].get("rate", 0.0)
        self.make_ready(x, arrays, then / x.rate if then and x.rate else 1.0)

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        rate = self.header["in"].get("rate", 0.0)
        if rate and not x.rate:
            raise StreamError(f"was fitted at {rate:g} Hz, and this input is irregular: put a `resample` before it")
        return out.replace(delay=out.delay + self.lookahead / (rate or x.rate)) if self.lookahead and x.rate else out
