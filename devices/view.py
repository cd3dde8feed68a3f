"""A window on live streams: cursor and target, rates as an image, traces, and how healthy each input is.

Every input keeps a fixed number of columns of lowest and highest value (`COLUMNS`), so memory does not grow with
rate or duration. Blocks are taken in by one thread, painted by another (the main one, which Qt needs).
Colours: Okabe & Ito (2008) and viridis, which colour-blind people can tell apart.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal

import matplotlib
import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import Positive, Sink, nearest

try:
    import pyqtgraph as pg
    from PySide6.QtCore import QRectF, Qt, QTimer
    from PySide6.QtGui import QColor, QFont, QFontDatabase
    from PySide6.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget
except ImportError as e:
    if isinstance(e, ModuleNotFoundError):
        raise
    raise StreamError(
        f"the window needs a library of the system: {e} (on Debian: apt-get install libegl1 libgl1 "
        "libxkbcommon0 libdbus-1-3 libfontconfig1)"
    ) from None

Kind = Literal["traces", "image", "cursor", "numbers"]

COLUMNS = {"traces": 600, "image": 600, "cursor": 2000, "numbers": 1}
"""Columns kept for each input: more than the panels have pixels would be lost on the screen. A cursor's are single
samples up to 200 Hz, so that its path is what it was."""
LANES = 32
"""Most channels drawn as traces; the panel's title says how many there are."""
LEFT, RIGHT = 74, 70
"""Pixels beside panels that share the axis of time, so that their times stand one above the other."""
GROUND, GRID, INK, DIM = "#101418", "#2b333c", "#e6e9ec", "#8b96a2"
BLUE, ORANGE, GREEN, YELLOW, RED, PINK = "#56b4e9", "#e69f00", "#009e73", "#f0e442", "#d55e00", "#cc79a7"
OVERLAID = (BLUE, ORANGE, GREEN, PINK)


