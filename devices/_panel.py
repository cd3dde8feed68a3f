"""What all panels of a window are: a way to look at one or several streams, and what part of time is looked at."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QFrame, QGraphicsItem, QLabel, QVBoxLayout

from rheobase.devices._feed import Feed
from rheobase.devices._theme import DARK, Theme
from rheobase.devices._words import label, labels
from rheobase.stream.block import Spec, StreamError

LEFT, RIGHT = 88, 70
"""Pixels beside panels that share the axis of time, so that their times stand one above the other."""
LABELLED = 8
"""Marks with their word beside them, in a panel; more are lines alone."""
MARKS = 64
"""Marks drawn, at most: the last."""


@dataclass
class Line:
    """What the config says of a panel."""

    name: str
    kind: str
    of: tuple[str, ...]
    channels: tuple[str, ...] = ()
    model: str = ""
    array: str = ""


@dataclass
class Look:
    """What the panels of a window have in common."""

    span: float
    """Time shown, s."""
    theme: Theme = DARK
    end: float | None = None
    """Time at the right edge, s of the streams' clock; None: follow the newest."""
    newest: float = -math.inf
    picks: dict[str, list[int]] = field(default_factory=dict)
    """Input -> the channels of it that are shown; all where there is none."""
    unit: float | None = None
    """The unit of a fleet that is looked at; None: the one at most risk."""
    words: list[tuple[float, str]] = field(default_factory=list)
    """Markers and their times."""
    folder: Path | None = None
    """The run directory."""

    @property
    def right(self) -> float:
        """Time at the right edge, s."""
        return self.newest if self.end is None else self.end

    @property
    def left(self) -> float:
        return self.right - self.span

    def label(self) -> str:
        """Of the axis of time, whose zero is the right edge."""
        if self.end is None:
            return "time before now, s"
        return f"time, s (0 is {self.newest - self.end:.1f} s before the newest)"


class Canvas(pg.GraphicsLayoutWidget):  # type: ignore[misc]
    """Where a panel draws. What the mouse does on it goes to the hands of the window."""

    def __init__(self, panel: Panel) -> None:
        super().__init__()
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # keys are the window's
        self.panel = panel
        self.hands: Any = None

    def wheelEvent(self, event: QWheelEvent) -> None:
        if self.hands:
            self.hands.wheel(self.panel, event)

    def _mouse(self, event: QMouseEvent) -> None:
        if self.hands:
            self.hands.mouse(self.panel, event)

    mousePressEvent = mouseMoveEvent = mouseReleaseEvent = mouseDoubleClickEvent = _mouse


