"""A fleet in a table: who is most likely to fail first stands first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QWheelEvent
from PySide6.QtWidgets import QWidget

from rheobase.devices._feed import Feed
from rheobase.devices._panel import Line, Panel, need, nice
from rheobase.devices._theme import of_state
from rheobase.stream.block import Spec

HEIGHT = 20
"""Pixels of a row."""


def at_risk(feed: Feed) -> NDArray[np.float32]:
    """The newest row of every unit, (units, channels): by the 5 % quantile of the life that is left, the least first;
    units of which nothing is known come last."""
    if not feed.units:
        return np.empty((0, feed.spec.n), np.float32)
    x = np.stack([row for _, row in feed.units.values()])
    low = x[:, feed.spec.channels.index("rul_5")]
    return x[np.argsort(np.where(np.isfinite(low), low, np.inf), kind="stable")]


class FleetPanel(Panel):
    """Channels unit, rul_5, rul_50, rul_95, and health and state where they are there: a row a unit, sorted by the life
    that it has left at least (5 % quantile). The wheel scrolls; a click picks the unit that the panels of life show."""

    stretch = 3

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        need(line, specs[0], "unit", "rul_5", "rul_50", "rul_95")

    def build(self) -> None:
        self.rows = np.empty((0, self.feeds[0].spec.n), np.float32)
        self.first = 0
        self.table = Table(self)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.table)

    def paint(self) -> None:
        self.rows = at_risk(self.feeds[0])
        self.first = max(0, min(self.first, len(self.rows) - self.table.fits()))
        n, unit = len(self.rows), self.feeds[0].spec.unit or "s"
        self.say(f"{n:,} unit{'s' * (n != 1)}, remaining life in {unit}, least first")
        self.table.update()


class Table(QWidget):
    """The rows that fit, painted."""

    def __init__(self, panel: FleetPanel) -> None:
        super().__init__()
        self.panel = panel
        self.setMinimumSize(120, 3 * HEIGHT)
        self.where = {c: i for i, c in enumerate(panel.feeds[0].spec.channels)}

    def fits(self) -> int:
        return max(1, self.height() // HEIGHT - 2)

    def columns(self) -> dict[str, tuple[float, float]]:
        """Where each column begins and ends, in pixels."""
        shares = {"unit": 8, "left": 10, "90 %": 20, "bar": 38}
        shares |= {k: 11 for k in ("health", "state") if k in self.where}
        scale = (self.width() - 16) / sum(shares.values())
        found, x = {}, 8.0
        for key, share in shares.items():
            found[key] = (x, x + share * scale)
            x += share * scale
        return found

    def paintEvent(self, event: QPaintEvent) -> None:
        panel, t = self.panel, self.panel.theme
        shown = panel.rows[panel.first : panel.first + self.fits()]
        p = QPainter(self)
        p.setRenderHint(QPainter.RenderHint.Antialiasing)
        places = self.columns()
        right = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        highs = panel.rows[:, self.where["rul_95"]]
        top = float(np.nanmax(highs)) if np.isfinite(highs).any() else 1.0
        top = top if top > 0 else 1.0
        x0, x1 = places["bar"][0] + 14, places["bar"][1] - 6
        p.setPen(QColor(t.dim))
        for key, (a, b) in places.items():
            if key != "bar":
                p.drawText(QRectF(a, 0, b - a - 4, HEIGHT), int(right), key)
        step = nice(top / 3)
        low = HEIGHT * (len(shown) + 1)
        for tick in np.arange(0, top * 1.001, step):
            x = x0 + (x1 - x0) * float(tick) / top
            p.setPen(QPen(QColor(t.grid), 1))
            p.drawLine(int(x), HEIGHT - 2, int(x), low)
            p.setPen(QColor(t.dim))
            p.drawText(QRectF(x - 40, 0, 80, HEIGHT), int(Qt.AlignmentFlag.AlignCenter), f"{tick:g}")
        for k, row in enumerate(shown):
            self._row(p, places, HEIGHT * (k + 1), row, (x0, x1, top))
        rest = len(panel.rows) - panel.first - len(shown)
        p.setPen(QColor(t.dim))
        more = f"{panel.first:,} above &nbsp;" if panel.first else ""
        if rest or panel.first:
            text = f"{more.replace('&nbsp;', ' ')}{rest:,} more below (wheel)"
            p.drawText(QRectF(8, self.height() - HEIGHT, self.width(), HEIGHT), 0, text)
        p.end()

    def _row(self, p: QPainter, places: dict[str, tuple[float, float]], y: float, row: Any, bar: Any) -> None:
        t, w, (x0, x1, top) = self.panel.theme, self.where, bar
        picked = self.panel.look.unit == float(row[0])
        if picked:
            p.fillRect(QRectF(2, y, self.width() - 4, HEIGHT), QColor(t.grid))
        a, m, b = (float(row[w[k]]) for k in ("rul_5", "rul_50", "rul_95"))
        known = np.isfinite([a, m, b]).all()
        state = float(row[w["state"]]) if "state" in w else np.nan
        colour = of_state(t, int(state)) if np.isfinite(state) else t.blue
        cells = {"unit": f"{row[0]:g}", "left": f"{m:.4g}" if known else "–"}
        cells["90 %"] = f"{a:.3g} – {b:.3g}" if known else "–"
        cells |= {k: f"{row[w[k]]:.3g}" for k in ("health", "state") if k in places}
        right = int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for key, text in cells.items():
            start, end = places[key]
            p.setPen(QColor(t.dim if key == "90 %" else t.ink))
            p.drawText(QRectF(start, y, end - start - 4, HEIGHT), right, text)
        if "state" in places and np.isfinite(state):
            p.setPen(Qt.PenStyle.NoPen)
            p.setBrush(QColor(colour))
            p.drawRoundedRect(QRectF(places["state"][0] + 14, y + 5, 10, HEIGHT - 10), 2, 2)
        if known:
            at = [x0 + (x1 - x0) * max(v, 0.0) / top for v in (a, m, b)]
            p.setPen(QPen(QColor(colour), 4, Qt.PenStyle.SolidLine, Qt.PenCapStyle.FlatCap))
            p.drawLine(int(at[0]), int(y + HEIGHT / 2), max(int(at[2]), int(at[0]) + 1), int(y + HEIGHT / 2))
            p.setPen(QPen(QColor(t.panel), 1.5))
            p.setBrush(QColor(t.ink))
            p.drawEllipse(QRectF(at[1] - 4.5, y + HEIGHT / 2 - 4.5, 9, 9))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        k = int(event.position().y()) // HEIGHT - 1 + self.panel.first
        if 0 <= k < len(self.panel.rows) and int(event.position().y()) >= HEIGHT:
            unit = float(self.panel.rows[k, 0])
            self.panel.look.unit = None if self.panel.look.unit == unit else unit
            self.update()

    def wheelEvent(self, event: QWheelEvent) -> None:
        self.panel.first += -3 if event.angleDelta().y() > 0 else 3
        self.panel.first = max(0, min(self.panel.first, len(self.panel.rows) - self.fits()))
        self.update()
