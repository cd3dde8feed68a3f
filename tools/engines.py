"""Remaining life of turbofans (NASA C-MAPSS, a simulation): python -m rheobase.tools.engines [--set FD001]

Each engine is followed by one chain, the same in training and live: sensors less what their regime makes of them
(`regime_scale`), their means over 5 to 80 cycles (`averages`), a regression of capped life on those by small networks
(`mlp`), and a filter with 26 states of life that makes a distribution of it (`arphmm`). The networks of five folds of
the training engines are averaged; what the filter learns from, and what its intervals are calibrated on, are their
outputs on engines that they had not seen. All settings were chosen on training engines; the official test engines are
looked at for the last table only. Life is capped at 125 cycles where `capped` is said; told lives always are.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes.arphmm import ARPHMM
from rheobase.nodes.averages import Averages
from rheobase.nodes.gru import GRU
from rheobase.nodes.health import Health
from rheobase.nodes.mlp import MLP
from rheobase.nodes.regime_scale import RegimeScale
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.files import find
from rheobase.stream.fuse import apply
from rheobase.tools.lives import LEVELS, covered, crps, metrics, quantiles

F = NDArray[np.float64]
CAP, FOLDS, OLDEST = 125.0, 5, 200.0
"""Longest life told; folds; training rows with more life than this teach the regressors nothing."""
SPANS = (5.0, 10.0, 20.0, 40.0, 80.0)
YOUNGEST = 30
"""Cycles that an engine must have run to count in validation."""
REGIMES = {"FD001": 1, "FD002": 6}
ORDERS = (0, 1)
COLUMNS = ("unit", "altitude", "mach", "throttle", *(f"s{k}" for k in range(1, 22)))
"""Of a stream of engines: the columns of the files without the cycle, which is the time."""
STATES: dict[str, Any] = {"states": 26, "width": 5.0, "phases": 64, "pool": None}
NETWORKS: dict[str, Any] = {"hidden": 48, "members": 4, "decay": 0.05, "dropout": 0.05}
EPOCHS = 20


@dataclasses.dataclass(frozen=True)
class Engines:
    """X (T, 24) settings and sensors, unit (T,) and life (T,) cycles still to come."""

    X: F
    unit: NDArray[np.int64]
    life: F

    @property
    def capped(self) -> F:
        """min(life, 125) / 125, (T, 1)."""
        return np.minimum(self.life, CAP)[:, None] / CAP

    @property
    def last(self) -> NDArray[np.int64]:
        """The last row of each engine."""
        return np.flatnonzero(np.r_[np.diff(self.unit) != 0, True])


def read(name: str) -> tuple[Engines, Engines]:
    """The training engines of a set, which run until they fail, and the test engines, whose life at the end is told."""
    made = []
    for part in ("train", "test"):
        table = np.loadtxt(find(f"data:cmapss/{part}_{name}.txt.gz"))
        unit = table[:, 0].astype(np.int64)
        last = np.flatnonzero(np.r_[np.diff(unit) != 0, True])
        after = np.zeros(len(last)) if part == "train" else np.loadtxt(find(f"data:cmapss/RUL_{name}.txt"))
        index = np.searchsorted(unit[last], unit)
        made.append(Engines(table[:, 2:], unit, table[last[index], 1] - table[:, 1] + after[index]))
    return made[0], made[1]


def folds(unit: NDArray[np.int64], k: int = FOLDS, seed: int = 1) -> NDArray[np.int64]:
    """The fold (T,) of each row, drawn by engine."""
    names, index = np.unique(unit, return_inverse=True)
    return np.asarray(np.random.default_rng(seed).permutation(len(names))[index] % k)


def features(scale: RegimeScale, averages: Averages, e: Engines) -> F:
    """What the regressors see, by the nodes that run live."""
    Z = scale.predict(e.X, e.unit)
    return np.concatenate([apply(averages, Z[e.unit == k]).data for k in np.unique(e.unit)])


def regressors(X: F, e: Engines, fold: NDArray[np.int64]) -> tuple[MLP, F]:
    """The mean of the regressors of all folds as one, and what each says of the engines it had not seen, (T, 1)."""
    made, out = [], np.empty((len(X), 1))
    for k in range(fold.max() + 1):
        rows = (fold != k) & (e.life < OLDEST)
        made.append(MLP(**NETWORKS, seed=k).fit(X[rows], e.capped[rows], like={"best": np.array(EPOCHS)}))
        out[fold == k] = made[-1].predict(X[fold == k])
    return merged(made), out


def merged(made: list[MLP]) -> MLP:
    """The mean of several networks as one node."""
    first = made[0].arrays
    parts: dict[str, Any] = {k: np.concatenate([m.arrays[k] for m in made]) for k in ("W1", "b2", "W2", "W3")}
    parts["b1"] = np.concatenate(
        [m.arrays["b1"] + (first["x_mean"] - m.arrays["x_mean"]) @ m.arrays["W1"] for m in made]
    )
    parts["b3"] = np.mean([m.arrays["b3"] for m in made], axis=0)
    parts |= {"x_mean": first["x_mean"], "best": first["best"]}
    node = MLP(**NETWORKS | {"members": NETWORKS["members"] * len(made)})
    return node.hold(parts, {"n": len(first["x_mean"])}, {"channels": ["health"], "unit": ""})


def moments(e: Engines, draw: int = 10) -> NDArray[np.int64]:
    """Rows at which training engines are judged: so many of each engine, drawn from its life after 30 cycles."""
    rng, begin = np.random.default_rng(0), np.r_[0, e.last[:-1] + 1]
    return np.concatenate([rng.integers(a + YOUNGEST, b, draw) for a, b in zip(begin, e.last, strict=True)])


def filtered(H: F, e: Engines, fold: NDArray[np.int64], **settings: Any) -> tuple[ARPHMM, F, F, F]:
    """The filter learnt from all engines with calibrated levels; and from filters that had not seen an engine: what
    each gave (T, 12), its levels of the true lives (T,), and quantiles (T, 10)."""
    Y, u, q = np.empty((len(H), 12)), np.empty(len(H)), np.empty((len(H), len(LEVELS)))
    for k in range(fold.max() + 1):
        out = fold == k
        node = ARPHMM(**settings).fit(H[~out], e.life[~out, None], segment=e.unit[~out])
        Y[out], u[out] = node.predict(H[out], e.unit[out]), node.levels_of(H[out], e.life[out], e.unit[out])
        G, alpha = node.curve(H[out], e.unit[out])
        q[out] = quantiles(G, alpha)
    node = ARPHMM(**settings).fit(H, e.life[:, None], segment=e.unit, inputs=Spec(rate=0, channels=("health",)))
    return node.calibrate(u, e.unit), Y, u, q


def coverage_held_out(u: F, e: Engines, rows: NDArray[np.int64], settings: dict[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation, over 50 halvings of the engines, of how often lives of the one half lie in intervals
    that were calibrated on the other."""
    found = []
    for seed in range(50):
        half = folds(e.unit, 2, seed) == 0
        node = ARPHMM(**settings)
        node.calibrate(u[half], e.unit[half])
        low, _, high = node.arrays["levels"]
        test = rows[~half[rows]]
        found.append(float(np.mean((u[test] >= low) & (u[test] <= high))))
    return float(np.mean(found)), float(np.std(found))


