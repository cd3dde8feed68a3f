"""`rheo bench fleet`: a step of the AR-HMM against C, and remaining lives of ten thousand units at once."""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes.arphmm import ARPHMM
from rheobase.nodes.fleet import Fleet
from rheobase.nodes.health import Health
from rheobase.nodes.regime_scale import RegimeScale
from rheobase.stream.block import Block, Spec
from rheobase.stream.fuse import Loop
from rheobase.tools import bench

F = NDArray[np.float64]
ELSEWHERE = (ARPHMM, Health, RegimeScale)
"""Learnt nodes that do not decode 192 features, and so are not in `DECODERS` of `bench`; the first is measured here."""
UNITS = 10_000
FLEETS: list[tuple[str, dict[str, Any]]] = [
    ("6 states, 7 lags", {"states": 6, "order": 7, "width": 20.0, "phases": 1}),
    ("6 states, 7 lags, 24 phases", {"states": 6, "order": 7, "width": 20.0, "phases": 4}),
    ("26 states, 128 phases", {"states": 26, "order": 0, "width": 5.0, "phases": 64}),
]


def fleet(scale: float = 1.0) -> list[bench.Row]:
    """Both."""
    X, life, unit = wearing()
    rows = [_step(X, unit, max(500, int(50_000 * scale)), scale)]
    with tempfile.TemporaryDirectory() as folder:
        for what, given in FLEETS if scale > 0.1 else FLEETS[:1]:  # each takes seconds to compile
            rows += _fleet(what, given, X, life, unit, Path(folder), max(200, int(UNITS * min(1.0, scale * 5))))
    return rows


def wearing(n: int = 60) -> tuple[F, F, NDArray[np.int64]]:
    """Health (T, 1) of n units that wear out, 1 but for noise until the last 125 samples; life (T, 1), unit (T,)."""
    rng = np.random.default_rng(0)
    lives = [np.arange(T)[::-1] * 1.0 for T in rng.integers(150, 300, n)]
    life = np.concatenate(lives)[:, None]
    noise = 0.05 * rng.standard_normal(life.shape)
    return np.minimum(life, 125) / 125 + noise, life, np.repeat(np.arange(n), [len(r) for r in lives])


def _step(X: F, unit: NDArray[np.int64], t: int, scale: float) -> bench.Row:
    node = ARPHMM(states=6, order=7, knowledge="none", left_right=False, phases=1, restarts=1)
    node.fit(X, 0 * X, segment=unit)
    x, times = np.ascontiguousarray(np.resize(X, (t, 1))), np.arange(t, dtype=float)
    loop = Loop([node], [-1], [0])
    loop.start(Spec(rate=0, channels=("health",)))
    [(_, out)] = loop.process(Block(x, times))
    a, y, y_times = node.arrays, np.empty((t, 7)), np.empty(t)
    given = (a["A"], a["pi"], np.ascontiguousarray(a["B"][:, 0, :8]), np.ascontiguousarray(a["s2"][:, 0]))
    c = bench.floors().arphmm_6_7
    bench.call_c(c, t, x, *given, y)
    bench.same(out.data[:, :7], y)
    ours, floor = bench.turns(
        lambda: loop.run(*loop.p, *loop.s, times, x, loop.n_out, y_times, out.data),
        lambda: bench.call_c(c, t, x, *given, y),
        scale,
    )
    return bench.pair("AR-HMM, Q=6, P=7, a step", ours, floor, 1e6 / t, "us", goal=2.0)


def _fleet(
    what: str, given: dict[str, Any], X: F, life: F, unit: NDArray[np.int64], folder: Path, units: int
) -> list[bench.Row]:
    spec = Spec(rate=0, channels=("health",))
    file = str(ARPHMM(**given).fit(X, life, segment=unit, inputs=spec).save(folder / "life.npz"))
    node = Fleet(chain=({"type": "arphmm", "model": file, **given},), units=units)
    loop = Loop([node], [-1], [0])
    loop.start(Spec(rate=0, channels=("unit", "health")))
    rng, rounds = np.random.default_rng(1), 12
    first = np.flatnonzero(np.diff(unit, prepend=-1))  # each unit of the fleet is one of those, from its beginning
    own = first[rng.integers(len(first), size=units)]
    numbers, took = rng.permutation(10 * units)[:units], []
    for k in range(rounds):
        x = np.column_stack([numbers, X[own + 10 + k, 0]])
        times = (k + np.arange(units) / units) * 1.0
        start = time.perf_counter()
        loop.process(Block(x, times, k * units))
        took.append(time.perf_counter() - start)
    speed = units / float(np.median(took[2:]))
    kept = (node.state.f.nbytes + node.state.g.nbytes) / units
    goal = 300_000.0 if given is FLEETS[0][1] else math.nan
    return [
        bench.Row(
            f"fleet of {units} units with quantiles of life, {what}, samples",
            speed,
            "1/s",
            goal=goal,
            judged="ours",
            more=True,
        ),
        bench.Row("  memory of a unit", kept, "bytes"),
    ]
