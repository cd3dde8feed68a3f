"""What a window is made of: a panel for each way to look at a stream.

Colours: Okabe & Ito (2008) and viridis, which colour-blind people can tell apart.
"""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRectF
from PySide6.QtGui import QColor

from rheobase.devices._feed import Feed

LANES = 32
"""Most channels drawn as traces; the panel's title says how many there are."""
LEFT, RIGHT = 88, 70
"""Pixels beside panels that share the axis of time, so that their times stand one above the other."""
GROUND, GRID, INK, DIM = "#101418", "#2b333c", "#e6e9ec", "#8b96a2"
BLUE, ORANGE, GREEN, YELLOW, RED, PINK = "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#cc79a7"
OVERLAID = (BLUE, ORANGE, GREEN, PINK)


class Panel:
    """One plot of the window."""

    def __init__(self, feeds: list[Feed], plot: pg.PlotItem, span: float) -> None:
        self.feeds, self.plot, self.span = feeds, plot, span
        plot.setMenuEnabled(False)
        plot.hideButtons()
        for side in ("left", "bottom"):
            axis = plot.getAxis(side)
            axis.setPen(GRID)
            axis.setTextPen(DIM)
            axis.setStyle(tickLength=4, hideOverlappingLabels=side == "left")
        names = [f.name for f in feeds]
        if len(feeds) > 1:
            names = [f"{dot(c, True)} {n} &nbsp;" for c, n in zip(OVERLAID * len(feeds), names, strict=False)]
        self.title = f'<span style="color:{INK}">{" ".join(names)}</span>'
        self.say("")
        self.build()

    def say(self, more: str) -> None:
        self.plot.setTitle(f'{self.title} <span style="color:{DIM}">&nbsp;{more}</span>', size="10pt", justify="left")

    def time_axis(self) -> None:
        self.plot.setLabel("bottom", "time before now, s", color=DIM)
        self.plot.setXRange(-self.span, 0, padding=0)
        self.plot.setMouseEnabled(x=False, y=False)

    def build(self) -> None:
        raise NotImplementedError

    def paint(self, t: float) -> None:
        """Draw what there is at t s of the streams' clock."""
        raise NotImplementedError


class CursorPanel(Panel):
    """Cursor, its path of the last seconds, target, and the intended velocity where the stream has it, in cm. A ring
    stands where targets have been, in the colour of what last became of them."""

    TAIL = 3.0
    """s: length of path drawn."""
    AHEAD = 0.15
    """s: the intended velocity is drawn as the way it would make in so long."""
    JUMP = 2.0
    """cm: a cursor that moves so far at once was put there; no path leads there."""
    FEW = 6
    """Rings drawn where targets of several sizes come anywhere."""
    RINGS = ("#46515c", GREEN, RED, YELLOW)
    """Of a target that is not done with, was acquired, timed out, or where a wrong one was selected."""
    radius, disc = 0.012, 0.015

    def build(self) -> None:
        plot = self.plot
        plot.setAspectLocked(True)
        plot.showGrid(x=True, y=True, alpha=0.12)
        plot.setLabel("bottom", "x, cm", color=DIM)
        plot.setLabel("left", "y, cm", color=DIM)
        self.reach = 14.0
        plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)
        names = self.feeds[0].spec.channels
        self.where = {k: i for i, k in enumerate(names)}
        self.seen: dict[tuple[float, float, float], int] = {}
        """Targets (x, y, radius, cm) and their last outcome, the newest last."""
        self.ended: dict[int, int] = {}
        """Trials and their outcome."""
        self.ghosts = pg.ScatterPlotItem(pxMode=False, brush=None)
        self.goal = pg.ScatterPlotItem(pxMode=False, pen=pg.mkPen(ORANGE, width=2))
        shades = [pg.mkPen(QColor(86, 180, 233, 50 + 50 * i), width=1 + i) for i in range(4)]
        self.tail = [pg.PlotCurveItem(pen=pen, connect="finite") for pen in shades]
        self.wish = pg.PlotCurveItem(pen=pg.mkPen(PINK, width=3))
        self.dot = pg.ScatterPlotItem(
            pxMode=False, size=self.disc * 100, pen=pg.mkPen("#d9effb", width=1.5), brush=BLUE
        )
        for item in (self.ghosts, self.goal, *self.tail, self.dot, self.wish):
            plot.addItem(item)

    def paint(self, t: float) -> None:
        times, x, _ = self.feeds[0].recent(t - self.span)
        known = np.isfinite(x[:, list(self.where.values())]).all(axis=1)
        times, x = times[known], x[known]
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
        key = [(BLUE, "cursor"), (ORANGE, "target"), *([(PINK, "intended")] if "intended_x" in w else [])]
        self.say(" &nbsp;".join(f"{dot(c)} {k}" for c, k in key) + f" &nbsp; {self._score(x[-1])}")
        furthest = float(np.nanmax(np.abs(cm[:, [w["cursor_x"], w["cursor_y"]]]), initial=0.0))
        if math.isfinite(furthest) and furthest > self.reach:
            self.reach = furthest * 1.1
            self.plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)

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
            pen=[pg.mkPen(self.RINGS[k % len(self.RINGS)], width=1.2) for k in self.seen.values()],
        )
        goal = places[-1]
        off = 100 * x[-1, [w["cursor_x"], w["cursor_y"]]] - goal[:2]
        held = "held" in w and x[-1, w["held"]] > 0 and np.abs(off).max() <= goal[2] + 0.01
        self.goal.setData([goal[0]], [goal[1]], size=2 * goal[2], brush=YELLOW if held else ORANGE + "70")

    def _score(self, now: NDArray[np.float64]) -> str:
        """Which trial, what became of those before, and how much the cursor is helped."""
        w = self.where
        words = [f"target {now[w['number']]:.0f}"] if "number" in w else []
        for outcome, word in enumerate(("acquired", "timed out", "wrong"), 1):
            n = sum(k == outcome for k in self.ended.values())
            words += [f'<span style="color:{self.RINGS[outcome]}">{n} {word}</span>'] if n else []
        help_now = now[w["assist"]] if "assist" in w else 0.0
        words += ["moves by itself" if help_now == 1 else f"assisted {help_now:.0%}"] if help_now else []
        return " &nbsp;".join(words)


