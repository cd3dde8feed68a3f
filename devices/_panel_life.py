"""Remaining life of one thing: its health in the colour of its state, and the fan of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray

from rheobase.devices._panel import LEFT, Line, Panel, dot, need
from rheobase.devices._panel_fleet import at_risk
from rheobase.devices._theme import of_state
from rheobase.stream.block import Spec

MOST = 4000
"""Samples of the past drawn, at most; more are thinned out."""


class LifePanel(Panel):
    """Channels rul_5, rul_50, rul_95, and health and state where they are there. Of a fleet (first channel: unit) the
    unit that was picked in its table, else the one at most risk.

    The band is what was foretold at each time, the fan what is foretold now: it comes down to zero where the end is
    expected. Both axes have one unit, so that what is foretold well goes down by one for each one to the right.
    """

    stretch = 3

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        need(line, specs[0], "rul_5", "rul_50", "rul_95")

    def build(self) -> None:
        spec, t = self.feeds[0].spec, self.theme
        self.where = {c: i for i, c in enumerate(spec.channels)}
        self.seconds = spec.unit in ("", "s")
        unit = "s" if self.seconds else spec.unit
        self.curves: list[pg.PlotCurveItem] = []
        row = 0
        if "health" in self.where:
            self.upper = self.add_plot(0, y="health")
            self.upper.getAxis("left").setWidth(LEFT)
            self.upper.getAxis("bottom").setStyle(showValues=False)
            self.upper.addItem(pg.InfiniteLine(0, angle=90, pen=pg.mkPen(t.grid, width=1)))
            row = 1
        self.plot = self.add_plot(row, x=f"from now, {unit}", y=f"remaining life, {unit}")
        self.plot.getAxis("left").setWidth(LEFT)
        self.plot.showGrid(x=True, y=True, alpha=0.12)
        if row:
            self.upper.setXLink(self.plot)
            self.graphics.ci.layout.setRowStretchFactor(0, 2)
            self.graphics.ci.layout.setRowStretchFactor(1, 3)
        self.bands = []
        for opacity in (0.30, 0.18):
            lines = [pg.PlotCurveItem(pen=None) for _ in range(2)]
            colour = pg.mkColor(t.blue)
            colour.setAlphaF(opacity)
            band = pg.FillBetweenItem(*lines, brush=colour)
            for item in (*lines, band):
                self.plot.addItem(item)
            self.bands.append(lines)
        self.median = pg.PlotCurveItem(pen=pg.mkPen(t.blue, width=2), connect="finite")
        self.ahead = pg.PlotCurveItem(pen=pg.mkPen(t.blue, width=2, dash=[4, 3]))
        for item in (self.median, self.ahead, pg.InfiniteLine(0, angle=90, pen=pg.mkPen(t.grid, width=1))):
            self.plot.addItem(item)

    def paint(self) -> None:
        feed, w = self.feeds[0], self.where
        times, x = feed.samples_between(-np.inf, self.look.right)
        unit = ""
        if feed.units is not None and w.get("unit") == 0:
            number = self.look.unit
            if number is None or number not in feed.units:
                number = next((float(r[0]) for r in at_risk(feed)), np.nan)
            own = x[:, 0] == number
            times, x, unit = times[own], x[own], f"unit {number:g} &nbsp;"
        known: Any = np.isfinite(x[:, [w["rul_5"], w["rul_50"], w["rul_95"]]]).all(axis=1)
        if not known.any():
            self.say(f"{unit}nothing foretold yet")
            return
        m = len(x)
        at: Any = times - times[-1] if self.seconds else np.arange(m) - (m - 1.0)
        thin = max(1, len(x) // MOST)
        keep = np.arange(len(x) - 1, -1, -thin)[::-1]
        at, x, known = at[keep], x[keep], known[keep]
        low, middle, high = (x[known, w[k]].astype(float) for k in ("rul_5", "rul_50", "rul_95"))
        now = float(at[known][-1])
        self.bands[0][0].setData(at[known], low)
        self.bands[0][1].setData(at[known], high)
        a, mid, b = low[-1], middle[-1], high[-1]
        ends = np.array([now, now + max(a, 0), now + max(mid, 0), now + max(b, 0)])
        self.bands[1][0].setData(ends[[0, 1, 3]], np.array([a, 0.0, 0.0]))
        self.bands[1][1].setData(ends[[0, 3]], np.array([b, 0.0]))
        self.median.setData(at[known], middle)
        self.ahead.setData(ends[[0, 2]], np.array([mid, 0.0]))
        past = max(-float(at[0]), 1e-9)
        self.plot.setXRange(-past, max(float(ends[3]), 0.05 * past), padding=0.02)
        self.plot.setYRange(0, max(float(np.nanmax(high)), 1e-9) * 1.05, padding=0)
        word = self.feeds[0].spec.unit or "s"
        states = self._health(at, x) if "health" in w else ""
        self.say(f"{unit}{mid:.4g} {word} left (90 %: {a:.4g} to {b:.4g}) &nbsp;{states}")

    def _health(self, at: NDArray[np.float64], x: NDArray[np.float32]) -> str:
        """Health, a curve a state; the legend of the states that are there."""
        health = x[:, self.where["health"]].astype(float)
        state = x[:, self.where["state"]] if "state" in self.where else np.zeros(len(x), np.float32)
        number = np.where(np.isfinite(state), state, -1).astype(int)
        present = [int(s) for s in np.unique(number) if s >= 0]
        while len(self.curves) < len(present):
            self.curves.append(pg.PlotCurveItem(connect="finite"))
            self.upper.addItem(self.curves[-1])
        for curve in self.curves[len(present) :]:
            curve.setData([], [])
        for curve, s in zip(self.curves, present, strict=False):
            own = number == s
            own[1:] |= own[:-1].copy()  # on to where the next begins
            curve.setPen(pg.mkPen(of_state(self.theme, s), width=2))
            curve.setData(at, np.where(own, health, np.nan))
        if "state" not in self.where:
            return ""
        shown = present if len(present) <= 8 else [present[0], present[-1]]
        return " ".join(f"{dot(of_state(self.theme, s), True)} {s}" for s in shown)
