"""`python -m rheobase.tools.velocity`: sequence models side by side, from an inertial sensor to a body's velocity.

The trials of BROAD that `configs/imu_velocity.yaml` reads, through its graph: acceleration less gravity and turning
rate at 95.2 Hz and their differences, 12 channels; the velocity of the body in its own axes at 9.5 Hz, for the last
sample of each chunk of 10 (strictly causal) and for its first (which has seen 9 samples more, as Bhirangi et al. score
HiSS; here flat models have seen as much). Each model learns both at once. Models are learnt on four trials and run
over two that they never saw, and back.

HiSS has one layer in each level, the flat models two; widths are such that all have about the same number of weights.
The epoch kept is the one that predicts best what is held out of the learnt trials, and so are the lags of the ridge,
which then learns from all. Held-out pieces lie between learnt ones: they tell little of trials never seen.
Every result is a line of a file, and what is there is not done again.

`--features reckoned_fast` gives all of them what the graph has besides: the acceleration summed up over 2 s along the
world's axes and turned back into the body's, with acceleration and turning rate, 9 channels.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes._level import OWN, Kind
from rheobase.nodes._sequence import SequenceModel
from rheobase.nodes._training import split
from rheobase.nodes.hiss import HiSS
from rheobase.nodes.ridge import Ridge
from rheobase.nodes.sequence import Sequence
from rheobase.stream.block import Spec
from rheobase.stream.cli import find_graph
from rheobase.tools.fit import aligned, gather

F = NDArray[np.float64]
KINDS = get_args(Kind)
TRIALS = ("02", "10", "12", "15", "11", "18")
"""In the order of the config, 200 s apart."""
WAYS = {"forth": (("02", "10", "12", "15"), ("11", "18")), "back": (("11", "18"), ("02", "10", "12", "15"))}
"""Trials to learn from, and trials to be scored on."""
FEATURES = ("inputs", "reckoned_fast")
K = 10
WEIGHTS = 40_000
RATES = (1e-2,)
"""Largest steps of learning, of which the one that predicts best what is held out is taken."""
HELD_OUT = 0.2
LAGS = (1, 5, 10, 20, 40, 80)
TAUGHT: dict[str, Any] = dict(k=K, chunks=80, batch=8, epochs=20, held_out=HELD_OUT)
"""How all of them are learnt. Windows of 80 chunks against 40 and a step of 0.01 against 0.003 were chosen with trial
10 left out of the learnt ones, on four models (s4d, lstm, s4d/s4d, lstm/lstm): lstm alone would have it otherwise."""
FLAT = {"memory": [0.02, 8.0], "layers": 2, "states": 32, "context": 64 * K}
LOW = {"memory": [0.01, 0.1], "layers": 1, "states": 16, "context": K}
HIGH = {"memory": [0.1, 8.0], "layers": 1, "states": 32, "context": 64}


@dataclasses.dataclass
class Recorded:
    """x (T, n), z (T, 3) at the times of x, and the trial of each row."""

    x: F
    z: F
    trial: NDArray[np.str_]
    spec: Spec


def recorded(features: str) -> Recorded:
    """All trials through the graph of the config."""
    found = gather(find_graph("imu_velocity"), [features, "velocity"])
    x = found[features]
    which = (x.times // 200).astype(int)
    return Recorded(x.data, aligned(found["velocity"], x.times), np.array(TRIALS)[which], x.spec)


def joined(z: F) -> F:
    """z at each row, and beside it z at K - 1 rows before: (T, 6)."""
    before = np.full_like(z, np.nan)
    before[K - 1 :] = z[: 1 - K]
    return np.hstack([z, before])


def part(data: Recorded, trials: Iterable[str], share: float = 1.0) -> tuple[F, F, NDArray[np.int64]]:
    """x, joined z and segment of some trials, or of the middle share of each."""
    xs, zs, segments = [], [], []
    for k, name in enumerate(trials):
        rows = np.flatnonzero(data.trial == name)
        cut = int(len(rows) * (1 - share) / 2)
        rows = rows[cut : len(rows) - cut]
        xs.append(data.x[rows])
        zs.append(joined(data.z[rows]))
        segments.append(np.full(len(rows), k))
    return np.vstack(xs), np.vstack(zs), np.concatenate(segments)


def model(name: str, width: int, **more: Any) -> SequenceModel:
    """ "s4d" is flat; "s4/lstm" has s4 over samples and lstm over chunks."""
    taught = TAUGHT | more
    if "/" not in name:
        return Sequence(net=stack(name, width, FLAT), **taught)
    low, high = name.split("/")
    return HiSS(low=stack(low, width, LOW), high=stack(high, width, HIGH), **taught)


def stack(kind: str, width: int, more: dict[str, Any]) -> dict[str, Any]:
    """The words of a level, those that its kind knows; Mamba has its own number of states."""
    known = [k for k in ("layers", *OWN[kind]) if k in more and (k, kind) != ("states", "mamba")]
    return {"type": kind, "width": width} | {k: more[k] for k in known}


def count(node: SequenceModel, n: int = 12) -> int:
    """Weights of a model of n channels."""
    return sum(v.size for v in node.begin(np.random.default_rng(0), 95.0, n, 6).values())


@functools.cache
def width(name: str) -> int:
    """The even width with about WEIGHTS weights."""
    return min(range(8, 200, 2), key=lambda w: abs(count(model(name, w)) - WEIGHTS))


def scored(node: Any, data: Recorded, trials: Iterable[str]) -> dict[str, Any]:
    """Of the rows that end a chunk: mse and r2 by axis for the last and for the first sample, and mse by trial."""
    ys, zs, by = [], [], {}
    for name in trials:
        x, z, _ = part(data, [name])
        y = node.predict(x)[K - 1 :: K]
        z = z[K - 1 :: K]
        there = np.isfinite(y).all(axis=1) & np.isfinite(z).all(axis=1)
        ys.append(y[there])
        zs.append(z[there])
        by[name] = float(np.mean((ys[-1] - zs[-1])[:, :3] ** 2))
    y, z = np.vstack(ys), np.vstack(zs)
    mse = np.mean((y - z) ** 2, axis=0)
    r2 = 1 - mse / z.var(axis=0)
    return {
        "mse": float(mse[:3].mean()), "ahead": float(mse[3:].mean()), "axes": mse[:3].tolist(),
        "r2": r2[:3].tolist(), "r2_ahead": r2[3:].tolist(), "trials": by,
    }  # fmt: skip


def ridge(data: Recorded, way: str, share: float, among: Iterable[int]) -> dict[str, Any]:
    """The ridge whose lags predict what is held out best, learnt from all."""
    x, z, segment = part(data, WAYS[way][0], share)
    _, judge = split(segment, HELD_OUT, TAUGHT["chunks"] * K)
    out = np.zeros(len(x), bool)
    for i, e in judge:
        out[i:e] = True
    good = np.isfinite(z).all(axis=1)
    errors = {}
    for lags in among:
        y = Ridge(lags=lags).fit(x, z, rows=good & ~out, segment=segment).predict(x, segment)
        errors[lags] = float(np.mean((y - z)[good & out] ** 2 / z[good].var(axis=0)))
    best = min(errors, key=lambda k: errors[k])
    node = Ridge(lags=best).fit(x, z, rows=good, segment=segment)
    return scored(node, data, WAYS[way][1]) | {"held_out": errors[best], "lags": best, "weights": node.arrays["W"].size}


def learnt(data: Recorded, name: str, way: str, seed: int, rate: float, share: float) -> dict[str, Any]:
    """One fit and its scores."""
    x, z, segment = part(data, WAYS[way][0], share)
    node, errors = model(name, width(name), seed=seed, learning_rate=rate), []
    node.told = lambda epoch, epochs, error: errors.append(error)
    began = time.process_time()
    node.fit(x, z, segment=segment, inputs=data.spec)
    seconds = time.process_time() - began
    more = {"held_out": min(errors), "rate": rate, "weights": count(node, data.spec.n), "seconds": seconds}
    return scored(node, data, WAYS[way][1]) | more


def study(path: Path, features: str, names: Iterable[str], ways: Iterable[str], seeds: int, share: float) -> None:
    """Do what is not yet in the file."""
    done = [r for r in read(path) if r["features"] == features]
    data = recorded(features)

    def there(**key: Any) -> list[dict[str, Any]]:
        return [r for r in done if all(r[k] == v for k, v in key.items())]

    def note(row: dict[str, Any]) -> None:
        row["features"] = features
        done.append(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as f:
            f.write(json.dumps(row) + "\n")

    for way in ways:
        for name, among in (("ridge", LAGS), ("ridge, 1 lag", LAGS[:1])):
            if not there(name=name, way=way, share=share):
                note({"name": name, "way": way, "seed": 0, "share": share} | ridge(data, way, share, among))
    for seed in range(seeds):
        for way in ways:
            for name in names:
                first = there(name=name, way=way, seed=0, share=share)
                tried = [r["rate"] for r in first]
                best = [min(first, key=lambda r: r["held_out"])["rate"]] if len(first) == len(RATES) else []
                for rate in [r for r in RATES if r not in tried] if seed == 0 else best:
                    if not there(name=name, way=way, seed=seed, share=share, rate=rate):
                        key = {"name": name, "way": way, "seed": seed, "share": share}
                        note(key | learnt(data, name, way, seed, rate, share))


def read(path: Path) -> list[dict[str, Any]]:
    """The results so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [{"features": FEATURES[0]} | json.loads(line) for line in lines]


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each model and way those with the rate that predicted best what was held out, with seed 0."""
    found = []
    for key in {(r["name"], r["way"], r["share"], r["features"]) for r in rows}:
        mine = [r for r in rows if (r["name"], r["way"], r["share"], r["features"]) == key]
        best = min((r for r in mine if r["seed"] == 0), key=lambda r: r["held_out"])
        found += [r for r in mine if r.get("rate") == best.get("rate")]
    return found


def show(rows: list[dict[str, Any]], way: str, share: float, features: str, console: rich.console.Console) -> None:
    """A line a model, the best first."""
    mine = [r for r in chosen(rows) if (r["way"], r["share"], r["features"]) == (way, share, features)]
    learn, test = WAYS[way]
    title = f"{features}: learnt on {', '.join(learn)}, scored on {', '.join(test)}, {share:.0%} of the data"
    table = rich.table.Table(title=title)
    for heading in ("model", "weights", "seeds", "mse, causal", "r2 x, y, z", "mse, ahead", "r2 ahead", "held out"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=heading == "model")
    names = {r["name"] for r in mine}
    by = {n: [r for r in mine if r["name"] == n] for n in names}
    for n in sorted(names, key=lambda n: float(np.mean([r["mse"] for r in by[n]]))):
        each = by[n]
        mean = {k: np.mean([r[k] for r in each], axis=0) for k in ("mse", "ahead", "r2", "r2_ahead", "held_out")}
        spread = {k: np.std([r[k] for r in each]) for k in ("mse", "ahead")}
        table.add_row(
            n, str(each[0]["weights"]), str(len(each)), f"{mean['mse']:.4f} ± {spread['mse']:.4f}",
            ", ".join(f"{v:.3f}" for v in mean["r2"]), f"{mean['ahead']:.4f} ± {spread['ahead']:.4f}",
            f"{np.mean(mean['r2_ahead']):.3f}", f"{mean['held_out']:.4f}",
        )  # fmt: skip
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    """Do what is missing, print the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="velocity", description="Sequence models on the inertial trials of BROAD.")
    parser.add_argument("--file", default="runs/velocity.jsonl", help="where the results are (runs/velocity.jsonl)")
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (5)")
    parser.add_argument("--models", nargs="*", metavar="NAME", help="as s4d or s4/lstm (all)")
    parser.add_argument("--ways", nargs="*", choices=list(WAYS), default=list(WAYS), help="which trials are learnt")
    parser.add_argument("--share", type=float, default=1.0, metavar="S", help="of each learnt trial, its middle (1)")
    parser.add_argument("--features", choices=FEATURES, default=FEATURES[0], help="what they are given (inputs)")
    parser.add_argument("--show", action="store_true", help="only print what is there")
    given = parser.parse_args(argv)
    every = [*KINDS, *(f"{a}/{b}" for a in KINDS for b in KINDS)]
    names = given.models or every
    wrong = [n for n in names if n not in every]
    if wrong or given.seeds < 1 or not 0.2 <= given.share <= 1:
        print(
            f"velocity: {f'no model {wrong[0]!r}' if wrong else 'seeds: at least 1; share: 0.2 to 1'}", file=sys.stderr
        )
        return 1
    path = Path(given.file)
    if not given.show:
        study(path, given.features, names, given.ways, given.seeds, given.share)
    console, rows = rich.console.Console(), read(path)
    for features, share, way in sorted({(r["features"], r["share"], r["way"]) for r in rows if r["way"] in given.ways}):
        show(rows, way, share, features, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
