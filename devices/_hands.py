"""What keys and the mouse do to a window."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from PySide6.QtCore import QEvent, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QMouseEvent, QWheelEvent
from PySide6.QtWidgets import QLineEdit

from rheobase.devices._panel import LEFT, Panel
from rheobase.devices._panel_traces import LANES, TracesPanel

HELP = " &nbsp; ".join(
    f"<b>{keys}</b> {what}".replace(" ", "&nbsp;")  # a line ends between two of them
    for keys, what in {
        "space": "pause, go on", "← →": "or drag: back, on", "home end": "oldest, newest", "↑ ↓": "or wheel: zoom",
        "wheel": "at the left of traces: scale", "enter": "write a mark", "1–9": "mark at once", "c": "channels",
        "page ↑ ↓": "the next ones", "t": "theme", "f": "full screen", "n": "another window", "p": "picture",
        "double click": "a panel alone",
    }.items()
)  # fmt: skip
HINTS = {"mark": "a mark, at the time of the return key", "channels": "channels: 0-15, 40, Cz; input: 3 4; all"}


class Entry(QLineEdit):
    """A line to write in, which Escape closes."""

    def __init__(self, hands: Hands) -> None:
        super().__init__()
        self.hands = hands
        self.setVisible(False)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() == Qt.Key.Key_Escape:
            self.hands.close()
        elif event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.hands.entered()
        else:
            super().keyPressEvent(event)


class Hands:
    """Hears the keys of a window, and the mouse in its panels."""

    def __init__(self, window: Any) -> None:
        self.window = window
        self.grabbed: tuple[QPointF, float] | None = None
        self.entry = Entry(self)
        self.asked = ""
        w = window
        self.keys: dict[int, Callable[[], Any]] = {
            Qt.Key.Key_Space: w.pause,
            Qt.Key.Key_Left: lambda: w.step(-w.look.span / 4),
            Qt.Key.Key_Right: lambda: w.step(w.look.span / 4),
            Qt.Key.Key_Home: lambda: w.go(-math.inf),
            Qt.Key.Key_End: lambda: w.go(math.inf),
            Qt.Key.Key_Up: lambda: w.zoom(1 / 1.5),
            Qt.Key.Key_Down: lambda: w.zoom(1.5),
            Qt.Key.Key_Return: lambda: self.ask("mark"),
            Qt.Key.Key_Enter: lambda: self.ask("mark"),
            Qt.Key.Key_C: lambda: self.ask("channels"),
            Qt.Key.Key_PageUp: lambda: self.page(-1),
            Qt.Key.Key_PageDown: lambda: self.page(1),
            Qt.Key.Key_T: w.turn,
            Qt.Key.Key_F: lambda: w.showNormal() if w.isFullScreen() else w.showFullScreen(),
            Qt.Key.Key_N: w.another,
            Qt.Key.Key_P: lambda: w.picture(w),
            Qt.Key.Key_H: w.help,
            Qt.Key.Key_Question: w.help,
        }

    def pressed(self, event: QKeyEvent) -> bool:
        """Whether a key means something here."""
        if event.key() in self.keys:
            self.keys[event.key()]()
        elif event.text() in tuple("123456789"):
            self.write(event.text())
        else:
            return False
        return True

    def wheel(self, panel: Panel, event: QWheelEvent) -> None:
        on = event.angleDelta().y() > 0
        if isinstance(panel, TracesPanel) and event.position().x() < LEFT:
            panel.zoom *= 1.25 if on else 0.8
        elif panel.timed:
            self.window.zoom(1 / 1.25 if on else 1.25)

    def mouse(self, panel: Panel, event: QMouseEvent) -> None:
        w, kind = self.window, event.type()
        if kind == QEvent.Type.MouseButtonDblClick:
            w.single(panel)
        elif kind == QEvent.Type.MouseButtonPress and panel.timed:
            self.grabbed = event.position(), w.at
        elif kind == QEvent.Type.MouseMove and self.grabbed:
            moved = event.position().x() - self.grabbed[0].x()
            if abs(moved) > 3:
                w.go(self.grabbed[1] - moved * w.look.span / panel.pixels(panel.timed[0])[0])
        elif kind == QEvent.Type.MouseButtonRelease:
            self.grabbed = None

    # --- what is typed

    def ask(self, what: str) -> None:
        """Open the line to write in."""
        self.asked = what
        self.entry.setPlaceholderText(HINTS[what])
        self.entry.clear()
        self.entry.setVisible(True)
        self.entry.setFocus()

    def close(self) -> None:
        self.asked = ""
        self.entry.setVisible(False)
        self.window.setFocus()

    def entered(self) -> None:
        text, what = self.entry.text().strip(), self.asked
        self.close()
        if text and what == "mark":
            self.write(text)
        elif text:
            self.pick(text)

    def write(self, word: str) -> None:
        done = self.window.mark(word)
        self.window.word = f"mark {word!r}" if done else "no mark: there is no node of type marks in this process"

    def pick(self, text: str) -> None:
        """Show these channels of an input ("raw: 0-7 12"), or of every one that has them; "all": all again."""
        name, colon, rest = (part.strip() for part in text.rpartition(":"))
        feeds = [f for f in self.window.feeds.values() if f.spec.dtype != "str" and (f.name == name or not colon)]
        picks, done = self.window.look.picks, False
        for feed in feeds:
            if rest == "all":
                done = picks.pop(feed.name, None) is not None or done
            elif found := picked(rest, feed.spec.channels):
                picks[feed.name], done = found, True
        self.window.word = f"channels: {rest}" if done else f"no such channels: {text}"

    def page(self, by: int) -> None:
        """The channels before or after those shown, where there are more than can be drawn."""
        picks = self.window.look.picks
        for feed in self.window.feeds.values():
            now = picks.get(feed.name, list(range(min(LANES, feed.spec.n))))
            if now and len(now) < feed.spec.n:
                first = min(max(now[0] + by * len(now), 0), feed.spec.n - len(now))
                picks[feed.name] = list(range(first, first + len(now)))


def picked(text: str, channels: Sequence[str]) -> list[int]:
    """Channels by number (from 0), range (a-b) or name, in this order, without those that are not there."""
    found: list[int] = []
    for word in re.split(r"[,\s]+", text.strip()):
        if word in channels:
            found.append(channels.index(word))
        elif span := re.fullmatch(r"(\d+)(?:-(\d+))?", word):
            a, b = int(span[1]), int(span[2] or span[1])
            found += range(a, min(b, len(channels) - 1) + 1)
    return [k for k in dict.fromkeys(found) if k < len(channels)]