class Feed:
    """The recent past of one input, in columns of `every` samples, and its health."""

    def __init__(self, name: str, spec: Spec, kind: Kind, span: float) -> None:
        self.name, self.spec, self.kind = name, spec, kind
        self.columns = COLUMNS[kind]
        self.every = max(1, math.ceil(spec.rate * span / self.columns))
        self.times = np.full(self.columns, -np.inf)
        self.low = np.full((self.columns, spec.n), np.nan)
        self.high = self.low.copy()
        self.lines: deque[str] = deque(maxlen=8)
        self.at = self.filled = 0
        self.samples = self.drops = self.segment = self.following = 0
        self.heard = -math.inf
        self.ages: deque[float] = deque(maxlen=1000)
        self.clock: deque[tuple[float, int]] = deque(maxlen=400)

    def take(self, x: Block) -> None:
        if not len(x):
            return
        self.drops += max(x.seq - self.following, 0) if self.samples else 0
        self.following = x.seq + len(x)
        self.samples += len(x)
        self.heard = now()
        self.ages.append(self.heard - float(x.times[0]))
        self.clock.append((float(x.times[-1]), self.samples))
        if x.segment != self.segment:
            self.segment, self.filled = x.segment, 0
            self.clock.clear()
            gap = np.full((1, self.spec.n), np.nan)
            self._write(x.times[:1], gap, gap)
        if self.spec.dtype == "str":
            self.lines.extend(str(line) for line in x.data[:, 0])
            return
        left = (self.every - self.filled) % self.every
        if left:
            part = x.data[:left].astype(np.float64)
            self.low[self.at - 1] = np.fmin(self.low[self.at - 1], np.fmin.reduce(part))
            self.high[self.at - 1] = np.fmax(self.high[self.at - 1], np.fmax.reduce(part))
            self.filled = (self.filled + len(part)) % self.every
        data, times = x.data[left:].astype(np.float64), x.times[left:]
        if len(data):
            starts = np.arange(0, len(data), self.every)[-self.columns :]
            self._write(times[starts], np.fmin.reduceat(data, starts), np.fmax.reduceat(data, starts))
            self.filled = (len(data) - int(starts[-1])) % self.every

    def _write(self, times: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> None:
        where = (self.at + np.arange(len(times))) % self.columns
        self.times[where], self.low[where], self.high[where] = times, low, high
        self.at = (self.at + len(times)) % self.columns

    def recent(self, since: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times, lowest and highest values, in order, of the columns after `since`."""
        order = np.roll(np.arange(self.columns), -self.at)
        order = order[self.times[order] > since]
        return self.times[order], self.low[order], self.high[order]

    @property
    def newest(self) -> float:
        return float(self.times.max()) if self.spec.dtype != "str" else -math.inf

    def rate(self) -> float:
        """Samples a second over the last blocks, by their own times, Hz."""
        if len(self.clock) < 2 or self.clock[-1][0] <= self.clock[0][0]:
            return math.nan
        return (self.clock[-1][1] - self.clock[0][1]) / (self.clock[-1][0] - self.clock[0][0])

    def health(self) -> tuple[str, ...]:
        """Rate, age p50 and p99, dropped, segment, and a word where something is wrong."""
        silent = now() - self.heard
        p50, p99 = np.quantile(self.ages, [0.5, 0.99]) * 1e3 if self.ages else (math.nan, math.nan)
        recorded = p50 > 1e6
        words = "nothing yet" if not self.samples else f"silent for {silent:.0f} s" if silent > 1 else ""
        if self.drops:
            words = f"{words} samples dropped".strip()
        return (
            f"{self.rate():,.1f} Hz" if math.isfinite(self.rate()) else "–",
            "recorded" if recorded else f"{p50:,.1f} ms" if self.ages else "–",
            "recorded" if recorded else f"{p99:,.1f} ms" if self.ages else "–",
            f"{self.drops:,}",
            str(self.segment),
            words,
        )


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
    """Cursor, its path of the last seconds, target, and the intended velocity where the stream has it, in cm."""

    TAIL = 3.0
    """s: length of path drawn."""
    AHEAD = 0.15
    """s: the intended velocity is drawn as the way it would make in so long."""

    target, disc = 0.024, 0.015

    def build(self) -> None:
        plot = self.plot
        plot.setAspectLocked(True)
        plot.showGrid(x=True, y=True, alpha=0.12)
        plot.setLabel("bottom", "x, cm", color=DIM)
        plot.setLabel("left", "y, cm", color=DIM)
        self.reach = 14.0
        plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)
        names = self.feeds[0].spec.channels
        self.where = {
            k: names.index(k)
            for k in ("cursor_x", "cursor_y", "target_x", "target_y", "intended_x", "intended_y", "number", "held")
            if k in names
        }
        self.seen: dict[tuple[float, float], None] = {}
        self.ghosts = pg.ScatterPlotItem(
            pxMode=False, size=self.target * 100, pen=pg.mkPen("#46515c", width=1.2), brush=None
        )
        self.goal = pg.ScatterPlotItem(pxMode=False, size=self.target * 100, pen=pg.mkPen(ORANGE, width=2))
        self.tail = [pg.PlotCurveItem(pen=pg.mkPen(QColor(86, 180, 233, 50 + 50 * i), width=1 + i)) for i in range(4)]
        self.wish = pg.PlotCurveItem(pen=pg.mkPen(PINK, width=3))
        self.dot = pg.ScatterPlotItem(
            pxMode=False, size=self.disc * 100, pen=pg.mkPen("#d9effb", width=1.5), brush=BLUE
        )
        for item in (self.ghosts, self.goal, *self.tail, self.dot, self.wish):
            plot.addItem(item)

    def paint(self, t: float) -> None:
        times, x, _ = self.feeds[0].recent(t - self.span)
        if not len(times):
            return
        w, cm = self.where, x * 100
        cx, cy = cm[:, w["cursor_x"]], cm[:, w["cursor_y"]]
        tail = np.flatnonzero(times > t - self.TAIL)
        for curve, part in zip(self.tail, np.array_split(tail, len(self.tail)), strict=True):
            to = min(part[-1] + 2, len(times)) if len(part) else 0
            curve.setData(cx[part[0] : to], cy[part[0] : to]) if len(part) else curve.setData([], [])
        self.dot.setData([cx[-1]], [cy[-1]])
        if "target_x" in w and "target_y" in w:
            goal = (float(cm[-1, w["target_x"]]), float(cm[-1, w["target_y"]]))
            held = "held" in w and x[-1, w["held"]] > 0
            self.goal.setData([goal[0]], [goal[1]], brush=YELLOW if held else ORANGE + "70")
            for g in zip(cm[:, w["target_x"]].round(1), cm[:, w["target_y"]].round(1), strict=True):
                self.seen[(float(g[0]), float(g[1]))] = None
            while len(self.seen) > 64:
                del self.seen[next(iter(self.seen))]
            self.ghosts.setData([g[0] for g in self.seen], [g[1] for g in self.seen])
        if "intended_x" in w and "intended_y" in w:
            ix, iy = (cm[-1, w[k]] * self.AHEAD for k in ("intended_x", "intended_y"))
            self.wish.setData([cx[-1], cx[-1] + ix], [cy[-1], cy[-1] + iy])
        number = f"target {x[-1, w['number']]:.0f}" if "number" in w else ""
        key = [(BLUE, "cursor"), (ORANGE, "target"), *([(PINK, "intended")] if "intended_x" in w else [])]
        self.say(" &nbsp;".join(f"{dot(c)} {k}" for c, k in key) + f" &nbsp; {number}")
        furthest = float(np.nanmax(np.abs(cm[:, [w["cursor_x"], w["cursor_y"]]]), initial=0.0))
        if math.isfinite(furthest) and furthest > self.reach:
            self.reach = furthest * 1.1
            self.plot.setRange(QRectF(-self.reach, -self.reach, 2 * self.reach, 2 * self.reach), padding=0.02)


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
        self.bar.getAxis("right").setWidth(RIGHT - 22)
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
        self.curves = [
            pg.PlotCurveItem(pen=pg.mkPen(c, width=1.4), connect="finite")
            for _, c in zip(self.feeds, OVERLAID * len(self.feeds), strict=False)
        ]
        for k in range(self.n):
            self.plot.addItem(pg.InfiniteLine(self.n - 1 - k, angle=0, pen=pg.mkPen(GRID, width=1)))
        for curve in self.curves:
            self.plot.addItem(curve)
        step = -(-self.n // 16)
        ticks = [(self.n - 1 - k, str(spec.channels[k])[:12]) for k in range(0, self.n, step)]
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
        unit = nice(2 * reach) if reach > 0 and math.isfinite(reach) else 1.0
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


def usual(spec: Spec) -> Kind:
    """The panel that suits a stream where the config does not say."""
    if spec.dtype == "str":
        return "numbers"
    if {"cursor_x", "cursor_y"} <= set(spec.channels):
        return "cursor"
    if spec.n >= 16 and (0 < spec.rate <= 200 or spec.unit == "count"):
        return "image"
    return "traces"


def row(name: str, *cells: str, colour: str = INK) -> str:
    """A row of the table of health; its last cell says what is wrong."""
    right = "".join(f'<td align="right" style="padding-left:26px">{c}</td>' for c in cells[:-1])
    words = f'<td style="padding-left:26px; color:{RED}">{cells[-1]}</td>'
    return f'<tr style="color:{colour}"><td>{name}</td>{right}{words}</tr>'


class Window(QWidget):
    """All panels and the table of health below them."""

    def __init__(self, feeds: list[Feed], span: float, title: str) -> None:
        super().__init__()
        self.feeds = feeds
        self.setWindowTitle(title)
        self.setStyleSheet(f"background: {GROUND}; color: {INK};")
        self.resize(1280, 720)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 6, 6, 6)
        layout.setSpacing(4)
        self.plots = pg.GraphicsLayoutWidget()
        self.plots.setBackground(GROUND)
        layout.addWidget(self.plots, 1)
        self.table = QLabel()
        self.table.setTextFormat(Qt.TextFormat.RichText)
        self.table.setContentsMargins(10, 2, 10, 4)
        layout.addWidget(self.table)
        groups: dict[Any, list[Feed]] = {}
        for i, f in enumerate(feeds):
            alike = (f.spec.n, f.spec.unit) if f.kind == "traces" and len(feeds) > 1 else i
            groups.setdefault(alike, []).append(f)
        left = [g for g in groups.values() if g[0].kind == "cursor"]
        right = [g for g in groups.values() if g[0].kind != "cursor"]
        self.panels: list[Panel] = []
        grid = self.plots.ci.layout
        for column, side in enumerate([s for s in (left, right) if s]):
            rows = max(len(left), 1) * max(len(right), 1)
            for k, group in enumerate(side):
                each = rows // len(side)
                plot = self.plots.addPlot(row=k * each, col=column, rowspan=each)
                plot.getAxis("left").setWidth(44 if group[0].kind == "cursor" else LEFT)
                self.panels.append(PANELS[group[0].kind](group, plot, span))
            grid.setColumnStretchFactor(column, 1)

    def paint(self) -> None:
        t = max((f.newest for f in self.feeds), default=-math.inf)
        if math.isfinite(t):
            for panel in self.panels:
                panel.paint(t)
        rows = [row("input", "rate", "age p50", "age p99", "dropped", "segment", "", colour=DIM)]
        rows += [row(f.name, *f.health()) for f in self.feeds]
        self.table.setText(f'<table cellspacing="0">{"".join(rows)}</table>')


class View(Sink):
    """A window of what its inputs carry. Without a screen it paints all the same, for the picture."""

    policy: ClassVar[str] = "drop_oldest: 1024"

    panels: dict[str, Kind] = field(default_factory=dict)
    """Input -> how to show it: traces, image, cursor (channels cursor_x, cursor_y, target_x, ..., m) or numbers."""
    span: Positive = 10.0
    """Time shown, s."""
    picture: str = ""
    """PNG of the window to write at the end, in the run directory; "": none."""

    def start(self, *inputs: Spec) -> None:
        """Raises StreamError where a panel is for no input, or does not suit its input."""
        names = self.inputs or tuple(f"input {i}" for i in range(len(inputs)))
        for key in self.panels:
            if key not in names:
                raise StreamError(f"panels: no input {key!r}{nearest(key, names)}")
        kinds = [self.panels.get(name, usual(spec)) for name, spec in zip(names, inputs, strict=True)]
        for name, spec, kind in zip(names, inputs, kinds, strict=True):
            if kind == "cursor" and not {"cursor_x", "cursor_y"} <= set(spec.channels):
                raise StreamError(f"panels: {name!r} has no channels 'cursor_x' and 'cursor_y' to show as a cursor")
            if spec.dtype == "str" and kind != "numbers":
                raise StreamError(f"panels: {name!r} carries words: show it as 'numbers', not {kind!r}")
        self.lock = threading.Lock()
        self.feeds = [Feed(*a, self.span) for a in zip(names, inputs, kinds, strict=True)]

    def take(self, i: int, x: Block) -> None:
        with self.lock:
            self.feeds[i].take(x)

    def window(self) -> Window:
        """The window, as it is now. Needs the main thread."""
        application()
        w = Window(self.feeds, self.span, f"rheobase · {self.folder.name if self.folder else self.name or 'view'}")
        with self.lock:
            w.paint()
        return w

    def loop(self, stopped: Callable[[], bool]) -> bool:
        app = application()
        w = self.window()
        w.show()
        seen = app.platformName() != "offscreen"
        timer = QTimer()

        def tick() -> None:
            if stopped():
                app.quit()
                return
            begin = now()
            if seen and w.isVisible():
                with self.lock:
                    w.paint()
            timer.start(max(33, round(3e3 * (now() - begin))))  # paints a third of the time at most

        timer.setSingleShot(True)
        timer.timeout.connect(tick)
        timer.start(33)
        if not stopped():
            app.exec()
        if self.picture:
            self.save(w)
        w.close()
        return True

    def save(self, w: Window) -> Path:
        """Write the picture of a window."""
        path = (self.folder or Path()) / self.picture
        with self.lock:
            w.paint()
        path.parent.mkdir(parents=True, exist_ok=True)
        if not w.grab().save(str(path)):
            raise StreamError(f"picture: cannot write {path}")
        return path


def application() -> QApplication:
    """The one application of this process: on the screen, or off it where there is none."""
    app = QApplication.instance()
    if isinstance(app, QApplication):
        return app
    if "QT_QPA_PLATFORM" not in os.environ and not screen():
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    app = QApplication(["rheobase"])
    app.setQuitOnLastWindowClosed(False)  # closing the window does not stop the graph
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"  # the same letters everywhere, and where there are none
    family = QFontDatabase.applicationFontFamilies(QFontDatabase.addApplicationFont(str(fonts / "DejaVuSans.ttf")))
    app.setFont(QFont(family[0] if family else "", 9))
    pg.setConfigOptions(antialias=True, background=GROUND, foreground=INK)
    return app


def screen() -> bool:
    """Whether a window can be opened. Qt ends the process where it cannot, so another process tries."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    trial = "from PySide6.QtWidgets import QApplication; QApplication([])"
    try:
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        print("no window: " + (done.stderr.strip().splitlines() or ["Qt cannot reach the screen"])[0], file=sys.stderr)
    return done.returncode == 0
