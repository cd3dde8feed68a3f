"""How well a closed loop went, from the stream of its task alone: trials, and what they add up to.

    python -m rheobase.tools.trials runs/cursor-2026-11-23 [...]

W = 2 radius + CURSOR / 2: width of a target, its diameter and the cursor's radius, m
D: from where the cursor was on the trial's first sample to the target's centre, m
T: time of a trial, its hold included, s;  M = T less the time held at its end: movement time, s

index of difficulty    ID = log2(D / W + 1), bit. MacKenzie 1992, Hum.-Comput. Interact. 7:91
throughput             mean of ID / M over acquired targets, bit/s. Soukoreff & MacKenzie 2004, Int. J. Hum.-Comput.
                       Stud. 61:751; M ends where the target was last entered: Gilja et al. 2012, Nat. Neurosci. 15:1752
information rate       sum of ID over acquired targets / sum of T over all trials, bit/s: failures and holds cost time
regression             M = a + b ID, least squares over acquired targets: a s, b s/bit. Simeral et al. 2011,
                       J. Neural Eng. 8:025027
path efficiency        straight distance from the first sample's cursor to the last one's / length of the way between,
                       mean over acquired targets
grid bit rate          log2(N - 1) max(S_c - S_i, 0) / sum of T, bit/s; N cells, S_c right and S_i wrong selections.
                       Nuyujukian et al. 2015, IEEE Trans. Biomed. Eng. 62:21
intervals              95 %, the percentile bootstrap over trials. Efron & Tibshirani 1993, ch. 13

Trials that began inside their target count, but not for D, M and the way, of which they have none.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.devices.replay import Replay, streams
from rheobase.nodes._targets import CELLS, CURSOR
from rheobase.nodes.task import ACQUIRED, GOING, TASK, TIMEOUT, WRONG, Task
from rheobase.stream.block import StreamError
from rheobase.tools.replay import recording

F = NDArray[np.float64]


@dataclass(frozen=True)
class Trial:
    """One target, from the first sample on which it stood there to the last.

    times (n,) s, cursor (n, 2) m after each sample's move, target (2,) m, radius m, held: s in the target at the
    end, dt: s from a sample to the next, assist: mean share of the perpendicular velocity taken away.
    """

    number: int
    outcome: int
    times: F
    cursor: F
    target: F
    radius: float
    held: float
    dt: float
    assist: float

    @property
    def seconds(self) -> float:
        """T, s."""
        return len(self.times) * self.dt

    @property
    def moving(self) -> float:
        """M, s."""
        return self.seconds - self.held

    @property
    def distance(self) -> float:
        """D, m."""
        return math.dist(self.cursor[0], self.target)

    @property
    def difficulty(self) -> float:
        """ID, bit."""
        return math.log2(self.distance / (2 * self.radius + CURSOR / 2) + 1)

    @property
    def efficiency(self) -> float:
        """Of its path, 0 to 1."""
        length = float(np.hypot(*np.diff(self.cursor, axis=0).T).sum())
        return math.dist(self.cursor[0], self.cursor[-1]) / length if length else math.nan

    @property
    def moved(self) -> bool:
        """Whether there was a way to go."""
        return self.distance > self.radius and self.moving > 0


def trials(times: F, rows: F) -> list[Trial]:
    """The trials of a task's stream: times (T,) s and rows (T, 11), channels `TASK`.

    Left out: what did not end, what began before the stream did, and a trial with a gap in it or just before, whose way
    is not known.
    Raises StreamError where the shapes do not suit.
    """
    times, rows = np.asarray(times, np.float64), np.asarray(rows, np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(TASK) or times.shape != rows.shape[:1]:
        raise StreamError(f"a task's stream has times (T,) and rows (T, {len(TASK)}), got {times.shape}, {rows.shape}")
    if len(rows) < 2:
        return []
    at = {c: rows[:, i] for i, c in enumerate(TASK)}
    dt = float(np.median(np.diff(times)))
    begins = np.flatnonzero(np.diff(at["number"], prepend=np.nan) != 0)
    found = []
    for a, b in zip(begins, [*begins[1:], len(rows)], strict=True):
        outcome = int(at["outcome"][b - 1])
        cut_off = a == 0 and at["number"][0] != 1
        if outcome == GOING or cut_off or (np.abs(np.diff(times[max(a - 1, 0) : b])) > 1.5 * dt).any():
            continue
        found.append(
            Trial(
                number=int(at["number"][a]),
                outcome=outcome,
                times=times[a:b],
                cursor=rows[a:b, :2],
                target=rows[a, 2:4],
                radius=float(at["radius"][a]),
                held=float(at["held"][b - 1]),
                dt=dt,
                assist=float(at["assist"][a:b].mean()),
            )
        )
    return found


def summary(trials: Sequence[Trial], task: str, bootstrap: int = 2000, seed: int = 0) -> dict[str, Any]:
    """What trials of one task add up to; None where there is nothing to tell it from.

    bootstrap  times that the trials are drawn anew for the intervals; 0: no intervals

    `intervals` holds [low, high] for each share, rate, mean and slope. Keys of times end in _s, of rates in _per_min
    and _bits_s.
    """
    table = np.array(
        [(t.outcome, t.seconds, t.moving, t.difficulty, t.efficiency, t.moved) for t in trials],
        [(k, float) for k in ("outcome", "seconds", "moving", "difficulty", "efficiency", "moved")],
    )
    names = [k for k in SCORES if _suits(k, task)]
    found = {k: SCORES[k](table) for k in names}
    drawn = table[np.random.default_rng(seed).integers(0, max(len(table), 1), (bootstrap, len(table)))]
    return {
        "task": task,
        "trials": len(table),
        **{word: int((table["outcome"] == k).sum()) for word, k in OUTCOMES.items()},
        "seconds": float(table["seconds"].sum()),
        **{k: float(v) if np.isfinite(v) else None for k, v in found.items()},
        "intervals": {k: _interval(SCORES[k](drawn)) for k in names},
    }


def _suits(score: str, task: str) -> bool:
    if score == "grid_bits_s":
        return task == "grid"
    if score in ("slope_s_per_bit", "intercept_s"):
        return task == "fitts"
    return task != "grid" or score not in ("difficulty_bits", "throughput_bits_s", "information_bits_s")


def _interval(each: F) -> list[float] | None:
    """Where 95 % of them lie; None where there are none."""
    each = each[np.isfinite(each)]
    return [float(v) for v in np.percentile(each, [2.5, 97.5])] if len(each) else None


def _hit(x: Any) -> Any:
    return x["outcome"] == ACQUIRED


def _way(x: Any) -> Any:
    """Acquired, and there was a way to go."""
    return _hit(x) & (x["moved"] > 0)


def _ratio(part: Any, whole: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.divide(part, whole)


def _mean(value: Any, among: Any) -> Any:
    """Mean over the last axis of those that count."""
    return _ratio(np.where(among, value, 0.0).sum(-1), among.sum(-1))


def _slope(x: Any) -> Any:
    """Of M on ID, s/bit; none through what is equally difficult."""
    bits, way = x["difficulty"], _way(x)
    off = bits - np.expand_dims(_mean(bits, way), -1)
    spread = _mean(off**2, way)
    return np.where(spread > 0.05**2, _ratio(_mean(off * x["moving"], way), spread), np.nan)


def _grid(x: Any) -> Any:
    surplus = np.maximum(_hit(x).sum(-1) - (x["outcome"] == WRONG).sum(-1), 0)
    return math.log2(CELLS**2 - 1) * _ratio(surplus, x["seconds"].sum(-1))


SCORES: dict[str, Callable[[Any], Any]] = {
    "success": lambda x: _mean(_hit(x), x["seconds"] > 0),
    "acquired_per_min": lambda x: 60 * _ratio(_hit(x).sum(-1), x["seconds"].sum(-1)),
    "time_to_target_s": lambda x: _mean(x["seconds"], _hit(x)),
    "movement_time_s": lambda x: _mean(x["moving"], _way(x)),
    "path_efficiency": lambda x: _mean(x["efficiency"], _way(x)),
    "difficulty_bits": lambda x: _mean(x["difficulty"], _way(x)),
    "throughput_bits_s": lambda x: _mean(_ratio(x["difficulty"], x["moving"]), _way(x)),
    "information_bits_s": lambda x: _ratio((x["difficulty"] * _way(x)).sum(-1), x["seconds"].sum(-1)),
    "slope_s_per_bit": _slope,
    "intercept_s": lambda x: _mean(x["moving"], _way(x)) - _slope(x) * _mean(x["difficulty"], _way(x)),
    "grid_bits_s": _grid,
}
"""Key of a summary -> its score from trials (..., n): see the top of this file."""

OUTCOMES = {"acquired": ACQUIRED, "timeouts": TIMEOUT, "wrong": WRONG}
"""What a summary calls the outcomes of a trial."""


def recorded(folder: Path) -> tuple[list[Trial], str]:
    """The trials that a run recorded, and which task it was. Raises StreamError where it recorded none."""
    graph, file = recording(folder)
    there = streams(str(file), salvage=True)
    for name, place in graph.places.items():
        if isinstance(place.node, Task) and name in there:
            source = Replay(file=str(file), stream=name, salvage=True)
            source.start()
            blocks = list(source.blocks())
            if not blocks:
                return [], place.node.task
            times, rows = np.concatenate([b.times for b in blocks]), np.concatenate([b.data for b in blocks])
            return trials(times, rows), place.node.task
    raise StreamError(f"{folder}: recorded no task; it has {', '.join(there)}")


LINES = {
    "success": ("share acquired", ".1%"),
    "acquired_per_min": ("targets a minute", ".1f"),
    "time_to_target_s": ("time to target, its hold included, s", ".2f"),
    "movement_time_s": ("movement time, s", ".2f"),
    "path_efficiency": ("path efficiency", ".3f"),
    "difficulty_bits": ("index of difficulty, bit", ".2f"),
    "throughput_bits_s": ("Fitts throughput, bit/s", ".2f"),
    "information_bits_s": ("information rate, failures included, bit/s", ".2f"),
    "slope_s_per_bit": ("time on difficulty, s/bit", ".2f"),
    "intercept_s": ("its intercept, s", ".2f"),
    "grid_bits_s": ("grid bit rate, bit/s", ".2f"),
}
"""Key of a summary -> what a reader is told, and how."""


def table(*sums: dict[str, Any], heads: Sequence[str] = ()) -> rich.table.Table:
    """Summaries side by side, their 95 % intervals in brackets."""
    found = rich.table.Table("trials", *(heads or [s["task"] for s in sums]))
    for column in found.columns[1:]:
        column.justify = "right"
    found.add_row("targets acquired", *(f"{s['acquired']} of {s['trials']}" for s in sums))
    found.add_row("timed out", *(str(s["timeouts"]) for s in sums))
    if any(s["task"] == "grid" for s in sums):
        found.add_row("wrong", *(str(s["wrong"]) for s in sums))
    for key, (words, form) in LINES.items():
        if any(s.get(key) is not None for s in sums):
            found.add_row(words, *(_cell(s.get(key), s["intervals"].get(key), form) for s in sums))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of one or several runs; returns the exit code."""
    parser = argparse.ArgumentParser(prog="trials", description="How well the cursor task of a run went.")
    parser.add_argument("run", nargs="+", type=Path, help="directory of a run that recorded its task")
    given = parser.parse_args(argv)
    try:
        sums = [summary(*recorded(folder)) for folder in given.run]
    except StreamError as e:
        print(f"trials: {e}", file=sys.stderr)
        return 1
    heads = [f"{folder.name}: {s['task']}" for folder, s in zip(given.run, sums, strict=True)]
    rich.console.Console().print(table(*sums, heads=heads))
    return 0


def _cell(value: float | None, interval: Sequence[float] | None, form: str) -> str:
    if value is None:
        return "–"
    return f"{value:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")


if __name__ == "__main__":
    sys.exit(main())