class Panel(QFrame):
    """One panel of the window. Override `build` and `paint`, and `suits` where not every stream can be shown."""

    inputs: ClassVar[tuple[int, int]] = (1, 1)
    """How many streams it shows, at least and at most."""
    stretch: int = 2
    """Height, as a share of a column's."""

    def __init__(self, line: Line, feeds: list[Feed], look: Look) -> None:
        super().__init__()
        self.line, self.feeds, self.look, self.theme = line, feeds, look, look.theme
        self.setObjectName("panel")
        self.setStyleSheet(f"#panel {{ background: {self.theme.panel}; border-radius: 5px; }}")
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 4, 4, 2)
        box.setSpacing(0)
        self.head = QLabel()
        self.head.setTextFormat(Qt.TextFormat.RichText)
        self.head.setContentsMargins(8, 1, 4, 1)
        self.head.setMinimumWidth(40)
        self.head.setFixedHeight(22)
        box.addWidget(self.head)
        self.graphics = Canvas(self)
        self.graphics.setBackground(self.theme.panel)
        self.graphics.ci.layout.setContentsMargins(2, 8, 2, 2)  # half of the number at the top of an axis
        self.graphics.ci.layout.setVerticalSpacing(2)
        self.graphics.setMinimumSize(60, 40)
        self.timed: list[pg.PlotItem] = []
        self.sides: list[Any] = []
        """Right axes that only keep times above one another."""
        self.wide = False
        """Whether there is something beside its plots: a scale bar, a colour bar."""
        self.labelled = True
        """Whether marks have their words beside them here."""
        self.shown = ""
        self.title(self.names())
        self.build()
        box.addWidget(self.graphics, 1)
        self.graphics.setVisible(bool(self.graphics.ci.items))

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        """Raises StreamError where it cannot show these streams."""
        if any(s.dtype == "str" for s in specs):
            raise StreamError(f"{line.of[0]!r} carries words: show it as 'numbers', not {line.kind!r}")

    def build(self) -> None:
        raise NotImplementedError

    def paint(self) -> None:
        """Draw what there is in the time that is looked at."""
        raise NotImplementedError

    def names(self) -> str:
        """What it shows, with the colour of each where there are several."""
        if len(self.feeds) == 1 or len(self.line.of) == 1:
            return said(self.line.name)
        each = zip(self.theme.lines * len(self.feeds), self.feeds, strict=False)
        return " &nbsp;".join(f"{dot(c, True)} {said(f.name)}" for c, f in each)

    def title(self, names: str, more: str = "") -> None:
        text = f'<b>{names}</b> <span style="color:{self.theme.dim}">&nbsp;{more}</span>'
        if text != self.shown:
            self.shown = text
            self.head.setStyleSheet(f"color: {self.theme.ink};")
            self.head.setText(text)

    def say(self, more: str) -> None:
        """Words beside the title."""
        self.title(self.names(), more)

    def add_image(self, plot: pg.PlotItem) -> tuple[pg.ImageItem, pg.ColorBarItem]:
        """An image in a plot, and the bar that says what its colours are."""
        self.wide = True
        plot.addItem(item := pg.ImageItem(axisOrder="row-major"))
        bar = plot.addColorBar(item, width=10, interactive=False, colorMap="viridis")
        bar.getAxis("right").setTextPen(self.theme.dim)
        bar.getAxis("right").setWidth(RIGHT - 18)
        item.setColorMap(pg.colormap.get("viridis"))
        return item, bar

    def add_plot(self, row: int = 0, x: str = "", y: str = "", time: bool = False) -> pg.PlotItem:
        """A plot with labels at its axes; time: its x is the time that the window looks at."""
        plot = self.graphics.addPlot(row=row, col=0, enableMenu=False)
        plot.hideButtons()
        plot.setMouseEnabled(x=False, y=False)
        for side in ("left", "bottom"):
            axis = plot.getAxis(side)
            axis.setPen(self.theme.grid)
            axis.setTextPen(self.theme.dim)
            axis.setCacheMode(QGraphicsItem.CacheMode.DeviceCoordinateCache)  # drawn anew when it changes, no sooner
            axis.setStyle(tickLength=4, hideOverlappingLabels=side == "left")
        plot.getAxis("left").enableAutoSIPrefix(False)
        plot.getAxis("bottom").enableAutoSIPrefix(False)
        plot.setLabel("left", y, color=self.theme.dim)
        if x:
            plot.setLabel("bottom", x, color=self.theme.dim)
        if time:
            plot.getAxis("left").setWidth(LEFT)
            self.timed.append(plot)
            plot.lines = pg.PlotCurveItem(pen=pg.mkPen(self.theme.yellow, width=1), connect="pairs")
            plot.lines.setZValue(20)
            plot.addItem(plot.lines, ignoreBounds=True)
            plot.words = labels(plot, LABELLED, self.theme)
        return plot

    def side_axis(self, plot: pg.PlotItem) -> Any:
        """The right axis, for a scale bar or nothing, as wide as the colour bars of others."""
        plot.showAxis("right")
        axis = plot.getAxis("right")
        axis.setWidth(RIGHT)
        axis.setStyle(tickLength=0, hideOverlappingLabels=False)
        axis.setPen(None)
        axis.setTextPen(self.theme.ink)
        axis.setTicks([[]])
        self.sides.append(axis)
        return axis

    def narrow(self) -> None:
        """No room beside its plots: no panel above or below has anything there."""
        for axis in self.sides:
            axis.setWidth(12)

    def painted(self) -> None:
        """Paint it, and what all that show time have: their range, the label of the axis, the marks."""
        look = self.look
        for plot in self.timed:
            plot.setXRange(-look.span, 0, padding=0)
        self.paint()
        words = look.words[-MARKS:]
        at = np.repeat([t - look.right for t, _ in words], 2)
        for k, plot in enumerate(self.timed):
            if k == len(self.timed) - 1 and plot.getAxis("bottom").labelText != look.label():
                plot.setLabel("bottom", look.label(), color=self.theme.dim)
            low, high = plot.vb.viewRange()[1]
            plot.lines.setData(at, np.tile([low, high], len(words)))
            if self.labelled and k == 0:
                label(plot, words[: -LABELLED - 1 : -1], look.right, look.span)

    def pixels(self, plot: pg.PlotItem) -> tuple[int, int]:
        """Width and height of the inside of a plot."""
        box = plot.vb.sceneBoundingRect()
        return max(2, round(box.width())), max(2, round(box.height()))

    def chosen(self, feed: Feed, most: int) -> list[int]:
        """The channels to show: those picked, else those of the config, else the first."""
        picked = self.look.picks.get(feed.name)
        if picked is None:
            picked = columns(feed, self.line.channels) if self.line.channels else list(range(feed.spec.n))
        return picked[:most]


def columns(feed: Feed, names: Sequence[str]) -> list[int]:
    """Where the channels of these names are."""
    return [feed.spec.channels.index(n) for n in names if n in feed.spec.channels]


def need(line: Line, spec: Spec, *names: str) -> None:
    """Raises StreamError where a stream has not these channels."""
    if missing := [n for n in names if n not in spec.channels]:
        words = " and ".join(map(repr, missing))
        raise StreamError(f"{line.of[0]!r} has no channel{'s' * (len(missing) > 1)} {words} to show as {line.kind!r}")


def nearest_columns(times: NDArray[np.float64], grid: NDArray[np.float64], step: float) -> NDArray[np.int64]:
    """For each time of a grid which sample holds there, -1 where it is older than 2.5 steps."""
    if not len(times):
        return np.full(len(grid), -1)
    order = np.maximum.accumulate(times)  # a clock that was set back
    i = np.searchsorted(order, grid, side="right") - 1
    i[(i >= 0) & (grid - order[np.maximum(i, 0)] > 2.5 * step)] = -1
    return i


def dot(colour: str, square: bool = False) -> str:
    """A spot of a legend."""
    return f'<span style="color:{colour}">&#{9632 if square else 9679};</span>'


def said(text: str) -> str:
    """Words of a config or a stream, which anybody may have written, as they stand."""
    return html.escape(str(text))


def unit(text: str, before: str = ", ") -> str:
    """A unit behind a label, where there is one."""
    return f"{before}{text.replace('^2', '²')}" if text else ""


def squared(unit: str) -> str:
    """The unit of a power or a covariance."""
    return f"{unit}²" if unit.isalpha() else f"({unit})²" if unit else "1"


def nice(x: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is at most x > 0."""
    ten = 10.0 ** math.floor(math.log10(x))
    return max(m * ten for m in (1, 2, 5) if m * ten <= x * (1 + 1e-9))