class ImagePanel(Panel):
    """Channels by time, brightness by value; scale from the 2nd to the 99th percentile."""

    def build(self) -> None:
        feed = self.feeds[0]
        self.item = pg.ImageItem(axisOrder="row-major")
        self.item.setColorMap(pg.colormap.get("viridis"))
        self.plot.addItem(self.item)
        self.plot.setLabel("left", "channel", color=DIM)
        self.plot.setYRange(0, feed.spec.n, padding=0)
        self.time_axis()
        self.bar = self.plot.addColorBar(self.item, width=10, interactive=False, colorMap="viridis")
        self.bar.getAxis("right").setTextPen(DIM)
        self.bar.getAxis("right").setWidth(RIGHT - 18)
        self.say(f"{feed.spec.n} channels, {feed.spec.unit or 'no unit'}")

    def paint(self, t: float) -> None:
        feed = self.feeds[0]
        times, _, x = feed.recent(t - self.span - 1.0)
        if not len(times):
            return
        step = feed.every / feed.spec.rate if feed.spec.rate else self.span / feed.columns
        grid = t - self.span + step * np.arange(1, round(self.span / step) + 1)
        i = np.searchsorted(times, grid + 1e-3 * step, side="right") - 1
        image = x[np.maximum(i, 0)]
        image[(i < 0) | (grid - times[np.maximum(i, 0)] > 2.5 * step)] = np.nan
        known = image[np.isfinite(image)]
        if known.size:
            a, b = np.percentile(known, [2, 99])
            levels = (float(a), float(b if b > a else a + 1))
            self.item.setImage(image.T, levels=levels)
            self.item.setRect(QRectF(-self.span, 0, self.span, feed.spec.n))
            self.bar.setLevels(levels)


