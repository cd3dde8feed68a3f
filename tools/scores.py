"""How well decoders do: the metrics, their error bars, and the tables of `rheo fit` and `rheo eval`."""

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
from rheobase.tools.coverage import distance

F = NDArray[np.float64]


def nrmse(Y: F, Z: F) -> float:
    """sqrt(mean (y - z)^2) / sqrt(mean z^2), over all rows and channels: 1 for a decoder that says 0."""
    return float(np.sqrt(np.mean((Y - Z) ** 2) / np.mean(Z**2)))


def maae(Y: F, Z: F) -> float:
    """Mean absolute angle between y and z (T, 2), rad: pi / 2 for a decoder that guesses. That of a z of 0 is taken to
    be 0, as the authors of the DKF do.
    """
    off = np.arctan2(Y[:, 1], Y[:, 0]) - np.arctan2(Z[:, 1], Z[:, 0])
    return float(np.mean(np.abs((off + np.pi) % (2 * np.pi) - np.pi)))


def r2(Y: F, Z: F) -> float:
    """1 - sum (y - z)^2 / sum (z - mean z)^2, over all rows and channels: 0 for a decoder that says the mean."""
    return float(1 - np.sum((Y - Z) ** 2) / np.sum((Z - Z.mean(axis=0)) ** 2))


def median_error(Y: F, Z: F) -> float:
    """Median of |y - z| over the rows, in the unit of z: what is told of decoded places."""
    return float(np.median(np.sqrt(np.sum((Y - Z) ** 2, axis=1))))


def accuracy(Y: F, Z: F) -> float:
    """Share of the truth, 0 or 1, that lies on the same side of 1/2 as y."""
    return float(np.mean((Y > 0.5) == (Z > 0.5)))


def auc(Y: F, Z: F) -> float:
    """Chance that y is greater where the truth is 1 than where it is 0, ties counted half, mean over channels: the area
    under the ROC curve. 0.5 for a guess; NaN where the truth is all one."""
    found = []
    for y, z in zip(Y.T, Z.T, strict=True):
        no, yes = np.sort(y[z <= 0.5]), y[z > 0.5]
        below = np.searchsorted(no, yes, "left") + np.searchsorted(no, yes, "right")
        found.append(below.mean() / 2 / len(no) if len(no) and len(yes) else np.nan)
    return float(np.mean(found))


def log_score(Z: F, mu: F, Sigma: F) -> float:
    """Mean log density of the truth under N(mu, Sigma), nats a row: the logarithmic score (Gneiting & Raftery, J Am
    Stat Assoc 102:359, 2007). No covariance but the right one has a better expected score. Takes what `coverage` does.
    """
    return float(-0.5 * np.nanmean(distance(Z, mu, Sigma) + np.linalg.slogdet(2 * np.pi * Sigma)[1]))


METRICS: dict[str, tuple[str, Callable[[F, F], float], bool]] = {
    "nrmse": ("nRMSE", nrmse, False),
    "maae": ("MAAE, rad", maae, False),
    "r2": ("R2", r2, True),
    "accuracy": ("accuracy", accuracy, True),
    "auc": ("AUC", auc, True),
    "median_error": ("median error", median_error, False),
}
"""Name -> heading, function, whether more is better."""

BLOCK = 10.0
"""s: samples closer than this are alike, so the bootstrap draws them together."""

FEWEST = 5
"""Blocks in the test part, below which it has no error bars: they would say more than is known."""

DRAWS = 500
"""Resamples of the bootstrap."""

LEVELS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)
"""%: contents of the ellipses that are held against the truth."""

TOLD = (50, 90, 95)
"""Those of them that the tables tell."""


def resampled(metric: Callable[[F, F], float], Y: F, Z: F, times: F) -> F:
    """A metric over DRAWS resamples of rows of Y and Z (T, d) at times (T,), drawn in blocks of 10 s; empty where the
    test part is shorter than FEWEST blocks.

    Moving-block bootstrap (Künsch, Ann Stat 17:1217, 1989). The draws depend on T alone, so they are the same for two
    decoders, and the differences of their scores are paired. Rows that are not finite are left out.
    """
    steps = np.diff(times)
    later = steps[steps > 0]  # rows of one time are of one chunk
    if not len(later):
        return np.empty(0)
    block = max(1, round(BLOCK * len(steps) / (len(later) * float(np.median(later)))))
    n = len(Z) // block
    if n < FEWEST:
        return np.empty(0)
    rng, there = np.random.default_rng(0), np.asarray(np.isfinite(np.hstack([Y, Z])).all(axis=1))
    found = np.empty(DRAWS)
    for k in range(DRAWS):
        rows = (rng.integers(0, len(Z) - block + 1, n)[:, None] + np.arange(block)).ravel()
        rows = rows[there[rows]]
        found[k] = metric(Y[rows], Z[rows]) if len(rows) else np.nan
    return found


