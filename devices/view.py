"""A window on live streams.

Every input keeps its last samples, and minutes of columns of lowest and highest value (`_feed.py`), so memory does not
grow with rate or duration. Blocks are taken in by one thread, painted by another (the main one, which Qt needs).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import Any, ClassVar, Literal

from rheobase.devices._feed import Feed
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import NotNegative, Positive, Sink

try:
    import pyqtgraph as pg
    from PySide6.QtCore import QEvent, QTimer
    from PySide6.QtGui import QFont, QFontDatabase
    from PySide6.QtWidgets import QApplication

    from rheobase.devices import marks
    from rheobase.devices._panel import Line, Look
    from rheobase.devices._panels import arranged, lines, planned
    from rheobase.devices._theme import THEMES
    from rheobase.devices._window import Window
except ImportError as e:
    if isinstance(e, ModuleNotFoundError):
        raise
    raise StreamError(
        f"the window needs a library of the system: {e} (on Debian: apt-get install libegl1 libgl1 "
        "libxkbcommon0 libdbus-1-3 libfontconfig1)"
    ) from None


FRAME = 33
"""ms from one picture to the next, or more where painting takes long."""
REST = 1.5
"""A frame begins no sooner than so many times the CPU time of the last one after it: two thirds of a core at most."""
NICE = 5
"""Priority of the painting thread: what computes and what records go first."""
ASK = "window.ask"
"""Name of a file in the run directory that asks for a window. It vanishes when that is opened."""
UNSEEN = 4.0
"""s from one to the next where nobody looks, so that the last one holds what has been."""


class View(Sink):
    """A window of what its inputs carry, a panel for each. Without a screen it paints all the same, for the picture.

        view:
          type: view
          in: [raw, rates, states, task, markers]
          process: view
          panels:
            raw: traces
            power: {kind: spectrum, of: raw, channels: [Cz]}
            ribbon: {kind: states, of: [states, rates]}
            coupling: {kind: connectivity, of: states, model: models/states.npz}
          layout: [[task, power], [raw, ribbon], coupling]

    Kinds: traces, image, raster, spectrum, spectrogram; cursor (channels cursor_x, cursor_y, target_x, ..., m), path;
    states (p0, p1, ...), connectivity; life (rul_5, rul_50, rul_95), fleet (unit and those); compare (a prediction,
    then the truth); numbers, health; none. Words (dtype str) are also drawn as lines across every axis of time.

    The keys of the window: h shows them. Marks typed there are a stream of a node of type `marks` in the same process.
    """

    policy: ClassVar[str] = "drop_oldest: 1024"
    spare: ClassVar[bool] = True  # where the screen goes, Qt ends the process

    panels: dict[str, str | dict[str, Any]] = field(default_factory=dict)
    """Name -> kind of panel; or kind, `of` (the inputs it shows; without it the one that it is named after), `channels`
    to show, `model` and `array` of connectivity. An input that is named nowhere gets the panel that suits it."""
    layout: list[str | list[str]] = field(default_factory=list)
    """Panels in columns, from the left, each from above; those not named are left out. Empty: all of them, as suits."""
    span: Positive = 10.0
    """Time shown, s."""
    past: NotNegative = 300.0
    """Time to look back, s; less of it where samples are so many that they would take more than 100 MB an input."""
    theme: Literal["dark", "light"] = "dark"
    """Colours."""
    picture: str = ""
    """PNG of the window to write at the end, in the run directory; "": none."""

    recording: Any = field(default=None, init=False, repr=False)
    """Where samples come from if no node gives any: a `Recording`."""

    def check(self) -> None:
        """Raises StreamError where a panel is for no input, or is of no kind."""
        if self.inputs:
            lines(self.panels, self.inputs)

    def start(self, *inputs: Spec) -> None:
        """Raises StreamError where a panel does not suit its inputs."""
        names = self.inputs or tuple(f"input {i}" for i in range(len(inputs)))
        found = planned(lines(self.panels, names), names, inputs, self.layout)
        self.columns: list[list[Line]] = arranged(found, self.layout)
        self.lock = threading.Lock()
        self.feeds = [Feed(name, spec, self.span, self.past) for name, spec in zip(names, inputs, strict=True)]
        self.windows: list[Window] = []
        self.pictures = 0

    def take(self, i: int, x: Block) -> None:
        with self.lock:
            self.feeds[i].take(x)

    def window(self) -> Window:
        """A window on what was taken, as it is now. Needs the main thread."""
        application()
        look = Look(self.span, THEMES[self.theme], folder=self.folder)
        title = f"rheobase · {self.folder.name if self.folder else self.name or 'view'}"
        w = Window(self.feeds, self.columns, look, title, marks.write, self.another, self.snap, self.recording)
        w.past = max(self.span, self.past)
        self.windows.append(w)
        with self.lock:
            w.paint()
        return w

    def another(self) -> None:
        """One more window, beside the others."""
        w = self.window()
        w.resize(self.windows[0].size())
        w.show()

    def snap(self, w: Window) -> None:
        """A picture of a window, as it is now, in the run directory or here."""
        self.pictures += 1
        path = (self.folder or Path()) / f"{self.name or 'view'}-{self.pictures}.png"
        w.word = f"saved {path}" if w.grab().save(str(path)) else f"cannot write {path}"

    def loop(self, stopped: Callable[[], bool]) -> bool:
        app = application()
        w = self.window()
        seen = visible(app)
        if seen:
            w.keep(layout_file(str(self.config.get("name", "graph")), self.name or "view"))
            w.show()
        timer = QTimer()
        spent, painted = time.thread_time(), now()
        self.give_way()

        def tick() -> None:
            nonlocal spent, painted
            if stopped():
                app.quit()
                return
            begin = now()
            if seen and self.asked():
                self.another()
            shown = [x for x in self.windows if seen and x.isVisible() and not x.isMinimized()]
            if not shown and now() - painted > UNSEEN:
                shown = [w]
            if self.recording:
                self.recording.tick()
            for x in shown:
                painted = now()
                with self.lock:
                    x.paint()
            before, spent = spent, time.thread_time()  # Qt's painting of the last frame included
            each = max(FRAME, REST * 1e3 * (spent - before))
            timer.start(max(1, round(each - 1e3 * (now() - begin))))

        timer.setSingleShot(True)
        timer.timeout.connect(tick)
        timer.start(FRAME)
        if not stopped() and app.exec():  # or Qt ends the process, which comes to the same
            raise StreamError("the screen is gone")
        timer.stop()  # it would end the next loop of this process
        if self.picture:
            self.save(w)
        for x in self.windows:
            x.close()
        settle(app)
        return True

    def asked(self) -> bool:
        """Whether `rheo view RUN` has asked for one more window, since all were closed, or for somebody else."""
        wish = (self.folder or Path()) / ASK
        if self.folder is None or not wish.exists():
            return False
        wish.unlink(missing_ok=True)
        return True

    def give_way(self) -> None:
        """Paint at a low priority, where nothing that computes shares this process and so waits for this thread."""
        nodes = self.config.get("nodes", {})
        home = dict(nodes.get(self.name, {})).get("process", "main")
        beside = {e["type"] for n, e in nodes.items() if e.get("process", "main") == home and n != self.name}
        if nodes and beside <= {"marks", "lsl_out"}:
            with contextlib.suppress(OSError, AttributeError):  # where threads have no priority of their own
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

    def save(self, w: Window) -> Path:
        """Write the picture of a window."""
        path = (self.folder or Path()) / self.picture
        with self.lock:
            w.paint()
        if not w.grab().save(str(path)):
            raise StreamError(f"picture: cannot write {path}")
        return path


def layout_file(graph: str, name: str) -> Path:
    """Where the places and sizes of a window are kept from one run to the next."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "rheobase" / f"{graph}-{name}.json"


