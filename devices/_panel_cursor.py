"""The cursor of a task: where it is and was, where it should go, and how sure the decoder is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRectF

from rheobase.devices._panel import Line, Panel, dot, need
from rheobase.devices._theme import clear
from rheobase.stream.block import Spec

LEVEL = math.sqrt(-2 * math.log(1 - 0.9))
"""Radius, in standard deviations, of the ellipse that holds 90 % of two normal numbers."""


class CursorPanel(Panel):
    """Cursor, its path of the last seconds, target, and the intended velocity where the stream has it, in cm. A ring
    stands where targets have been, in the colour of what last became of them. A second stream with a covariance (`dkf`
    with `covariance: true`) gives the ellipse that should hold 90 % of the wanted velocity: its way in 0.15 s.
    """

    inputs: ClassVar[tuple[int, int]] = (1, 2)
    stretch = 6

    TAIL = 3.0
    """s: length of path drawn."""
    AHEAD = 0.15
    """s: the intended velocity is drawn as the way it would make in so long."""
    JUMP = 2.0
    """cm: a cursor that moves so far at once was put there; no path leads there."""
    FEW = 6
    """Rings drawn where targets of several sizes come anywhere."""
    radius, disc = 0.012, 0.015

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        need(line, specs[0], "cursor_x", "cursor_y")

    def build(self) -> None:
        t = self.theme
        self.rings = (t.dim, t.green, t.red, t.yellow)
        """Of a target that is not done with, was acquired, timed out, or where a wrong one was selected."""
        self.plot = plot = self.add_plot(x="x, cm", y="y, cm")
        plot.getAxis("left").setWidth(44)
        plot.setAspectLocked(True)
        plot.showGrid(x=True, y=True, alpha=0.12)
        self.reach = 14.0
        plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)
        names = self.feeds[0].spec.channels
        self.where = {k: i for i, k in enumerate(names)}
        self.seen: dict[tuple[float, float, float], int] = {}
        """Targets (x, y, radius, cm) and their last outcome, the newest last."""
        self.ended: dict[int, int] = {}
        """Trials and their outcome."""
        self.ghosts = pg.ScatterPlotItem(pxMode=False, brush=None)
        self.goal = pg.ScatterPlotItem(pxMode=False, pen=pg.mkPen(t.orange, width=2))
        shades = [pg.mkPen(clear(t.blue, 0.2 + 0.2 * i), width=1 + i) for i in range(4)]
        self.tail = [pg.PlotCurveItem(pen=pen, connect="finite") for pen in shades]
        self.wish = pg.PlotCurveItem(pen=pg.mkPen(t.pink, width=3))
        self.sure = pg.PlotCurveItem(pen=pg.mkPen(t.pink, width=1.3, dash=[3, 3]))
        self.dot = pg.ScatterPlotItem(pxMode=False, size=self.disc * 100, pen=pg.mkPen(t.ink, width=1.5), brush=t.blue)
        for item in (self.ghosts, self.goal, *self.tail, self.dot, self.wish, self.sure):
            plot.addItem(item)

    def paint(self) -> None:
        t = self.look.right
        times, samples = self.feeds[0].samples_between(self.look.left, t)
        known = np.isfinite(samples).all(axis=1)
        times, x = times[known], samples[known].astype(np.float64)
        if not len(times):
            return
        w, cm = self.where, x * 100
        cx, cy = cm[:, w["cursor_x"]].copy(), cm[:, w["cursor_y"]]
        here = cx[-1], cy[-1]
        cx[1:][np.hypot(np.diff(cx), np.diff(cy)) > self.JUMP] = np.nan
        tail = np.flatnonzero(times > t - self.TAIL)[:: max(1, len(times) // 500)]
        for curve, part in zip(self.tail, np.array_split(tail, len(self.tail)), strict=True):
            part = np.append(part, tail[tail > part[-1]][:1]) if len(part) else part  # on to where the next begins
            curve.setData(cx[part], cy[part])
        self.dot.setData(*([c] for c in here))
        if "target_x" in w and "target_y" in w:
            self._targets(x)
        if "intended_x" in w and "intended_y" in w:
            ix, iy = (cm[-1, w[k]] * self.AHEAD for k in ("intended_x", "intended_y"))
            self.wish.setData([here[0], here[0] + ix], [here[1], here[1] + iy])
        if len(self.feeds) > 1:
            self._ellipse(here)
        c = self.theme
        key = [(c.blue, "cursor"), (c.orange, "target"), *([(c.pink, "intended")] if "intended_x" in w else [])]
        self.say(" &nbsp;".join(f"{dot(c)} {k}" for c, k in key) + f" &nbsp; {self._score(x[-1])}")
        furthest = float(np.nanmax(np.abs(cm[:, [w["cursor_x"], w["cursor_y"]]]), initial=0.0))
        if math.isfinite(furthest) and furthest > self.reach:
            self.reach = furthest * 1.1
            self.plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)

    def _ellipse(self, here: tuple[float, float]) -> None:
        """Where the wanted velocity should lie, at 90 %, by the covariance of the second stream."""
        feed = self.feeds[1]
        at = {k: i for i, k in enumerate(feed.spec.channels)}
        for i, a in enumerate(feed.spec.channels):
            for b in feed.spec.channels[i + 1 :]:
                pairs = [f"cov({a},{a})", f"cov({a},{b})", f"cov({b},{b})"]
                if all(k in at for k in pairs):
                    _, x = feed.samples_between(self.look.right - 1.0, self.look.right)
                    if len(x):
                        v = x[-1].astype(float)
                        shape = ellipse(*(v[at[k]] for k in pairs)) + v[[at[a], at[b]]]
                        cm = 100 * self.AHEAD * shape
                        self.sure.setData(here[0] + cm[:, 0], here[1] + cm[:, 1])
                    return

    def _targets(self, x: NDArray[np.float64]) -> None:
        """The target, and rings where others were."""
        w = self.where
        radius = x[:, w["radius"]] if "radius" in w else np.full(len(x), self.radius)
        outcome = x[:, w["outcome"]].astype(int) if "outcome" in w else np.zeros(len(x), int)
        number = x[:, w["number"]].astype(int) if "number" in w else np.zeros(len(x), int)
        places = np.round(100 * np.column_stack([x[:, w["target_x"]], x[:, w["target_y"]], radius]), 2)
        first = np.any(np.diff(places, axis=0, prepend=np.nan) != 0, axis=1)
        for i in np.flatnonzero(first | (outcome > 0)):
            place = (float(places[i, 0]), float(places[i, 1]), float(places[i, 2]))
            if outcome[i]:
                self.ended[int(number[i])] = int(outcome[i])
            self.seen[place] = self.ended.get(int(number[i]), self.seen.pop(place, 0))
        several = len({r for _, _, r in self.seen}) > 1
        while len(self.seen) > (self.FEW if several else 64):
            del self.seen[next(iter(self.seen))]
        at = list(self.seen)
        self.ghosts.setData(
            [p[0] for p in at],
            [p[1] for p in at],
            size=[2 * p[2] for p in at],
            pen=[pg.mkPen(self.rings[k % len(self.rings)], width=1.6) for k in self.seen.values()],
        )
        goal = places[-1]
        off = 100 * x[-1, [w["cursor_x"], w["cursor_y"]]] - goal[:2]
        held = "held" in w and x[-1, w["held"]] > 0 and np.abs(off).max() <= goal[2] + 0.01
        self.goal.setData(
            [goal[0]], [goal[1]], size=2 * goal[2], brush=self.theme.yellow if held else clear(self.theme.orange, 0.44)
        )

    def _score(self, now: NDArray[np.float64]) -> str:
        """Which trial, what became of those before, and how much the cursor is helped."""
        w = self.where
        words = [f"target {now[w['number']]:.0f}"] if "number" in w else []
        for outcome, word in enumerate(("acquired", "timed out", "wrong"), 1):
            n = sum(k == outcome for k in self.ended.values())
            words += [f'<span style="color:{self.rings[outcome]}">{n} {word}</span>'] if n else []
        help_now = now[w["assist"]] if "assist" in w else 0.0
        words += ["moves by itself" if help_now == 1 else f"assisted {help_now:.0%}"] if help_now else []
        return " &nbsp;".join(words)


def ellipse(xx: float, xy: float, yy: float, n: int = 49) -> NDArray[np.float64]:
    """Points (n, 2) of the ellipse around 0 that holds 90 % of N(0, [[xx, xy], [xy, yy]])."""
    values, axes = np.linalg.eigh(np.nan_to_num([[xx, xy], [xy, yy]]))
    turn = np.linspace(0, 2 * np.pi, n)
    circle = np.column_stack([np.cos(turn), np.sin(turn)])
    points: NDArray[np.float64] = LEVEL * (circle * np.sqrt(np.maximum(values, 0.0))) @ axes.T
    return points
