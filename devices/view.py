"""A window on live streams: cursor and target, rates as an image, traces, and how healthy each input is.

Every input keeps a fixed number of columns of lowest and highest value (`_feed.py`), so memory does not grow with
rate or duration. Blocks are taken in by one thread, painted by another (the main one, which Qt needs).
"""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar

from rheobase.devices._feed import Feed, Kind
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import Positive, Sink, nearest

try:
    import pyqtgraph as pg
    from PySide6.QtCore import Qt, QTimer
    from PySide6.QtGui import QFont, QFontDatabase
    from PySide6.QtWidgets import QApplication, QLabel, QVBoxLayout, QWidget

    from rheobase.devices._panels import DIM, GROUND, INK, LEFT, PANELS, RED, Panel
except ImportError as e:
    if isinstance(e, ModuleNotFoundError):
        raise
    raise StreamError(
        f"the window needs a library of the system: {e} (on Debian: apt-get install libegl1 libgl1 "
        "libxkbcommon0 libdbus-1-3 libfontconfig1)"
    ) from None


FRAME = 33
"""ms from one picture to the next, or more where painting takes long."""
UNSEEN = 4.0
"""s from one to the next where nobody looks, so that the last one holds what has been."""


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
        seen = visible(app)
        if seen:
            w.show()
        timer = QTimer()
        spent, painted = time.thread_time(), now()

        def tick() -> None:
            nonlocal spent, painted
            if stopped():
                app.quit()
                return
            if (seen and w.isVisible()) or now() - painted > UNSEEN:
                painted = now()
                with self.lock:
                    w.paint()
            before, spent = spent, time.thread_time()
            timer.start(max(FRAME, round(2000 * (spent - before))))  # half of one core at most, Qt's painting included

        timer.setSingleShot(True)
        timer.timeout.connect(tick)
        timer.start(FRAME)
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
    letters = font()
    number = QFontDatabase.addApplicationFont(str(letters)) if letters else -1
    family = QFontDatabase.applicationFontFamilies(number) if number >= 0 else [""]
    app.setFont(QFont(family[0], 9))
    pg.setConfigOptions(antialias=True, background=GROUND, foreground=INK)
    return app


def font() -> Path | None:
    """The letters that come with matplotlib: the same everywhere, also where a machine has none."""
    found = importlib.util.find_spec("matplotlib")  # to import it would take a while
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


def visible(app: QApplication) -> bool:
    """Whether anybody can see what is painted."""
    return app.platformName() != "offscreen"


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
