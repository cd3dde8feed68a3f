"""`rheo stress`: how well the decoders of a graph do while what they get is disturbed.

Each is fitted once on clean data, by the `eval` table of the graph, and then decodes the test part through a node that
disturbs it, at each severity and by each seed. Each disturbance begins with the first test sample; commands are
corrupted behind the decoder. The recording does not answer: a person who sees the cursor err would.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder
from rheobase.nodes.channel_swap import ChannelSwap
from rheobase.nodes.dropout import Dropout
from rheobase.nodes.gain_step import GainStep
from rheobase.nodes.jitter import Jitter
from rheobase.nodes.regime import Regime
from rheobase.stream.block import StreamError
from rheobase.stream.fuse import apply
from rheobase.stream.graph import Graph
from rheobase.stream.node import Kernel, blame, nearest
from rheobase.tools.coverage import coverage
from rheobase.tools.fit import Split, decoded, gather, input_of, progress, split
from rheobase.tools.protocol import protocol_of
from rheobase.tools.scores import METRICS

F = NDArray[np.float64]
Make = Callable[[float, int], Kernel]

GRID: dict[str, tuple[str, Sequence[float], Make]] = {
    "lost": ("share of samples", (0.1, 0.3, 0.75), lambda v, seed: Dropout(p=v, seed=seed)),
    "held": ("share of samples, 5 at once", (0.1, 0.3, 0.75),
             lambda v, seed: Dropout(p=v, length=5, fill="hold", seed=seed)),
    "blackout": ("share of channels at 0", (0.1, 0.25, 0.5),
                 lambda v, seed: Dropout(p=1, length=1 << 40, share=v, fill="zero", seed=seed)),
    "swap": ("chance a sample", (0.001, 0.01, 0.1), lambda v, seed: ChannelSwap(p=v, seed=seed)),
    "gain": ("chance a sample", (0.001, 0.01, 0.1), lambda v, seed: GainStep(p=v, seed=seed)),
    "regime": ("rad", (0.1745, 0.5236, 1.5708), lambda v, seed: Regime(angle=v, seed=seed)),
    "jitter": ("share of samples, 1 to 3 late", (0.1, 0.3, 0.75), lambda v, seed: Jitter(p=v, seed=seed)),
    "commands": ("share of estimates at random", (0.1, 0.3, 0.75),
                 lambda v, seed: Dropout(p=v, fill="random", seed=seed)),
}  # fmt: skip
"""Word -> what its severity is, severities, the node. `commands` stands behind the decoder, the others before it; its
random numbers go as far as the largest training truth."""

ELLIPSE = "ellipse95"
"""Share of the truth within the 95 % ellipse, of decoders that give a covariance."""


@dataclasses.dataclass
class Cell:
    """Scores of one decoder, a number a seed; missing: share of test rows that it gave no estimate for."""

    scores: dict[str, list[float]]
    missing: list[float]


class Table:
    """metric x disturbance x severity: `cells[decoder][word, severity]`, ("clean", 0) undisturbed."""

    def __init__(self, title: str, metrics: Sequence[str], seeds: Sequence[int]) -> None:
        self.title, self.metrics, self.seeds = title, [*metrics, ELLIPSE], list(seeds)
        self.cells: dict[str, dict[tuple[str, float], Cell]] = {}

    def show(self, console: rich.console.Console) -> None:
        """Print a table for each metric: mean over the seeds ± standard deviation, and what is missing."""
        rows = list(dict.fromkeys(row for cells in self.cells.values() for row in cells))
        for metric in self.metrics:
            named = [n for n, cells in self.cells.items() if any(metric in c.scores for c in cells.values())]
            if not named:
                continue
            heading = METRICS[metric][0] if metric in METRICS else "truth within the 95 % ellipse"
            title = f"{self.title}: {heading}, seeds {', '.join(map(str, self.seeds))}"
            table = rich.table.Table("disturbance", "severity", *named, title=title)
            for word, severity in rows:
                what = f"{severity:g} ({GRID[word][0]})" if word in GRID else ""
                cells = [self.cells[n].get((word, severity)) for n in named]
                if any(c and metric in c.scores for c in cells):
                    table.add_row(word, what, *(_told(c, metric) for c in cells))
            console.print(table)

    def write(self, path: Path) -> None:
        """The same as JSON."""
        rows = [
            {"decoder": name, "disturbance": word, "severity": severity, **dataclasses.asdict(cell)}
            for name, cells in self.cells.items()
            for (word, severity), cell in cells.items()
        ]
        path.write_text(json.dumps({"graph": self.title, "seeds": self.seeds, "rows": rows}, indent=1))


def _told(cell: Cell | None, metric: str) -> str:
    if cell is None or metric not in cell.scores:
        return ""
    each = cell.scores[metric]
    sd = f" ± {np.std(each, ddof=1):.3f}" if len(each) > 1 else ""
    missing = float(np.mean(cell.missing))
    return f"{np.mean(each):.3f}{sd}" + (f", {100 * missing:.0f} % missing" if missing >= 0.005 else "")


def stress(graph: Graph, names: Sequence[str] = (), only: Sequence[str] = (), seeds: Sequence[int] = (0,)) -> Table:
    """Fit the decoders of a graph (default: all that learn from a truth), and score them disturbed.

    Raises StreamError.
    """
    decoders = {k: p.node for k, p in graph.places.items() if isinstance(p.node, Decoder) and p.node.judged}
    for name in names:
        if name not in decoders:
            raise StreamError(f"--node {name!r}: no such decoder{nearest(name, decoders)}")
    for word in only:
        if word not in GRID:
            raise StreamError(f"--only {word!r}: no such disturbance{nearest(word, GRID)}")
    decoders = {k: node for k, node in decoders.items() if not names or k in names}
    if not decoders:
        raise StreamError(f"{graph.origin or graph.name}: no decoder to disturb")
    protocol = protocol_of(graph)
    table = Table(graph.name, protocol.metrics, seeds)
    with progress() as bar:
        gathered = gather(graph, [*(input_of(graph, n) for n in decoders), protocol.truth], bar)
        task = bar.add_task("stress", total=len(decoders))
        for name, node in decoders.items():
            rows = split(graph, protocol, gathered, input_of(graph, name))
            bar.update(task, description=f"fit {name}")
            fresh = dataclasses.replace(node, model="")
            fresh.name = name
            with blame(fresh):
                fresh.fit(rows.X, rows.Z, segment=rows.segment, inputs=rows.features, outputs=rows.truth)
                bar.update(task, description=f"disturb {name}")
                table.cells[name] = disturbed(fresh, rows, protocol.metrics, only or list(GRID), seeds)
            bar.advance(task)
    return table


def disturbed(
    node: Decoder, rows: Split, metrics: Sequence[str], words: Sequence[str], seeds: Sequence[int]
) -> dict[tuple[str, float], Cell]:
    """Scores of a fitted decoder, clean and disturbed."""
    Y, Sigma = decoded(node, rows, rows.X_test)
    size = float(np.nanmax(np.abs(rows.Z)))
    cells = {("clean", 0.0): _cell([_scored(Y, Sigma, rows, metrics)])}
    for word in words:
        _, severities, make = GRID[word]
        if word in ("swap", "regime") and rows.features.n < 2:
            continue
        for severity in severities:
            each = []
            for seed in seeds:
                if word == "commands":
                    behind = make(severity, seed)
                    assert isinstance(behind, Dropout)
                    behind.size = size
                    each.append(_scored(apply(behind, Y, rows.truth, rows.times).data, None, rows, metrics))
                else:
                    X = apply(make(severity, seed), rows.X_test, rows.features, rows.times).data
                    each.append(_scored(*decoded(node, rows, X), rows, metrics))
            cells[word, severity] = _cell(each)
    return cells


def _scored(Y: F, Sigma: F | None, rows: Split, metrics: Sequence[str]) -> tuple[dict[str, float], float]:
    """Metrics over the rows that have an estimate, and the share of those with a truth that have none."""
    known = np.isfinite(rows.Z_test).all(axis=1)
    there = known & np.isfinite(Y).all(axis=1)
    found = {m: METRICS[m][1](Y[there], rows.Z_test[there]) if there.any() else np.nan for m in metrics}
    if Sigma is not None:
        found[ELLIPSE] = coverage(rows.Z_test, Y, Sigma, [0.95])[0.95]
    return found, 1 - float(there.sum() / known.sum())


def _cell(each: Sequence[tuple[dict[str, float], float]]) -> Cell:
    scores: dict[str, Any] = {m: [found[m] for found, _ in each] for m in each[0][0]}
    return Cell(scores, [missing for _, missing in each])
