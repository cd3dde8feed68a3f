"""What was predicted beside what was true, and how far they are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray

from rheobase.devices._panel import Line, Panel, dot, said, unit
from rheobase.devices._panel_path import MOST
from rheobase.devices._theme import clear
from rheobase.stream.block import Spec, StreamError

ROWS = 6
"""Channels shown, at most."""


class ComparePanel(Panel):
    """Two streams, the prediction and then the truth: the channels that both have, one above the other, with the nRMSE
    and the correlation of the time that is shown. Where the prediction has a covariance, the band holds 95 %.

    nRMSE = sqrt(mean |y - z|^2 / mean |z - mean z|^2), each prediction with the truth that holds at its time.
    """

    inputs: ClassVar[tuple[int, int]] = (2, 2)
    stretch = 3

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if not shared(specs, line.channels):
            raise StreamError(f"{' and '.join(map(repr, line.of))} have no channel of the same name to compare")

    def build(self) -> None:
        t = self.theme
        self.channels = shared([f.spec for f in self.feeds], self.line.channels)[:ROWS]
        self.plots, self.curves = [], []
        spec = self.feeds[0].spec
        for k, c in enumerate(self.channels):
            last = k == len(self.channels) - 1
            plot = self.add_plot(k, x=self.look.label() if last else "", y=c + unit(spec.unit), time=True)
            if not last:
                plot.getAxis("bottom").setStyle(showValues=False)
            self.side_axis(plot)
            plot.showGrid(y=True, alpha=0.12)
            edges = [pg.PlotCurveItem(pen=None) for _ in range(2)]
            band = pg.FillBetweenItem(*edges, brush=clear(t.blue, 0.3))
            truth = pg.PlotCurveItem(pen=pg.mkPen(t.ink, width=1.2), connect="finite")
            guess = pg.PlotCurveItem(pen=pg.mkPen(t.blue, width=2), connect="finite")
            for item in (*edges, band, guess, truth):
                plot.addItem(item)
            self.plots.append(plot)
            self.curves.append((edges, truth, guess))
        self.limits = np.full((len(self.channels), 2), np.nan)

    def paint(self) -> None:
        look, (guess, truth) = self.look, self.feeds
        (tg, y), (tt, z) = (f.samples_between(look.left - 0.1 * look.span, look.right) for f in self.feeds)
        at = [{c: i for i, c in enumerate(f.spec.channels)} for f in self.feeds]
        errors = []
        for k, c in enumerate(self.channels):
            Y, Z = y[:, at[0][c]].astype(float), z[:, at[1][c]].astype(float)
            edges, line, own = self.curves[k]
            thin = [max(1, len(v) // MOST) for v in (Y, Z)]
            own.setData((tg - look.right)[:: thin[0]], Y[:: thin[0]])
            line.setData((tt - look.right)[:: thin[1]], Z[:: thin[1]])
            spread = np.zeros(0)
            if (word := f"cov({c},{c})") in at[0]:
                spread = 1.96 * np.sqrt(np.maximum(y[:, at[0][word]].astype(float), 0))
                known = np.isfinite(Y) & np.isfinite(spread)
                x = (tg - look.right)[known][:: thin[0]]
                for edge, s in zip(edges, (-1, 1), strict=True):
                    edge.setData(x, (Y + s * spread)[known][:: thin[0]])
            self._range(k, [v for v in (Y, Z, *((Y - spread, Y + spread) if len(spread) else ())) if len(v)])
            errors.append(apart(tg, Y, tt, Z))
        words = [f"{said(c)} {e:.2f}, {r:.2f}" for c, (e, r) in zip(self.channels, errors, strict=True)]
        t = self.theme
        key = f"{dot(t.blue, True)} {said(guess.name)} {dot(t.ink, True)} {said(truth.name)}"
        self.title(self.names(), f"{key} &nbsp; nRMSE, r: &nbsp;{' &nbsp;'.join(words[:3])}")

    def _range(self, k: int, values: list[NDArray[np.float64]]) -> None:
        known = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.zeros(0)
        if not len(known):
            return
        a, b = float(known.min()), float(known.max())
        low, high = self.limits[k]
        if not (low <= a and b <= high and b - a > 0.5 * (high - low)):
            margin = 0.08 * (b - a) or 1.0
            self.limits[k] = a - margin, b + margin
            self.plots[k].setYRange(*self.limits[k], padding=0)

    def names(self) -> str:
        return said(self.line.name)


def shared(specs: Sequence[Spec], chosen: Sequence[str] = ()) -> list[str]:
    """The channels that both streams have, but for covariances."""
    both = [c for c in specs[0].channels if c in specs[1].channels and not c.startswith("cov(")]
    return [c for c in both if c in chosen] if chosen else both


def apart(
    tg: NDArray[np.float64], y: NDArray[np.float64], tt: NDArray[np.float64], z: NDArray[np.float64]
) -> tuple[float, float]:
    """nRMSE and correlation of predictions y at tg with the truth z at tt that holds there."""
    if len(tt) < 2 or len(tg) < 2:
        return np.nan, np.nan
    i = np.searchsorted(np.maximum.accumulate(tt), tg, side="right") - 1
    z = np.where(i >= 0, z[np.maximum(i, 0)], np.nan)
    known = np.isfinite(y) & np.isfinite(z)
    y, z = y[known], z[known]
    spread = z.std() if len(z) else 0.0
    if not spread > 0:
        return np.nan, np.nan
    r = np.corrcoef(y, z)[0, 1] if y.std() > 0 else np.nan
    return float(np.sqrt(np.mean((y - z) ** 2)) / spread), float(r)
