"""One level of a sequence model: which layers, how wide, and where they are written down."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import check_shapes
from rheobase.nodes._layers import Arrays, glorot
from rheobase.nodes._ssm import Start, step_of
from rheobase.stream.block import StreamError
from rheobase.stream.node import Count, Positive, kernel, nearest

Kind = Literal["s4d", "s4", "mamba", "lstm", "transformer"]
OWN: dict[str, tuple[str, ...]] = {
    "s4d": ("states", "init", "memory"), "s4": ("states", "init", "memory"), "mamba": ("states", "memory"), "lstm": (),
    "transformer": ("heads", "context"),
}  # fmt: skip
"""Words that mean something to each kind only."""
CONTEXT = 64
STEPS = (1e-3, 0.1)
"""dt of a state space where nobody says how far it looks back: 10 to 1000 samples (Gu et al.)."""


class Level(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stack of layers of one kind.

    type     kind of layer
    width    features between layers
    layers   how many
    states   of a state space, for each feature (default: 64, of mamba 16)
    init     what a state space starts from (default: lin; of s4 legs)
    memory   s: [shortest, longest] that a state space starts with, 1/dt spread between (default: 10 to 1000 samples)
    heads    of a transformer
    context  samples (of a high level: chunks) that a transformer looks back over (default: 64, or all of a window of
             learning where that is shorter: what lies beyond it was never learnt from)
    """

    type: Kind = "s4d"
    width: Count = 64
    layers: Count = 2
    states: Count = 0
    init: Start = ""  # type: ignore[assignment]
    memory: tuple[Positive, Positive] | None = None
    heads: Count = 2
    context: Count = CONTEXT


def level(key: str, given: str | dict[str, Any], window: float = math.inf) -> Level:
    """From the words of a config; window: samples (or chunks) that it sees one after the other in learning.

    Raises StreamError that names `key`, and the nearest right word.
    """
    words = {"type": given} if isinstance(given, str) else dict(given)
    for word in words:
        if word not in Level.__struct_fields__:
            raise StreamError(f"{key}: unknown key {word!r}{nearest(word, Level.__struct_fields__)}")
    for word, among in (("type", get_args(Kind)), ("init", get_args(Start))):
        if words.get(word, among[0]) not in among:
            raise StreamError(f"{key}: {word}: unknown value {words[word]!r}{nearest(str(words[word]), among)}")
    kind = words.get("type", "s4d")
    for word in words:
        if word not in ("type", "width", "layers", *OWN[kind]):
            raise StreamError(f"{key}: {word}: means nothing to {kind!r}")
    usual = {"states": 16 if kind == "mamba" else 64, "init": "legs" if kind == "s4" else "lin"}
    words = usual | {"context": int(min(CONTEXT, window))} | words
    try:
        made: Level = msgspec.convert(words, Level)
    except msgspec.ValidationError as e:
        raise StreamError(f"{key}: {str(e)[:1].lower()}{str(e)[1:]}") from None
    if made.type == "transformer" and made.width % made.heads:
        raise StreamError(f"{key}: width: {made.width} features cannot be shared among {made.heads} heads")
    if made.type in ("s4", "s4d") and made.states % 2:
        raise StreamError(f"{key}: states: {made.states}: conjugate pairs need an even number")
    if made.type == "s4" and made.init != "legs":
        raise StreamError(f"{key}: init: s4 starts from 'legs', not from {made.init!r}: s4d has the others")
    if made.memory and not made.memory[0] <= made.memory[1] < math.inf:
        raise StreamError(f"{key}: memory: {list(made.memory)} is [shortest, longest]")
    if made.type == "transformer" and made.context > window:
        raise StreamError(f"{key}: context: {made.context} is more than the {window} that a window of learning has")
    return made


def layers(kind: str) -> Any:
    """The file of a kind of layer: see `_layers.py`."""
    return importlib.import_module(f"rheobase.nodes._{kind}")


class LevelParams(NamedTuple):
    """y = out_b + out_W' stack(in_b + in_W' x); in a high level x goes into the stack as it is."""

    stack: Any
    out_W: NDArray[np.float64]
    out_b: NDArray[np.float64]
    in_W: NDArray[np.float64] | tuple[()] = ()
    in_b: NDArray[np.float64] | tuple[()] = ()


SHAPES = {"in_W": "n h", "in_b": "h", "out_W": "h d", "out_b": "d"}


def initial(key: str, rng: np.random.Generator, given: Level, rate: float, n: int, d: int) -> Arrays:
    """What learning starts from; n = 0: no map before the stack. rate: Hz (0: not known). Raises StreamError."""
    dt = STEPS
    if given.memory:
        if not rate:
            raise StreamError(f"{key}: memory: is in s, and the rate of the input is not known")
        if given.memory[1] * rate < 1:
            raise StreamError(f"{key}: memory: {given.memory[1]:g} s at most, and {1 / rate:g} s from sample to sample")
        dt = (step_of(given.memory[1], rate), step_of(given.memory[0], rate))
    found: Arrays = layers(given.type).initial(rng, given, dt)
    found |= {"out_W": glorot(rng, 1, given.width, d)[0], "out_b": np.zeros(d)}
    if n:
        found |= {"in_W": glorot(rng, 1, n, given.width)[0], "in_b": np.zeros(given.width)}
    return found


def forward(given: Level, p: dict[str, Any], u: Any, drop: Callable[[Any], Any], last: bool = False) -> Any:
    """y (batch, time, d), or of the last time only, from torch tensors u (batch, time, n)."""
    if "in_W" in p:
        u = u @ p["in_W"] + p["in_b"]
    u = layers(given.type).forward(p, u, drop)
    return (u[:, -1] if last else u) @ p["out_W"] + p["out_b"]


def checked(given: Level, arrays: Arrays, n: int, d: int) -> None:
    """Raises StreamError where an array is missing or has another shape than this level's."""
    h, own = given.width, layers(given.type).SHAPES
    ends = SHAPES if n else {k: v for k, v in SHAPES.items() if not k.startswith("in_")}
    r = math.ceil(h / 16)
    sizes = {"2h": 2 * h, "3h": 3 * h, "4h": 4 * h, "l+1": given.layers + 1, "r": r, "r+2s": r + 2 * given.states}
    check_shapes(own | ends, arrays, n=n, d=d, l=given.layers, h=h, s=given.states, **sizes)
    for key in ("heads", "context"):
        if key in own and float(arrays[key]) != getattr(given, key):
            raise StreamError(f"array {key} is {float(arrays[key]):g}, expected {getattr(given, key)}")


def streamed(given: Level, arrays: Arrays, ratio: float) -> tuple[LevelParams, Any]:
    """params, and the state of the stack; ratio: (rate learnt at) / (rate run at)."""
    own = {k: v for k, v in arrays.items() if k not in SHAPES}
    stack, state = layers(given.type).streamed(own, ratio)
    ends = {k: np.ascontiguousarray(v) for k, v in arrays.items() if k in SHAPES}
    return LevelParams(stack, **ends), state


@kernel
def scaled(x, mean, scale, z):
    """z = (x - mean) / scale, and 0 for what is not finite. Returns whether anything was."""
    there = False
    for j in range(x.shape[0]):
        if np.isfinite(x[j]):
            z[j] = (x[j] - mean[j]) / scale[j]
            there = True
        else:
            z[j] = 0.0
    return there


@kernel
def lost(y):
    """y = NaN"""
    for i in range(y.shape[0]):
        y[i] = np.nan