class TracesPanel(Panel):
    """Channels one above the other on one scale, each around 0 where it crosses 0, else around its median."""

    def build(self) -> None:
        spec = self.feeds[0].spec
        self.n = min(spec.n, LANES)
        self.unit = 1.0
        """What a lane is high, in units of the stream."""
        self.curves = [
            pg.PlotCurveItem(pen=pg.mkPen(c, width=1.4), connect="finite")
            for _, c in zip(self.feeds, OVERLAID * len(self.feeds), strict=False)
        ]
        for k in range(self.n):
            self.plot.addItem(pg.InfiniteLine(self.n - 1 - k, angle=0, pen=pg.mkPen(GRID, width=1)))
        for curve in self.curves:
            self.plot.addItem(curve)
        step = -(-self.n // 16)
        ticks = [(self.n - 1 - k, str(spec.channels[k])[:11]) for k in range(0, self.n, step)]
        self.plot.getAxis("left").setTicks([ticks])
        self.plot.setYRange(-0.6, self.n - 0.4, padding=0)
        self.time_axis()
        self.plot.showAxis("right")
        self.plot.getAxis("right").setWidth(RIGHT)
        self.plot.getAxis("right").setStyle(tickLength=0, hideOverlappingLabels=False)
        self.plot.getAxis("right").setPen(None)
        self.plot.getAxis("right").setTextPen(INK)
        self.bar = pg.PlotCurveItem(pen=pg.mkPen(INK, width=3))
        self.plot.addItem(self.bar)
        if self.n < spec.n:
            self.say(f"{self.n} of {spec.n} channels")

    def paint(self, t: float) -> None:
        past = [f.recent(t - self.span) for f in self.feeds]
        known = [(low[:, : self.n], high[:, : self.n]) for _, low, high in past if len(low)]
        if not known:
            return
        low = np.fmin.reduce([np.fmin.reduce(a) for a, _ in known])
        high = np.fmax.reduce([np.fmax.reduce(b) for _, b in known])
        around = np.where((low <= 0) & (high >= 0), 0.0, (low + high) / 2)
        reach = np.nanmax(np.maximum(high - around, around - low), initial=0.0)
        if not 0.5 * self.unit < 2.2 * reach <= self.unit and reach > 0:  # lanes do not meet, nor change all the time
            self.unit = 2.5 * float(reach)
        unit = self.unit
        lanes = np.arange(self.n - 1, -1, -1.0)
        for curve, (times, a, b) in zip(self.curves, past, strict=True):
            if not len(times):
                continue
            y = np.empty((2 * len(times) + 1, self.n))
            y[0:-1:2], y[1::2] = (a[:, : self.n] - around) / unit + lanes, (b[:, : self.n] - around) / unit + lanes
            y[-1] = np.nan  # lifts the pen between channels
            x = np.append(np.repeat(times - t, 2), 0.0)
            curve.setData(np.tile(x, self.n), y.T.ravel())
        size = nice(unit / 3)
        edge, middle = -0.005 * self.span, (self.n - 1) / 2
        self.bar.setData([edge, edge], [middle - size / unit / 2, middle + size / unit / 2])
        self.plot.getAxis("right").setTicks([[(middle, f"{size:g} {self.feeds[0].spec.unit}".strip())]])


class NumbersPanel(Panel):
    """The newest values, or the newest lines of a stream of words."""

    def build(self) -> None:
        self.words = pg.TextItem(anchor=(0, 0), color=INK)
        self.plot.hideAxis("left")
        self.plot.hideAxis("bottom")
        self.plot.setMouseEnabled(x=False, y=False)
        self.plot.setRange(QRectF(0, 0, 1, 1), padding=0)
        self.words.setPos(0, 1)
        self.plot.addItem(self.words, ignoreBounds=True)

    def paint(self, t: float) -> None:
        feed = self.feeds[0]
        if feed.spec.dtype == "str":
            self.words.setText("\n".join(feed.lines))
        elif feed.samples:
            shown = list(zip(feed.spec.channels, feed.high[feed.at - 1], strict=True))[:12]
            self.words.setText("\n".join(f"{c}  {v:.4g} {feed.spec.unit}" for c, v in shown))


PANELS: dict[str, type[Panel]] = {
    "cursor": CursorPanel,
    "image": ImagePanel,
    "traces": TracesPanel,
    "numbers": NumbersPanel,
}


def dot(colour: str, square: bool = False) -> str:
    """A spot of a legend."""
    return f'<span style="color:{colour}">&#{9632 if square else 9679};</span>'


def nice(x: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most x > 0."""
    ten = 10.0 ** math.floor(math.log10(x))
    return max(m * ten for m in (1, 2, 5) if m * ten <= x * (1 + 1e-9))
