"""A closed loop in virtual time: person -> bins -> z-score -> decoder -> task -> person, in one process.

There is no stream and no clock: the graph's own kernels run in their compiled loop, and what the task shows after a
bin is what the person sees next. The same seeds give the same session to the last bit, some hundred times faster than
it would take a person.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import copy
import dataclasses
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import scipy.stats
from numpy.typing import NDArray

from rheobase.devices._labelled import Labelled
from rheobase.devices._person import SEEN, Change, World
from rheobase.devices.cursor_user import CursorUser
from rheobase.devices.recalibrate import Recalibrate
from rheobase.nodes._decoder import Decoder
from rheobase.nodes.bins import Bins
from rheobase.nodes.dkf import DKF
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.lowpass import Lowpass
from rheobase.nodes.refit import ReFIT
from rheobase.nodes.task import TASK, Task
from rheobase.nodes.zscore import Zscore
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop
from rheobase.stream.node import Kernel, nearest
from rheobase.stream.run import new_folder
from rheobase.tools.page import page, table
from rheobase.tools.trials import summary, trials

F = NDArray[np.float64]

WIDTH = 0.02
"""s: width of a bin of spike counts, and so the period of decoder and task."""
LOOK = [TASK.index(name) for name in SEEN]
LABEL = [TASK.index(name) for name in ("intended_x", "intended_y")]


@dataclasses.dataclass(frozen=True)
class Record:
    """What one stretch of a session gave, a row a bin.

    times     (T,) s since the person began
    counts    (T, n) spike counts
    features  (T, n) the same, z-scored: what the decoder took
    decoded   (T, 2) m/s (open loop: NaN)
    rows      (T, 11) of the task (`TASK`)
    wanted    (T, 2) what the person truly intended at the end of the bin, m/s
    """

    times: F
    counts: F
    features: F
    decoded: F
    rows: F
    wanted: F

    @property
    def labels(self) -> F:
        """(T, 2) what the task says was intended, m/s."""
        return self.rows[:, LABEL]

    def since(self, t: float, until: float = math.inf) -> Record:
        """The part from t s on, the end left out."""
        at = (self.times > t - 1e-9) & (self.times < until - 1e-9)
        return Record(*(getattr(self, f.name)[at] for f in dataclasses.fields(self)))


class Session:
    """One person and their graph. `run` goes on where the last one ended; `copy` is a twin with the same future.

    user      the person: `step` and `rate` such that a bin of WIDTH s holds whole steps
    smooth    time constant of an exponential smoothing of the counts, s; 0: none
    settle    s of bins after which mean and sd of the z-score stay as they are
    """

    def __init__(self, user: CursorUser, smooth: float = 0.0, settle: float = 60.0) -> None:
        user.check()
        per = WIDTH / user.step
        if abs(per - round(per)) > 1e-9 or per < 0.5:
            raise StreamError(f"step: {user.step:g} s does not divide a bin of {WIDTH:g} s")
        self.spec = Spec(rate=user.rate, channels=numbered("n", user.neurons), unit="count")
        self.world, self.smooth, self.settle = World(user), smooth, settle
        self.kept: list[list[F]] = []
        self.row: list[float] | None = None

    def copy(self) -> Session:
        """A twin: person and graph as they are now."""
        twin = copy.copy(self)
        twin.world = copy.deepcopy(self.world)
        return twin

    def run(
        self,
        seconds: float,
        task: Task,
        decoder: Decoder | None = None,
        every: float = 0.0,
        adapt: Callable[[Record], Decoder | None] | None = None,
    ) -> Record:
        """So many seconds of one task, begun anew.

        decoder  fitted; None: open loop, for which the task's `control` must be false
        adapt    called every `every` s with all of this run so far; a decoder that it returns (fitted, of the same
                 kind) is swapped in before the next sample
        """
        front: list[Kernel] = [Bins(width=WIDTH), *self._scaling()]
        f, last = len(front) - 1, len(front) + (decoder is not None)
        kernels = [*front, *([copy.copy(decoder)] if decoder else []), task]
        loop = Loop(kernels, range(-1, last), sorted({0, f, last - 1, last}))
        specs = loop.start(self.spec)
        self._recall(front[1:])
        n, bins, per = self.spec.n, round(seconds / WIDTH), round(WIDTH / self.world.dt)
        times = np.zeros(bins)
        counts, features, decoded, rows, wanted = (np.full((bins, c), np.nan) for c in (n, n, 2, len(TASK), 2))
        tables = {0: counts, last - 1: decoded, f: features, last: rows}
        gap = round(every / WIDTH) if adapt else 0
        world = self.world
        after = [i / world.rate for i in range(1, world.samples + 1)]
        for k in range(bins):
            for _ in range(per):
                begin = world.t
                for j, out in loop.process(Block(world.step(self.row), np.array([begin + s for s in after]))):
                    tables[j][k] = out.data[0]
            self.row = rows[k, LOOK].tolist()
            times[k], wanted[k] = world.t, world.wanted
            if adapt and gap and (k + 1) % gap == 0:
                so_far = Record(*(a[: k + 1] for a in (times, counts, features, decoded, rows, wanted)))
                if (fresh := adapt(so_far)) is not None:
                    fresh.start(specs[f])
                    loop.swap(f + 1, fresh.params, fresh.state)
        self.kept = [[a.copy() for a in k.state] for k in front[1:]]
        return Record(times, counts, features, decoded, rows, wanted)

    def scaled(self, counts: F) -> F:
        """Counts (T, n) from the first on, as features by the mean and sd of now."""
        front = self._scaling()
        loop = Loop(front, range(-1, len(front) - 1), [len(front) - 1])
        loop.start(self.spec.replace(rate=1 / WIDTH))
        self._recall(front[-1:])
        return np.asarray(loop.process(Block(counts, np.arange(float(len(counts)))))[0][1].data)

    def _scaling(self) -> list[Kernel]:
        smooth: list[Kernel] = [Lowpass(corner=1 / (2 * math.pi * self.smooth), order=1)] if self.smooth else []
        return [*smooth, Zscore(window=self.settle, freeze=self.settle)]

    def _recall(self, kernels: Sequence[Kernel]) -> None:
        """Give the last of the kernels before the decoder the state in which the last run left them."""
        for kernel, kept in zip(kernels, self.kept[-len(kernels) :], strict=False):
            for a, b in zip(kernel.state, kept, strict=True):
                a[:] = b


Pair = tuple[F, F]
"""Features (T, n) and labels (T, 2) of an unbroken stretch."""

OPEN = 40.0
ASSIST = ((60.0, 0.8), (60.0, 0.5), (60.0, 0.2))
"""A third of what `rheo calibrate` takes: s of open loop; s of a block, and the share taken away of the velocity across
the way to the target."""


def calibrate(
    session: Session,
    decoder: Decoder,
    watch: float = OPEN,
    assist: Sequence[tuple[float, float]] = ASSIST,
    seed: int = 0,
) -> tuple[Decoder, list[Pair]]:
    """The day of `rheo calibrate`: watch, fit, drive with help that fades; after each block a fit on all so far.

    Returns the last fit, and all that it learnt from.
    """
    watched = session.run(watch, Task(task="radial8", control=False, seed=seed))
    begun = round(1.0 / WIDTH)  # before, the smoothing is still filling
    pairs = [(session.scaled(watched.counts)[begun:], watched.labels[begun:])]
    fitted = fit(decoder, pairs)
    for k, (seconds, attenuate) in enumerate(assist):
        task = Task(task="radial8", assist=[{"seconds": seconds, "attenuate": attenuate}], seed=seed + 1 + k)
        driven = session.run(seconds, task, fitted)
        pairs.append((driven.features, driven.labels))
        fitted = fit(decoder, pairs)
    return fitted, pairs


def fit(decoder: Decoder, pairs: Sequence[Pair]) -> Decoder:
    """A fresh decoder of the same parameters, fitted."""
    X, Z = (np.concatenate([p[k] for p in pairs]) for k in (0, 1))
    return _fit(decoder, X, Z, np.repeat(np.arange(len(pairs)), [len(p[0]) for p in pairs]), None)


def _fit(decoder: Decoder, X: F, Z: F, segment: Any, like: dict[str, Any] | None) -> Decoder:
    out = Spec(rate=1 / WIDTH, channels=("vx", "vy"), unit="m/s")
    return dataclasses.replace(decoder).fit(X, Z, segment=segment, outputs=out, like=like)


def recalibration(
    decoder: Decoder,
    earlier: Sequence[Pair] = (),
    window: float = Recalibrate.window,
    realign: float = Recalibrate.realign,
    least: float = Recalibrate.least,
) -> Callable[[Record], Decoder | None]:
    """Refits from use, as `Session.run` takes them: of a `recalibrate` node, by its code and parameters (a fit takes
    no time).

    decoder  the fitted one, whose hyper-parameters they keep
    earlier  what it learnt from, and they go on from
    """
    labelled = Labelled((0, 1), round(window / WIDTH))
    for k, (X, Z) in enumerate(earlier):
        labelled.add(np.zeros(len(X)), X, Z, np.full(len(X), k))
    present, seen = decoder, 0

    def adapt(record: Record) -> Decoder | None:
        nonlocal present, seen
        times, X, Z = (a[seen:] for a in (record.times, record.features, record.labels))
        labelled.add(times, X, Z, np.full(len(X), len(earlier)))
        seen += len(X)
        if labelled.rows * WIDTH < least - 1e-9:
            return None
        labelled.realign(present, round(realign / WIDTH))
        _, X, Z, stretch = labelled.all()
        present = _fit(decoder, X, Z, stretch, decoder.arrays)
        return present

    return adapt


def bits(record: Record, a: float = 0.0, b: float = math.inf) -> float:
    """Bit rate of the grid task from a to b s of a record, bit/s; 0 where no trial ended."""
    part = record.since(record.times[0] + a, record.times[0] + b)
    return summary(trials(part.times, part.rows), "grid", bootstrap=0)["grid_bits_s"] or 0.0


def turn(record: Record, a: float = 0.0, b: float = math.inf) -> float:
    """Mean angle from what was wanted to what was decoded, from a to b s, degrees: atan2(sum w x v, sum w . v)."""
    part = record.since(record.times[0] + a, record.times[0] + b)
    (wx, wy), (vx, vy) = part.wanted.T, part.decoded.T
    return math.degrees(math.atan2(float((wx * vy - wy * vx).sum()), float((wx * vx + wy * vy).sum())))


# --- the study


@dataclasses.dataclass(frozen=True)
class Arm:
    """A decoder of the study and the smoothing before it, s."""

    decoder: Decoder
    smooth: float = 0.0


def arms() -> dict[str, Arm]:
    """The decoders compared. What is not a default was chosen on persons 100 to 102, who are not in the study:
    smoothing (0, 0.04 or 0.1 s) and scale (1 or learnt) by the bit rate without disturbance; of MK-DKF ell (1, 1.5, 2)
    by that too, and sigma_n (learnt, 0.03) by the bit rate with recalibration; all of it at gain 1.

    The gain of both DKFs is none, so that their cursor is as fast as that of a Kalman filter: by this rule Brandman et
    al. (2018) compared the two, and nothing was chosen.
    """
    multi = {"type": "gaussian_process", "kernel": "multi", "directions": 8, "ell": 1.5, "sigma_n": 0.03}
    return {
        "kalman": Arm(Kalman()),
        "refit": Arm(ReFIT()),
        "dkf": Arm(DKF(f="ridge", scale=None, gain=None), smooth=0.04),
        "mk-dkf": Arm(DKF(f=multi, scale=None, gain=None), smooth=0.04),
    }


TESTED = 120.0
"""s of the grid task in each condition."""
USED = 60.0
"""s of use before a rotation, and s after it within which recalibration should recover."""
OFFSET, ROTATION = 5.0, 60.0
"""Standard deviations; degrees."""
CONDITIONS = ("plain", "offset", "offset_best", "before", "rotated", "recalibrated")
TURNS = ("turn_before", "turn_after", "turn_rotated", "turn_recalibrated")


def measure(seed: int, arm: Arm) -> dict[str, float]:
    """One person with one decoder: bit rates (bit/s) and angles (degrees).

    plain                       TESTED s of the grid without disturbance
    offset, offset_best         the same with an offset of OFFSET on two neurons: drawn by chance, and the two whose
                                tuning is deepest beside their noise
    before                      USED s of the grid; then all tuning is rotated by ROTATION
    rotated, recalibrated       from USED s after that for USED s, without and with refits from use (a `recalibrate`
                                node as it comes), which went on all the time and know nothing of the rotation
    turn_before, turn_after     angle from what is wanted to what is decoded before, and in the first 10 s after
    turn_rotated, _recalibrated from USED s after that for USED s, as above

    All go on from the same moment after the calibration, with the same targets.

    The node's defaults go on from the calibration and turn its labels. On persons 100 to 102, recalibrated, they gave
    2.37 bit/s (MK-DKF), 2.60 (DKF), 2.58 (Kalman), 2.48 (ReFIT); fits on the last 45 s alone 2.12, 2.37, 2.44, 2.45.
    """
    session = Session(CursorUser(step=WIDTH, rate=1 / WIDTH, brain=seed, seed=seed), arm.smooth, settle=OPEN)
    decoder, learnt = calibrate(session, arm.decoder, seed=seed)
    drawn = np.random.default_rng(seed).choice(session.spec.n, 2, replace=False)
    best = session.world.neurons.informative()[:2]

    def run(*change: Any, seconds: float = TESTED, after: float = 0.0, refits: bool = False) -> Record:
        twin = session.copy()
        twin.world.pending += [Change(twin.world.t + after, *change)] if change else []
        adapt = recalibration(decoder, learnt) if refits else None
        return twin.run(seconds, Task(task="grid", seed=seed), decoder, Recalibrate.every, adapt)

    plain = run()
    offset, offset_best = (run("offset", OFFSET, tuple(c.tolist())) for c in (drawn, best))
    rotated, recalibrated = (run("rotate", ROTATION, seconds=3 * USED, after=USED, refits=r) for r in (False, True))
    return {
        "plain": bits(plain),
        "offset": bits(offset),
        "offset_best": bits(offset_best),
        "before": bits(recalibrated, 0.0, USED),
        "rotated": bits(rotated, 2 * USED),
        "recalibrated": bits(recalibrated, 2 * USED),
        "turn_before": turn(recalibrated, 0.0, USED),
        "turn_after": turn(recalibrated, USED, USED + 10.0),
        "turn_rotated": turn(rotated, 2 * USED),
        "turn_recalibrated": turn(recalibrated, 2 * USED),
    }


def mean(x: F) -> tuple[float, float, float]:
    """Mean over persons, and its 95 % interval by Student's t."""
    half = float(scipy.stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))) if len(x) > 1 else math.nan
    return float(x.mean()), float(x.mean()) - half, float(x.mean()) + half