def application() -> QApplication:
    """The one application of this process: on the screen, or off it where there is none."""
    app = QApplication.instance()
    if isinstance(app, QApplication):
        return app
    if os.environ.get("QT_QPA_PLATFORM") != "offscreen" and not screen():
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    app = QApplication(["rheobase"])
    atexit.register(settle, app)
    app.setQuitOnLastWindowClosed(False)  # closing the window does not stop the graph
    letters = font()
    number = QFontDatabase.addApplicationFont(str(letters)) if letters else -1
    family = QFontDatabase.applicationFontFamilies(number) if number >= 0 else [""]
    app.setFont(QFont(family[0], 9))
    pg.setConfigOptions(antialias=True)
    return app


def settle(app: QApplication) -> None:
    """Delete windows here and now: what is left to Python's collector goes in any order, at any time and in any
    thread, which Qt may not survive."""
    for w in app.topLevelWidgets():
        if isinstance(w, Window):  # what it has opened goes with it
            w.deleteLater()
    app.processEvents()
    app.sendPostedEvents(None, int(QEvent.Type.DeferredDelete))


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
    if sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"} & os.environ.keys():
        return False
    trial = "from PySide6.QtWidgets import QApplication; QApplication([])"
    try:
        done = subprocess.run([sys.executable, "-c", trial], capture_output=True, text=True, timeout=20)
    except subprocess.TimeoutExpired:
        return False
    if done.returncode:
        print("no window: " + (done.stderr.strip().splitlines() or ["Qt cannot reach the screen"])[0], file=sys.stderr)
    return done.returncode == 0