def study(name: str, rich_table: rich.table.Table, folder: Path | None, boost: bool, gru: bool) -> None:
    """All figures of one set, printed as they come; models go to the folder."""
    say = rich.console.Console().print
    train, test = read(name)
    fold, rows = folds(train.unit), moments(train)
    spec = Spec(rate=0, channels=COLUMNS[1:])
    scale = RegimeScale(regimes=REGIMES[name]).fit(train.X, train.life[:, None], segment=train.unit, inputs=spec)
    averages = Averages(over=SPANS, age=True)
    X, X_test = features(scale, averages, train), features(scale, averages, test)
    begin = time.perf_counter()
    network, H = regressors(X, train, fold)
    took = time.perf_counter() - begin

    def judge(what: str, told: F, told_test: F, q: F | None = None, q_test: F | None = None) -> None:
        cv = metrics(np.clip(told, 0, CAP)[rows], np.minimum(train.life, CAP)[rows])
        end = np.clip(told_test, 0, CAP)
        m = metrics(end, np.minimum(test.life, CAP)[test.last])
        raw = metrics(end, test.life[test.last])
        made = [f"{cv['rmse']:.2f}", f"{m['rmse']:.2f}", f"{m['S']:.0f}", f"{m['accuracy']:.0f}", f"{raw['rmse']:.2f}",
                f"{raw['S']:.0f}"]  # fmt: skip
        for r, life in ((q, train.life[rows]), (q_test, test.life[test.last])):
            made.append("" if r is None else f"{crps(r, life):.2f}")
        rich_table.add_row(name, what, *made)
        say(name, what, *made)

    judge("regressor alone (mlp)", CAP * H[:, 0], CAP * network.predict(X_test)[test.last, 0])
    best: tuple[float, Any] = (np.inf, None)
    for order in ORDERS:
        settings = STATES | {"order": order}
        found = filtered(H, train, fold, **settings)
        loss = crps(found[3][rows], train.life[rows])
        say(f"  order {order}: pool {float(found[0].arrays['pool']):g}, CRPS of training engines left out {loss:.3f}")
        if loss < best[0]:
            best = (loss, (settings, found))
    settings, (node, Y, u, q) = best[1]
    H_test = network.predict(X_test)
    Y_test = node.predict(H_test, test.unit)[test.last]
    G, alpha = node.curve(H_test, test.unit)
    judge(f"arphmm on it, order {settings['order']}", Y[:, 8], Y_test[:, 8], q[rows], quantiles(G, alpha[test.last]))
    mean, sd = coverage_held_out(u, train, rows, settings)
    say(f"  90 % intervals, levels {np.round(node.arrays['levels'], 3)}: cover {100 * mean:.1f} +- {100 * sd:.1f} % of"
        f" training engines left out")  # fmt: skip
    share, width = covered(Y_test[:, 9], Y_test[:, 11], test.life[test.last])
    say(f"  test engines: {100 * share:.1f} %, mean width {width:.1f} cycles; networks learnt in {took:.0f} s")
    if folder:
        for word, made in (("scale", scale), ("network", network), ("life", node)):
            made.save(folder / f"{name}_{word}.npz")
    Z, Z_test = scale.predict(train.X, train.unit), scale.predict(test.X, test.unit)
    health = Health(smooth=10.0).fit(Z, train.life[:, None], segment=train.unit)
    h, h_test = health.predict(Z, train.unit), health.predict(Z_test, test.unit)
    young = train.life < OLDEST
    line = Ridge().fit(Z[young], CAP * train.capped[young])
    judge("linear, last sample", line.predict(Z)[:, 0], line.predict(Z_test)[test.last, 0])
    for states, order in ((6, 7), (26, 0)):
        node, Y, _, q = filtered(
            h, train, fold, **STATES | {"states": states, "width": 120 / (states - 1), "order": order}
        )
        Y_test = node.predict(h_test, test.unit)[test.last]
        G, alpha = node.curve(h_test, test.unit)
        judge(
            f"arphmm on health, Q {states}, P {order}", Y[:, 8], Y_test[:, 8], q[rows], quantiles(G, alpha[test.last])
        )
        if order:
            own_end = np.median(h[train.last, 0])
            told = np.array(
                [np.median(node.rollout(h_test[test.unit == k], own_end, 300)) for k in np.unique(test.unit)]
            )
            m = metrics(np.minimum(told, CAP), np.minimum(test.life, CAP)[test.last])
            say(f"  rolled out to health {own_end:.2f}: RMSE {m['rmse']:.2f}, S {m['S']:.0f}")
    if gru:
        rows_in = young & (fold != 0)
        net = GRU(hidden=32, noise=0.1).fit(Z, train.capped, rows=rows_in, segment=train.unit)
        judge("gru", CAP * net.predict(Z, train.unit)[:, 0], CAP * net.predict(Z_test, test.unit)[test.last, 0])
    if boost:
        boosted(X, X_test, train, test, fold, rows, judge)