@dataclasses.dataclass
class Row:
    """The scores of one decoder: for each metric one number a seed.

    missing   test rows without a finite estimate or truth
    Y         (T, d) estimates of the first seed
    draws     metric -> its mean over the seeds on each resample (empty: test part too short)
    coverage  nominal share, % -> share of test rows whose truth lies in the ellipse of that content, %
              (this and the next two: mean over the seeds; empty or NaN: a decoder without a covariance)
    nees      mean squared distance of the truth from y in terms of Sigma, over d: 1 where Sigma is right
    log_score nats a row; see `log_score`
    """

    name: str
    what: str
    scores: dict[str, list[float]]
    seconds: float
    missing: int
    Y: F = dataclasses.field(repr=False)
    draws: dict[str, F] = dataclasses.field(default_factory=dict, repr=False)
    coverage: dict[int, float] = dataclasses.field(default_factory=dict)
    nees: float = np.nan
    log_score: float = np.nan

    def interval(self, metric: str) -> tuple[float, float] | None:
        """95 % interval of a score: what another stretch of the same recording might have given."""
        draws = self.draws.get(metric, np.empty(0))
        return (float(np.nanquantile(draws, 0.025)), float(np.nanquantile(draws, 0.975))) if len(draws) else None


class Scores:
    """What `rheo fit` and `rheo eval` found.

    times (T,) and truth Z (T, d) are those of the test part; `figure` names the rows to draw (default: the first
    and the best). `floor` has the scores of saying the mean of the training truth, whatever the input.
    """

    def __init__(self, title: str, metrics: Sequence[str], figure: Sequence[str] = ()) -> None:
        self.title, self.metrics, self.figure = title, metrics, figure
        self.rows: list[Row] = []
        self.floor: dict[str, float] = {}
        self.config: dict[str, Any] = {}
        self.notes: list[str] = []
        self.spec, self.times, self.Z = Spec(rate=0, channels=("z",)), np.empty(0), np.empty((0, 1))

    def show(self, console: rich.console.Console) -> None:
        """Print the tables."""
        title = f"{self.title}: {len(self.Z)} test samples"
        if any(len(each) > 1 for row in self.rows for each in row.scores.values()):
            title += "; ± standard deviation over the seeds"
        missing = ["missing"] if len({row.missing for row in self.rows}) > 1 else []  # not scored on the same rows
        heads = (*map(self.heading, self.metrics), *missing, "fit, s")
        table = rich.table.Table("decoder", "what", *heads, title=title)
        for column in table.columns[2:]:
            column.justify = "right"
        for row in self.rows:
            told = [str(row.missing)] if missing else []
            table.add_row(row.name, row.what, *(self.cell(row, m) for m in self.metrics), *told, f"{row.seconds:.1f}")
        if self.rows:
            console.print(table)
        certain = [r for r in self.rows if r.coverage]
        if certain:
            levels = [f"{level} %" for level in TOLD]
            table = rich.table.Table("decoder", *levels, "NEES", "log score", title="truth within the ellipse of, %")
            for row in certain:
                shares = [f"{row.coverage[k]:.1f}" for k in TOLD]
                table.add_row(row.name, *shares, f"{row.nees:.2f}", f"{row.log_score:.3f}")
            console.print(table)
        for note in self.notes:
            console.print(note, highlight=False, soft_wrap=True)

    def heading(self, metric: str) -> str:
        """What stands above a metric, with its unit."""
        unit = f", {self.spec.unit}" if metric == "median_error" and self.spec.unit else ""
        return METRICS[metric][0] + unit

    def cell(self, row: Row, metric: str) -> str:
        """A score as text: the mean over the seeds, ± their standard deviation where there are several."""
        each = row.scores[metric]
        sd = f" ± {np.std(each, ddof=1):.4f}" if len(each) > 1 else ""
        return f"{np.mean(each):.4f}{sd}"

    def to_dict(self) -> dict[str, Any]:
        """The tables as plain values."""
        found = {}
        for r in self.rows:
            found[r.name] = {"what": r.what, **r.scores, "seconds": r.seconds, "missing": r.missing}
            found[r.name]["interval"] = {m: r.interval(m) for m in self.metrics if r.interval(m)}
            if r.coverage:
                found[r.name] |= {"coverage": r.coverage, "nees": r.nees, "log_score": r.log_score}
        return found

    def best(self, among: Sequence[Row], metric: str = "") -> Row:
        """The row with the best mean of a metric (default: the first)."""
        metric = metric or self.metrics[0]
        sign = -1 if METRICS[metric][2] else 1
        return min(among, key=lambda r: sign * float(np.mean(r.scores[metric])))

    def as_good(self, row: Row, other: Row, metric: str) -> bool:
        """Whether the 95 % interval of the paired difference of two rows holds 0: the test part cannot tell them
        apart."""
        a, b = row.draws.get(metric, np.empty(0)), other.draws.get(metric, np.empty(0))
        if not len(a) or len(row.Y) != len(other.Y):
            return False
        low, high = np.nanquantile(a - b, [0.025, 0.975])
        return bool(low <= 0 <= high)

    def drawn(self) -> list[Row]:
        """The rows to draw."""
        named = [r for r in self.rows if r.name in self.figure]
        return named or list({r.name: r for r in (self.rows[0], self.best(self.rows))}.values())

    def draw(self, path: Path) -> None:
        """Truth and decoded, a panel a channel."""
        try:
            from rheobase.tools.figures import decoded, png
        except ModuleNotFoundError:
            self.notes.append("no figure: it needs matplotlib (pip install 'rheobase[view]')")
            return
        png(lambda: decoded(self), path)
        self.notes.append(f"truth and decoded: {path}")
