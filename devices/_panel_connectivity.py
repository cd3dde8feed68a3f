"""Who drives whom: the coupling of a model as an image, a square a state."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRectF

from rheobase.devices._panel import RIGHT, Line, Panel
from rheobase.devices._panel_states import probabilities
from rheobase.devices._theme import signed
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.files import find, load_model
from rheobase.stream.node import load, types

LOOK = 2.0
"""s between two looks whether the model has changed: a refit writes it anew."""


def coupling(path: Path, array: str) -> NDArray[np.float64]:
    """The coupling (k, n, n) in a model file: W[k, i, j] is the effect of j on i in state k.

    array  its name; "": the one array of that shape. A model of `hmm_glm` may be asked by its own function instead.
    Raises StreamError.
    """
    arrays, header = load_model(path)
    if not array and (own := _of_node(arrays, header)) is not None:
        return own
    square = {k: a for k, a in arrays.items() if a.ndim in (2, 3) and a.shape[-1] == a.shape[-2] > 1}
    if array and array not in arrays:
        raise StreamError(f"array: {path} has no {array!r}; there is {', '.join(sorted(arrays))}")
    if not array and len(square) != 1:
        raise StreamError(f"array: say which array of {path} is to be shown; there is {', '.join(sorted(arrays))}")
    x = arrays[array] if array else next(iter(square.values()))
    if x.ndim not in (2, 3) or x.shape[-1] != x.shape[-2]:
        raise StreamError(f"array: {array!r} of {path} has shape {x.shape}: coupling is (states, n, n) or (n, n)")
    return x.astype(float) if x.ndim == 3 else x[None].astype(float)


def _of_node(arrays: Any, header: dict[str, Any]) -> NDArray[np.float64] | None:
    """What the type of node that the model is of says itself, by a function `connectivity(arrays, header)`."""
    word = str(header.get("node"))
    if word not in types():  # a file may name anything
        return None
    says = getattr(sys.modules[load(word).__module__], "connectivity", None)
    return None if says is None else np.asarray(says(arrays, header), float)


class ConnectivityPanel(Panel):
    """`model` (and `array` of it): blue inhibits, orange excites, one scale for all states. Its input says which state
    is on: that of the largest p0, p1, ..., or channel `state`. The model is read anew when its file changes."""

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if not line.model:
            raise StreamError(f"{line.name!r}: connectivity needs 'model', the file that it is in")

    def build(self) -> None:
        self.plot = self.add_plot(x="from", y="to")
        self.plot.setAspectLocked(True)
        self.plot.invertY(True)
        self.plot.getAxis("bottom").setTicks([[]])
        self.images: list[pg.ImageItem] = []
        self.labels: list[pg.TextItem] = []
        self.frame = pg.PlotCurveItem(pen=pg.mkPen(self.theme.ink, width=2), connect="finite")
        self.plot.addItem(self.frame)
        self.table = signed(self.theme)
        self.looked, self.changed = -np.inf, 0
        self.W = np.zeros((0, 1, 1))
        self.bar: pg.ColorBarItem | None = None
        self.fault, self.across = "", 1
        self.read()

    def read(self) -> None:
        """Take the model, if it is new."""
        self.looked = now()
        try:
            path = find(self.line.model)
            changed = path.stat().st_mtime_ns
            if changed == self.changed:
                return
            self.changed, self.W, self.fault = changed, coupling(path, self.line.array), ""
        except (StreamError, OSError) as e:  # it may be written just now, or later
            self.fault = str(e)
            return
        self.draw()

    def draw(self) -> None:
        k, n = self.W.shape[:2]
        if not k:
            return
        for item in (*self.images, *self.labels):
            self.plot.removeItem(item)
        known = np.abs(self.W[np.isfinite(self.W)])
        top = float(np.quantile(known, 0.995)) if known.size and known.max() > 0 else 1.0
        top = top if top > 0 else float(known.max())
        across = self.across
        gap = 0.08 * n
        self.places = [((s % across) * (n + gap), (s // across) * (n + 3 * gap)) for s in range(k)]
        self.images, self.labels = [], []
        for s, (x, y) in enumerate(self.places):
            image = pg.ImageItem(self.W[s], axisOrder="row-major", levels=(-top, top))
            image.setLookupTable(self.table)
            image.setRect(QRectF(x, y, n, n))
            label = pg.TextItem(f"state {s}" if k > 1 else "", color=self.theme.dim, anchor=(0, 1))
            label.setPos(x, y)
            for item in (image, label):
                self.plot.addItem(item)
            self.images.append(image)
            self.labels.append(label)
        if self.bar is None:
            colours = pg.ColorMap(np.linspace(0, 1, len(self.table)), self.table)
            self.bar = self.plot.addColorBar(self.images[0], width=10, interactive=False, colorMap=colours)
            self.bar.getAxis("right").setTextPen(self.theme.dim)
            self.bar.getAxis("right").setWidth(RIGHT - 18)
        self.bar.setLevels((-top, top))
        self.plot.getAxis("left").setTicks([[]])
        rows = -(-k // across)
        box = QRectF(0, -2 * gap, across * (n + gap) - gap, rows * (n + 3 * gap))
        self.plot.setRange(box, padding=0.02)

    def paint(self) -> None:
        if now() - self.looked > LOOK:
            self.read()
        w, h = self.pixels(self.plot)
        across = min(max(round((len(self.W) * w / (1.1 * h)) ** 0.5), 1), max(len(self.W), 1))
        if across != self.across:
            self.across = across
            self.draw()
        feed = self.feeds[0]
        state = -1
        p = [feed.spec.channels.index(c) for c in probabilities(feed.spec)]
        if p and np.isfinite(feed.last[p]).all():
            state = int(np.argmax(feed.last[p]))
        elif "state" in feed.spec.channels and np.isfinite(s := feed.last[feed.spec.channels.index("state")]):
            state = int(s)
        if len(self.W) > 1 and 0 <= state < len(self.W):
            (x, y), n = self.places[state], self.W.shape[1]
            self.frame.setData([x, x + n, x + n, x, x], [y, y, y + n, y + n, y])
        if self.fault:
            self.say(self.fault)
        else:
            k, n = self.W.shape[:2]
            states = f"{k} states, " if k > 1 else ""
            self.say(f"{states}{n} channels &nbsp; blue inhibits, orange excites")