def kept(x: F, plain: F) -> tuple[float, float, float]:
    """Mean of x over mean of plain, and its 95 % interval: the percentile bootstrap over persons."""
    drawn = np.random.default_rng(0).integers(0, len(x), (5000, len(x)))
    whole = plain[drawn].sum(axis=1)
    each = np.divide(x[drawn].sum(axis=1), whole, out=np.zeros(len(drawn)), where=whole > 0)
    low, high = np.percentile(each, [2.5, 97.5])
    return float(x.sum() / max(plain.sum(), 1e-12)), float(low), float(high)


HEADS = (
    "decoder",
    "plain, bit/s",
    "offset on two neurons",
    "kept",
    "on the two best",
    "kept",
    "60 s after a rotation",
    "recalibrated from use",
    "kept",
    "angle before, °",
    "10 s after",
    "60 s after",
    "recalibrated",
)


def rows(found: dict[str, list[dict[str, float]]]) -> list[list[str]]:
    """The table: a row a decoder, under HEADS; mean [95 % interval] over persons, of angles mean ± sd."""
    made = []
    for name, people in found.items():
        x = {m: np.array([p[m] for p in people]) for m in (*CONDITIONS, *TURNS)}
        rate = {m: _number(mean(x[m]), ".2f") for m in CONDITIONS}
        share = {m: _number(kept(x[m], x["plain"]), ".0%") for m in ("offset", "offset_best")}
        row = [name, rate["plain"], rate["offset"], share["offset"], rate["offset_best"], share["offset_best"]]
        row += [rate["rotated"], rate["recalibrated"], _number(kept(x["recalibrated"], x["plain"]), ".0%")]
        made.append([*row, *(f"{x[a].mean():.0f} ± {x[a].std():.0f}" for a in TURNS)])
    return made