def boosted(
    X: F, X_test: F, train: Engines, test: Engines, fold: NDArray[np.int64], rows: NDArray[np.int64], judge: Any
) -> None:
    """Gradient boosting on the same features, its size and rate chosen on two folds; its quantiles by pinball loss."""
    Boosting = importlib.import_module("sklearn.ensemble").HistGradientBoostingRegressor  # no requirement of ours
    young, y = train.life < OLDEST, CAP * train.capped[:, 0]

    def fit(a: Array, target: F, **kw: Any) -> Any:
        return Boosting(random_state=0, **kw).fit(X[a], target[a])

    fixed = {"min_samples_leaf": 50, "l2_regularization": 1.0}
    sizes = [(rate, n, leaves) for rate, n in ((0.1, 100), (0.05, 300)) for leaves in (8, 31)]
    tried = [{"learning_rate": r, "max_iter": n, "max_leaf_nodes": m, **fixed} for r, n, m in sizes]
    errors = []
    for kw in tried:
        told = np.full(len(y), np.nan)
        for k in range(2):
            told[fold == k] = fit(young & (fold != k), y, **kw).predict(X[fold == k])
        seen = rows[np.isfinite(told[rows])]
        errors.append(metrics(np.clip(told, 0, CAP)[seen], y[seen])["rmse"])
    kw = tried[int(np.argmin(errors))]
    told, q = np.empty(len(y)), np.empty((len(y), len(LEVELS)))
    for k in range(FOLDS):
        told[fold == k] = fit(young & (fold != k), y, **kw).predict(X[fold == k])
    ends = X_test[test.last]
    q_test = np.empty((len(ends), len(LEVELS)))
    small = kw | {"max_iter": 100, "learning_rate": 0.1, "max_leaf_nodes": 8}
    for j, level in enumerate(LEVELS):
        pin = small | {"loss": "quantile", "quantile": float(level)}
        q[fold == 0, j] = fit(fold != 0, train.life, **pin).predict(X[fold == 0])
        q_test[:, j] = fit(np.ones(len(y), bool), train.life, **pin).predict(ends)
    some = rows[fold[rows] == 0]
    what = f"gradient boosting, {kw['max_iter']} x {kw['max_leaf_nodes']} leaves"
    judge(what, told, fit(young, y, **kw).predict(ends), None, q_test)
    some = rows[fold[rows] == 0]
    say = rich.console.Console().print
    for word, r, life in (("a fold left out", q[some], train.life[some]), ("test", q_test, test.life[test.last])):
        share, width = covered(r[:, 0], r[:, -1], life)
        say(f"  its quantiles, {word}: cover {100 * share:.1f} %, width {width:.1f}, CRPS {crps(r, life):.2f}")


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="engines", description="Remaining life of turbofans (C-MAPSS, a simulation).")
    parser.add_argument("--set", action="append", choices=sorted(REGIMES), help="which set (all)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write the models of configs/fleet.yaml there")
    parser.add_argument("--boost", action="store_true", help="gradient boosting, too (needs scikit-learn)")
    parser.add_argument("--gru", action="store_true", help="a recurrent network, too")
    given = parser.parse_args(argv)
    table = rich.table.Table(title="Remaining life told at the last sample of each test engine, cycles")
    heads = ("set", "what", "left out: RMSE", "RMSE", "S", "accuracy %", "uncapped RMSE", "S", "left out: CRPS", "CRPS")
    for heading in heads:
        table.add_column(heading, justify="left" if heading in ("set", "what") else "right")
    try:
        for name in given.set or sorted(REGIMES):
            study(name, table, given.save, given.boost, given.gru)
    except StreamError as e:
        print(f"engines: {e}", file=sys.stderr)
        return 1
    rich.console.Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
