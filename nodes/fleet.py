"""Many units in one stream: a chain of nodes for each of them, in one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.node import Count, Kernel, NotNegative, blame, kernel, load

MOST = 8
"""Nodes in a chain, at most: so many fields has `Chain`."""
FARTHEST = 2.0**53
"""Unit numbers up to here are whole in float64."""


class Chain(NamedTuple):
    """One thing for each node of a chain."""

    k0: Any = ()
    k1: Any = ()
    k2: Any = ()
    k3: Any = ()
    k4: Any = ()
    k5: Any = ()
    k6: Any = ()
    k7: Any = ()


class FleetParams(NamedTuple):
    """p: params of the nodes; f (n,), g (m,): the row of a unit before its first sample; gone: s, inf: never."""

    p: Chain
    f: NDArray[np.float64]
    g: NDArray[np.int64]
    gone: float


class FleetState(NamedTuple):
    """f (units, n), g (units, m): what the nodes remember of each unit; room, y: scratch of the nodes, and what they
    hand on. table (2^k,): 1 + the row of a unit, by its number; number, last (units,): of the unit in a row, and its
    last time; rows (1,) in use; counts (3,): samples refused, units that began afresh, units that gave up their row.
    """

    f: NDArray[np.float64]
    g: NDArray[np.int64]
    room: Chain
    y: Chain
    table: NDArray[np.int64]
    number: NDArray[np.int64]
    last: NDArray[np.float64]
    rows: NDArray[np.int64]
    counts: NDArray[np.int64]


class Handed(NamedTuple):
    y: NDArray[np.float64]


class Fleet(Kernel):
    """The samples of many units, each of which a chain of nodes follows as if it were alone:

        x = [unit, x_1, ...]      y = [unit, y_1, ...] of the chain for that unit

    The channel `unit`, the first, holds the unit's number. What the chain remembers is kept in one row for each unit
    (what a node keeps as `room` of its state is scratch, and shared), so that a checkpoint is a copy of the state as
    for any node, and thousands of units run in one compiled loop. A unit begins when it is first heard of, and begins
    afresh after a silence of more than `gone`. Where all rows are taken, a new unit gets that of the one silent
    longest, if that is gone; else its samples are refused: NaN comes out, and `health` counts them. So does a sample
    without a number.

        fleet: {type: fleet, in: engines, chain: [{type: health, model: h.npz}, {type: arphmm, model: a.npz}]}

    Errors: a first channel that is not `unit`; a node that is no kernel; more than 8 nodes.
    """

    resets = False
    """A gap in the stream, as when its sender was started anew, is a silence of each unit: `gone` says what of it."""

    chain: tuple[str | dict[str, Any], ...]
    """The nodes, in order: a type, or a table with its parameters."""

    units: Count = 1000
    """Most units at a time."""

    gone: NotNegative = 0.0
    """Silence after which a unit begins afresh, and its row may go to another, s; 0: never."""

    rate: NotNegative = 0.0
    """Samples a second of each unit, Hz; 0: irregular."""

    def nodes(self) -> list[Kernel]:
        """The chain, made afresh. Raises StreamError."""
        if not 1 <= len(self.chain) <= MOST:
            raise StreamError(f"chain: of 1 to {MOST} nodes, got {len(self.chain)}")
        made = []
        for k, given in enumerate(self.chain):
            words = {"type": given} if isinstance(given, str) else dict(given)
            kind = words.pop("type", None)
            if not isinstance(kind, str):
                raise StreamError(f"chain: node {k} needs a type, as in {{type: arphmm, model: a.npz}}")
            try:
                cls = load(kind)
                node = cls.make(**words)
            except StreamError as e:
                raise StreamError(f"chain: node {k} ({kind}): {e}") from None
            if not isinstance(node, Kernel) or isinstance(node, Fleet):
                raise StreamError(f"chain: node {k}: {kind!r} cannot be one for each unit: it is no kernel")
            node.name = f"{self.name or 'fleet'}.{k}"
            made.append(node)
        return made

    def check(self) -> None:
        for node in self.nodes():
            with blame(node):
                node.check()

    @property
    def health(self) -> dict[str, int]:
        """Units now; samples refused; units that began afresh, and that gave up their row."""
        if not self.state:
            return {}
        names = ("refused", "afresh", "gave_up")
        return {"units": int(self.state.rows[0])} | dict(zip(names, map(int, self.state.counts), strict=True))

    def start(self, x: Spec) -> Spec:
        if x.channels[0] != "unit" or x.n < 2:
            raise StreamError(f"its first channel must be 'unit', and another follow; it has {', '.join(x.channels)}")
        spec = x.replace(channels=x.channels[1:], rate=self.rate, dtype="float64")
        made, widths = self.nodes(), []
        for node in made:
            with blame(node):
                out = node.start(spec)
            assert out is not None
            spec = out
            widths.append(spec.n)
        U, layout = self.units, _Rows()
        views = [layout.add(n.state, f"k{k}") for k, n in enumerate(made)]
        f, g = layout.row()
        self.params = FleetParams(Chain(*(n.params for n in made)), f, g, float(self.gone or np.inf))
        self.state = FleetState(
            np.repeat(f[None], U, axis=0), np.repeat(g[None], U, axis=0),
            Chain(*(getattr(n.state, "room", ()) for n in made)), Chain(*(Handed(np.zeros(w)) for w in widths[:-1])),
            np.zeros(1 << (2 * U - 1).bit_length(), np.int64), np.zeros(U, np.int64), np.zeros(U),
            np.zeros(1, np.int64), np.zeros(3, np.int64),
        )  # fmt: skip
        self.step = _keyed([n.step for n in made], views, layout.names)  # type: ignore[method-assign, misc]
        return x.replace(channels=("unit", *spec.channels), unit=spec.unit, dtype="float64")


class _Rows:
    """Lays what nodes remember side by side, and says in source how to put it together again from row i."""

    def __init__(self) -> None:
        self.parts: tuple[list[Any], list[Any]] = ([np.zeros(1)], [np.zeros(1, np.int64)])
        self.names: dict[str, Any] = {}

    def add(self, value: Any, path: str) -> str:
        if not value:
            return "()"
        word = next((w for w, c in self.names.items() if c is type(value)), f"T{len(self.names)}")
        self.names[word] = type(value)
        done = []
        for field, v in zip(value._fields, value, strict=True):
            if field == "room":
                done.append(f"state.room.{path}")
            elif isinstance(v, tuple):
                done.append(self.add(v, f"{path}.{field}"))
            else:
                which = 0 if v.dtype == np.float64 else 1
                a = sum(map(len, self.parts[which]))
                self.parts[which].append(v.ravel())
                shaped = "" if v.ndim == 1 else f".reshape({v.shape})"
                done.append(f"state.{'fg'[which]}[i, {a}:{a + v.size}]{shaped}")
        return f"{word}({', '.join(done)})"

    def row(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        return np.concatenate(self.parts[0]), np.concatenate(self.parts[1])


def _keyed(steps: list[Any], views: list[str], names: dict[str, Any]) -> Callable[..., bool]:
    """The step of a fleet: written as source, for each chain has states of its own types."""
    body = []
    for k, (step, view) in enumerate(zip(steps, views, strict=True)):
        names[f"step{k}"] = step
        given = f"state.y.k{k - 1}.y" if k else "x[1:]"
        gives = f"state.y.k{k}.y" if k < len(steps) - 1 else "y[1:]"
        body += [f"    if not step{k}(params.p.k{k}, {view}, t, {given}, {gives}):", "        return False"]
    source = "\n".join([
        "def step(params, state, t, x, y):",
        "    i = begin(params, state, x[0], t)",
        "    y[0] = x[0]",
        "    if i < 0:",
        "        for j in range(1, y.shape[0]):",
        "            y[j] = nan",
        "        return True",
        *body,
        "    return True",
    ])  # fmt: skip
    found: dict[str, Any] = {}
    exec(compile(source, "<fleet>", "exec"), names | {"begin": begin, "nan": np.nan}, found)  # noqa: S102 our own
    made: Callable[..., bool] = kernel(found["step"])
    return made


@kernel
def begin(params, state, unit, t):
    """The row of a unit, as at the start where it begins afresh; -1 where there is none for it."""
    i, fresh = row(state, unit, t, params.gone)
    if fresh:
        for k in range(params.f.shape[0]):
            state.f[i, k] = params.f[k]
        for k in range(params.g.shape[0]):
            state.g[i, k] = params.g[k]
    return i


@kernel
def row(state, unit, t, gone):
    """The row of a unit, -1 where there is none for it, and whether it begins afresh."""
    if not abs(unit) < FARTHEST:  # nor is NaN
        state.counts[0] += 1
        return -1, False
    number = np.int64(round(unit))
    table = state.table
    mask = table.shape[0] - 1
    at = slot(number, mask)
    while table[at] > 0:
        i = table[at] - 1
        if state.number[i] == number:
            fresh = t - state.last[i] > gone
            if fresh:
                state.counts[1] += 1
            state.last[i] = t
            return i, fresh
        at = (at + 1) & mask
    i = state.rows[0]
    if i < state.number.shape[0]:
        state.rows[0] += 1
    else:
        i = 0
        for k in range(state.last.shape[0]):
            if state.last[k] < state.last[i]:
                i = k
        if not t - state.last[i] > gone:
            state.counts[0] += 1
            return -1, False
        state.counts[2] += 1
        strike(state, state.number[i], mask)
        at = slot(number, mask)
        while table[at] > 0:
            at = (at + 1) & mask
    table[at] = i + 1
    state.number[i], state.last[i] = number, t
    return i, True


@kernel
def slot(number, mask):
    """Where the search for a number begins."""
    return (number ^ (number >> 13) ^ (number >> 29)) & mask


@kernel
def strike(state, number, mask):
    """Take a number out of the table, and move up those that its place had pushed on (Knuth, TAOCP 3, 6.4 R)."""
    table = state.table
    at = slot(number, mask)
    while state.number[table[at] - 1] != number:
        at = (at + 1) & mask
    table[at] = 0
    k = (at + 1) & mask
    while table[k] > 0:
        home = slot(state.number[table[k] - 1], mask)
        if ((k - home) & mask) >= ((k - at) & mask):
            table[at], table[k] = table[k], 0
            at = k
        k = (k + 1) & mask