def markdown(found: dict[str, list[dict[str, float]]]) -> list[str]:
    """The table, as lines that a README takes."""
    body = [HEADS, ["---"] * len(HEADS), *rows(found)]
    return [f"| {' | '.join(line)} |" for line in body]


def _number(of: tuple[float, float, float], form: str) -> str:
    return f"{of[0]:{form}} [{of[1]:{form}}, {of[2]:{form}}]"


def study(
    seeds: Sequence[int], among: dict[str, Arm], jobs: int, told: Callable[[str], None] = print
) -> dict[str, list[dict[str, float]]]:
    """Every person with every decoder; `told` hears of each as it is done."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in among}
    tasks = [(seed, name) for seed in seeds for name in among]
    with concurrent.futures.ProcessPoolExecutor(jobs) as pool:
        each = [pool.submit(measure, seed, among[name]) for seed, name in tasks]
        for (seed, name), future in zip(tasks, each, strict=True):
            found[name].append(future.result())
            told(f"person {seed}, {name}: " + ", ".join(f"{k} {v:.2f}" for k, v in found[name][-1].items()))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study, print its table, write closed_loop.json and closed_loop.html; returns the exit code."""
    parser = argparse.ArgumentParser(prog="closed_loop", description="Decoders in a simulated closed loop.")
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="persons (20)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first (0)")
    parser.add_argument("--decoders", nargs="+", metavar="NAME", help="which of them (all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where it goes (runs/closed-loop-DATE)")
    given = parser.parse_args(argv)
    console = rich.console.Console()
    try:
        known = arms()
        for name in given.decoders or ():
            if name not in known:
                raise StreamError(f"no decoder {name!r}{nearest(name, known)}")
        if min(given.seeds, given.jobs) < 1 or given.first < 0:
            raise StreamError("seeds and jobs: at least 1; first: not negative")
        among = {name: known[name] for name in given.decoders or known}
        folder = given.folder or new_folder("closed-loop")
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        seeds = range(given.first, given.first + given.seeds)
        found = study(seeds, among, given.jobs, lambda line: console.print(line, highlight=False, style="dim"))
    except StreamError as e:
        print(f"closed_loop: {e}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - began
    told = f"{len(seeds)} simulated persons; mean [95 % interval]; {seconds:.0f} s with {given.jobs} processes"
    console.print(told, highlight=False)
    for line in markdown(found):
        console.print(line, highlight=False, soft_wrap=True)
    (folder / "closed_loop.json").write_text(json.dumps({"seeds": list(seeds), "decoders": found}, indent=1))
    wrote = page(
        folder / "closed_loop.html", "Decoders in a simulated closed loop", _sections(found, among, seeds, told)
    )
    console.print(f"wrote {wrote} and closed_loop.json beside it", highlight=False, soft_wrap=True)
    return 0


def _sections(
    found: dict[str, list[dict[str, float]]], among: dict[str, Arm], seeds: Sequence[int], told: str
) -> dict[str, list[str]]:
    each = [
        [name, str(i), *(f"{p[m]:.2f}" for m in (*CONDITIONS, *TURNS))]
        for name, people in found.items()
        for i, p in zip(seeds, people, strict=True)
    ]
    return {
        "Grid task, 36 cells": [table(HEADS, rows(found), told)],
        "How it was measured": [(measure.__doc__ or "").strip(), (arms.__doc__ or "").strip()],
        "Decoders": [table(("decoder", "what"), [[k, repr(a)] for k, a in among.items()], texts=2)],
        "Each person": [table(("decoder", "person", *CONDITIONS, *TURNS), each)],
    }


if __name__ == "__main__":
    sys.exit(main())
