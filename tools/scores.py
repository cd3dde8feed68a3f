"""How well decoders do: the metrics, the table and the figure of `rheo fit` and `rheo eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.stream.block import Spec

F = NDArray[np.float64]


def nrmse(Y: F, Z: F) -> float:
    """sqrt(mean (y - z)^2) / sqrt(mean z^2), over all rows and channels: 1 for a decoder that says 0."""
    return float(np.sqrt(np.mean((Y - Z) ** 2) / np.mean(Z**2)))


def maae(Y: F, Z: F) -> float:
    """Mean absolute angle between y and z (T, 2), rad: pi / 2 for a decoder that guesses."""
    off = np.arctan2(Y[:, 1], Y[:, 0]) - np.arctan2(Z[:, 1], Z[:, 0])
    return float(np.mean(np.abs((off + np.pi) % (2 * np.pi) - np.pi)))


def r2(Y: F, Z: F) -> float:
    """1 - sum (y - z)^2 / sum (z - mean z)^2, over all rows and channels: 0 for a decoder that says the mean."""
    return float(1 - np.sum((Y - Z) ** 2) / np.sum((Z - Z.mean(axis=0)) ** 2))


def median_error(Y: F, Z: F) -> float:
    """Median of |y - z| over the rows, in the unit of z: what is told of decoded places."""
    return float(np.median(np.sqrt(np.sum((Y - Z) ** 2, axis=1))))


METRICS: dict[str, tuple[str, Callable[[F, F], float], bool]] = {
    "nrmse": ("nRMSE", nrmse, False),
    "maae": ("MAAE, rad", maae, False),
    "r2": ("R2", r2, True),
    "median_error": ("median error", median_error, False),
}
"""Name -> heading, function, whether more is better."""


@dataclasses.dataclass
class Row:
    """The scores of one decoder: for each metric one number a seed."""

    name: str
    what: str
    scores: dict[str, list[float]]
    seconds: float
    missing: int
    Y: F = dataclasses.field(repr=False)


class Scores:
    """What `rheo fit` and `rheo eval` found.

    times (T,) and truth Z (T, d) are those of the test part; `figure` names the rows to draw (default: the first
    and the best).
    """

    def __init__(self, title: str, metrics: Sequence[str], figure: Sequence[str] = ()) -> None:
        self.title, self.metrics, self.figure = title, metrics, figure
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.spec, self.times, self.Z = Spec(rate=0, channels=("z",)), np.empty(0), np.empty((0, 1))

    def show(self, console: rich.console.Console) -> None:
        """Print the table."""
        heads = [METRICS[m][0] for m in self.metrics]
        title = f"{self.title}: {len(self.Z)} test samples"
        if any(len(each) > 1 for row in self.rows for each in row.scores.values()):
            title += "; ± standard deviation over the seeds"
        table = rich.table.Table("decoder", "what", *heads, "fit, s", title=title)
        for column in table.columns[2:]:
            column.justify = "right"
        for row in self.rows:
            cells = []
            for m in self.metrics:
                each = row.scores[m]
                sd = f" ± {np.std(each, ddof=1):.4f}" if len(each) > 1 else ""
                cells.append(f"{np.mean(each):.4f}{sd}")
            table.add_row(row.name, row.what, *cells, f"{row.seconds:.1f}")
        console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain values."""
        return {r.name: {"what": r.what, **r.scores, "seconds": r.seconds, "missing": r.missing} for r in self.rows}

    def best(self, among: Sequence[Row]) -> Row:
        """The row with the best mean of the first metric."""
        first = self.metrics[0]
        sign = -1 if METRICS[first][2] else 1
        return min(among, key=lambda r: sign * float(np.mean(r.scores[first])))

    def draw(self, path: Path) -> None:
        """Truth and decoded, a panel a channel."""
        try:
            from matplotlib.figure import Figure
        except ModuleNotFoundError:
            self.notes.append("no figure: it needs matplotlib (pip install 'rheobase[view]')")
            return
        named = [r for r in self.rows if r.name in self.figure]
        rows = named or list({r.name: r for r in (self.rows[0], self.best(self.rows))}.values())
        shown = self.times < self.times[0] + 60
        figure = Figure(figsize=(11, 2.2 * self.Z.shape[1] + 0.6), layout="constrained")
        panels = figure.subplots(self.Z.shape[1], 1, sharex=True, squeeze=False)[:, 0]
        for c, panel in enumerate(panels):
            panel.plot(self.times[shown] - self.times[0], self.Z[shown, c], color="black", lw=1.6, label="truth")
            for row in rows:
                first = self.metrics[0]
                label = f"{row.name} ({METRICS[first][0]} {np.mean(row.scores[first]):.3f})"
                panel.plot(self.times[shown] - self.times[0], row.Y[shown, c], lw=1.1, label=label)
            panel.set_ylabel(f"{self.spec.channels[c]}{', ' + self.spec.unit if self.spec.unit else ''}")
            panel.spines[["top", "right"]].set_visible(False)
        panels[-1].set_xlabel("test time, s")
        panels[0].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
        figure.savefig(path, dpi=150)
        self.notes.append(f"truth and decoded: {path}")
