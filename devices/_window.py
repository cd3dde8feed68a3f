"""A window: panels in columns, a table of health, and what keys and the mouse do to them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtGui import QCloseEvent, QKeyEvent
from PySide6.QtWidgets import QLabel, QSizePolicy, QSlider, QSplitter, QVBoxLayout, QWidget

from rheobase.devices._feed import Feed
from rheobase.devices._hands import HELP, Hands
from rheobase.devices._panel import Line, Look, Panel, said
from rheobase.devices._panels import PANELS
from rheobase.devices._theme import DARK, LIGHT
from rheobase.stream.clock import now

TELL = 0.2
"""s from one table of health to the next."""
ROWS = 6
"""Inputs in it, at most."""
WIDE = 1100
"""Pixels of a window where the table stands in two halves, side by side."""
GAP = '<td width="70"></td>'
SHORTEST = 0.02
"""s: the least time a window can show."""


class Window(QWidget):
    """Panels on feeds, which others fill. Nothing in it takes long but `paint`.

    columns    what is shown, column by column
    mark       writes an event mark; False: there is nobody to write it down
    another    opens a second window on the same feeds
    picture    saves a picture of this window
    recording  where samples come from a recording: `begin`, `end`, `at` (s), `playing`, `seek(t)`
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        columns: Sequence[Sequence[Line]],
        look: Look,
        title: str,
        mark: Callable[[str], bool] = lambda word: False,
        another: Callable[[], Any] = lambda: None,
        picture: Callable[[Window], Any] = lambda w: None,
        recording: Any = None,
    ) -> None:
        super().__init__()
        self.feeds, self.columns, self.look = {f.name: f for f in feeds}, columns, look
        self.mark, self.another, self.picture, self.recording = mark, another, picture, recording
        self.kept: Path | None = None
        self.past = look.span
        """The most time that can be shown, s."""
        self.setWindowTitle(title)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.resize(1280, 720)
        self.box = QVBoxLayout(self)
        self.box.setContentsMargins(6, 6, 6, 4)
        self.box.setSpacing(4)
        self.splitter = QSplitter(Qt.Orientation.Horizontal)
        self.box.addWidget(self.splitter, 1)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 1000)
        self.slider.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.slider.sliderMoved.connect(self.slid)
        self.hands = Hands(self)
        self.table, self.status = QLabel(), QLabel()
        for label in (self.table, self.status):
            label.setTextFormat(Qt.TextFormat.RichText)
            label.setContentsMargins(10, 0, 10, 2)
        self.status.setWordWrap(True)
        self.table.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        for widget in (self.slider, self.hands.entry, self.table, self.status):
            self.box.addWidget(widget)
        self.told, self.frames = -math.inf, 0
        self.alone: Panel | None = None
        self.word, self.helped = "", False
        self.panels: list[Panel] = []
        self.furnish()

    def furnish(self) -> None:
        """All panels anew, in the colours of the theme."""
        t = self.look.theme
        self.setStyleSheet(
            f"Window, QWidget#window {{ background: {t.ground}; }} QLabel {{ color: {t.ink}; }} "
            f"QSplitter::handle {{ background: {t.ground}; }} QLineEdit {{ background: {t.panel}; color: {t.ink}; "
            f"border: 1px solid {t.blue}; border-radius: 4px; padding: 3px 8px; }}"
        )
        self.setObjectName("window")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground, True)
        sizes = [self.splitter.sizes(), *(s.sizes() for s in self.sides())]
        for k in reversed(range(self.splitter.count())):
            if old := self.splitter.widget(k):
                old.setParent(None)
                old.deleteLater()
        self.panels, self.alone = [], None
        for column in self.columns:
            side = QSplitter(Qt.Orientation.Vertical)
            for line in column:
                panel = PANELS[line.kind](line, [self.feeds[n] for n in line.of], self.look)
                panel.graphics.hands = self.hands
                side.addWidget(panel)
                self.panels.append(panel)
            timed = [p for p in self.panels[-len(column) :] if p.timed]
            for panel in timed[1:]:
                panel.labelled = False
            mine = self.panels[-len(column) :]
            if not any(p.wide for p in mine):
                for panel in mine:
                    panel.narrow()
            side.setSizes([1000 * p.stretch for p in mine])
            self.splitter.addWidget(side)
        self.splitter.setSizes([400 if all(line.kind == "numbers" for line in c) else 1000 for c in self.columns])
        if len(sizes) == 1 + len(self.columns) and sizes[0]:
            self.proportions(sizes)

    def sides(self) -> list[QSplitter]:
        found = [self.splitter.widget(k) for k in range(self.splitter.count())]
        return [s for s in found if isinstance(s, QSplitter)]

    def proportions(self, sizes: Sequence[Sequence[int]]) -> None:
        """Sizes of the columns, then of the panels of each."""
        self.splitter.setSizes(list(sizes[0]))
        for side, each in zip(self.sides(), sizes[1:], strict=False):
            side.setSizes(list(each))

    def paint(self) -> None:
        """All panels that can be seen, as the feeds are now."""
        look = self.look
        self.frames += 1
        look.newest = max((f.newest for f in self.feeds.values() if f.spec.dtype != "str"), default=-math.inf)
        if math.isinf(look.newest):
            look.newest = max((f.newest for f in self.feeds.values()), default=-math.inf)
        if math.isfinite(look.newest):
            if look.end is not None and look.end < (oldest := self.reach()[0]):
                look.end = oldest  # what was looked at is forgotten
            words = [w for f in self.feeds.values() for w in f.words if look.left < w[0] <= look.right]
            look.words = sorted(words)
            for panel in self.panels:
                if panel.isVisibleTo(self):
                    panel.painted()
        self.tell()

    def tell(self) -> None:
        """The table of health, the status, the slider."""
        if now() - self.told >= TELL:
            self.told = now()
            self.health()
        a, b = self.reach()
        if not self.slider.isSliderDown():
            self.slider.setValue(round(1000 * (self.at - a) / (b - a)) if b > a else 1000)
        words, r = [], self.recording
        if r is None and self.look.end is not None:
            words.append(f"paused, {self.look.newest - self.look.right:.1f} s back")
        if r:
            words.append(f"{'playing' if r.playing else 'paused'}, {r.at - r.begin:.1f} of {r.end - r.begin:.1f} s")
        words += [said(self.word)] if self.word else []
        words.append(f'<span style="color:{self.look.theme.dim}">{HELP if self.helped else "h: keys"}</span>')
        text = " &nbsp; ".join(words)
        if text != self.status.text():
            self.status.setText(text)

    def health(self) -> None:
        """The table: all inputs where they are few, else those with a fault first."""
        t, told = self.look.theme, {n: f.health() for n, f in self.feeds.items()}
        heads = list(next(iter(told.values()))) if told else []
        shown = sorted(told, key=lambda n: not told[n][""])[:ROWS]
        rows = [row(said(n), *told[n].values(), colour=t.ink, wrong=t.red) for n in told if n in shown]
        if len(told) > len(shown):
            rows.append(row(f"and {len(told) - len(shown)} more", *[""] * len(heads), colour=t.dim, wrong=t.red))
        head = row("input", *heads, colour=t.dim, wrong=t.red)
        half = -(-len(rows) // 2) if len(rows) > 2 and self.width() > WIDE else len(rows)
        sides = [f'<td><table cellspacing="0">{head}{"".join(r)}</table></td>' for r in (rows[:half], rows[half:]) if r]
        self.table.setText(f'<table cellspacing="0"><tr>{GAP.join(sides)}</tr></table>')

    def help(self) -> None:
        self.helped = not self.helped

    # --- time

    def reach(self) -> tuple[float, float]:
        """The earliest and the latest right edge."""
        if self.recording:
            return self.recording.begin, self.recording.end
        known = [f.oldest for f in self.feeds.values() if math.isfinite(f.oldest)]
        newest = self.look.newest
        return min(min(known, default=newest) + self.look.span, newest), newest

    def go(self, t: float) -> None:
        """Put the right edge at t s; at the newest it follows."""
        a, b = self.reach()
        if self.recording:
            self.recording.seek(min(max(t, a), b))
        else:
            self.look.end = None if t >= b else max(t, a)

    @property
    def at(self) -> float:
        """Time at the right edge, s."""
        return float(self.recording.at) if self.recording else self.look.right

    def step(self, s: float) -> None:
        self.go(self.at + s)

    def pause(self) -> None:
        if self.recording:
            self.recording.playing = not self.recording.playing
        else:
            self.look.end = self.look.newest if self.look.end is None else None

    def slid(self, value: int) -> None:
        a, b = self.reach()
        self.go(a + (b - a) * value / 1000)

    def zoom(self, factor: float) -> None:
        self.look.span = min(max(self.look.span * factor, SHORTEST), self.past)
        if self.recording:
            self.recording.back = self.look.span
            self.recording.seek(self.at)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if not self.hands.pressed(event):
            super().keyPressEvent(event)

    # --- panels

    def single(self, panel: Panel) -> None:
        """A panel alone, or all again."""
        self.alone = None if self.alone is panel else panel
        for p in self.panels:
            p.setVisible(self.alone in (None, p))
        for side in self.sides():
            side.setVisible(self.alone is None or side.isAncestorOf(self.alone))

    def turn(self) -> None:
        """The other theme."""
        self.look.theme = LIGHT if self.look.theme is DARK else DARK
        self.furnish()

    # --- what is kept from one run to the next

    def keep(self, path: Path) -> None:
        """Take up the layout that was saved there; save it there when the window closes."""
        self.kept = path
        try:
            saved = json.loads(path.read_text())
            a, b, w, h = (int(v) for v in saved["place"])
            self.setGeometry(a, b, max(w, 200), max(h, 150))
            if (self.look.theme is LIGHT) != bool(saved["light"]):
                self.turn()
            self.look.span = min(max(float(saved["span"]), SHORTEST), self.past)
            self.proportions([[int(v) for v in sizes] for sizes in saved["sizes"]])
        except (OSError, ValueError, KeyError, TypeError):
            return  # none yet, or not ours: the usual one

    def save(self) -> None:
        if self.kept is None:
            return
        g = self.geometry()
        saved = {
            "place": [g.x(), g.y(), g.width(), g.height()],
            "light": self.look.theme is LIGHT,
            "span": self.look.span,
            "sizes": [self.splitter.sizes(), *(s.sizes() for s in self.sides())],
        }
        try:
            self.kept.parent.mkdir(parents=True, exist_ok=True)
            self.kept.write_text(json.dumps(saved))
        except OSError:
            self.kept = None  # a home that cannot be written to: then not

    def closeEvent(self, event: QCloseEvent) -> None:
        self.save()
        super().closeEvent(event)


def row(name: str, *cells: str, colour: str, wrong: str) -> str:
    """A row of the table of health; its last cell says what is wrong."""
    right = "".join(f'<td align="right" style="padding-left:26px">{c}</td>' for c in cells[:-1])
    words = f'<td style="padding-left:26px; color:{wrong}">{cells[-1]}</td>'
    return f'<tr style="color:{colour}"><td>{name}</td>{right}{words}</tr>'
