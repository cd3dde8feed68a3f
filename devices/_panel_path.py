"""Where something is and was in the plane, and how it is turned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray

from rheobase.devices._panel import Line, Panel, dot, said, unit
from rheobase.devices._theme import clear
from rheobase.stream.block import Spec, StreamError

TURNS = ("qw", "qx", "qy", "qz"), ("q_w", "q_x", "q_y", "q_z")
HEADING = ("heading", "yaw")
MOST = 3000
"""Points drawn of a path."""


class PathPanel(Panel):
    """A path from two channels (`channels`; without them x and y), the newest part brightest. Several inputs lie in one
    plane, each in its colour.

    A direction shows where there is channel `heading` or `yaw` (rad, from x towards y), or a unit quaternion qw, qx,
    qy, qz (or q_w, ...) that turns the body's axes into the room's. A quaternion without a path is drawn as the body's
    axes, seen from a corner (x to the right and near, y to the right and far, z up).
    """

    inputs: ClassVar[tuple[int, int]] = (1, 4)
    stretch = 4

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        for name, s in zip(line.of, specs, strict=True):
            if not pair(line, s) and not turn(s.channels):
                raise StreamError(f"{name!r} has neither two `channels` of a path, nor x and y, nor qw, qx, qy and qz")

    def build(self) -> None:
        self.places = [pair(self.line, f.spec) for f in self.feeds]
        self.flat = any(self.places)
        spec = self.feeds[0].spec
        x, y = self.places[0] or ("", "")
        label = (x + unit(spec.unit), y + unit(spec.unit)) if self.flat else ("", "")
        self.plot = self.add_plot(x=label[0], y=label[1])
        self.plot.getAxis("left").setWidth(52)
        self.plot.setAspectLocked(True)
        self.plot.showGrid(x=True, y=True, alpha=0.12)
        self.reach: NDArray[np.float64] | None = None
        self.tails, self.dots, self.arrows = [], [], []
        for colour, _ in zip(self.theme.lines, self.feeds, strict=False):
            pens = [pg.mkPen(clear(colour, 0.25 + 0.25 * k), width=1 + 0.4 * k) for k in range(4)]
            self.tails.append([pg.PlotCurveItem(pen=p, connect="finite") for p in pens])
            self.dots.append(pg.ScatterPlotItem(size=11, pen=pg.mkPen(self.theme.ink, width=1.3), brush=colour))
            self.arrows.append(pg.PlotCurveItem(pen=pg.mkPen(self.theme.ink, width=2.5)))
            for item in (*self.tails[-1], self.arrows[-1], self.dots[-1]):
                self.plot.addItem(item)
        self.axes = []
        if not self.flat:
            for side in ("left", "bottom"):
                self.plot.hideAxis(side)
            self.plot.setRange(xRange=(-1.2, 1.2), yRange=(-1.2, 1.2), padding=0)
            self.faces = [pg.QtWidgets.QGraphicsPolygonItem() for _ in FACES]
            for item in self.faces:
                item.setPen(pg.mkPen(self.theme.dim, width=1))
                item.setBrush(clear(self.theme.dim, 0.25))
                self.plot.addItem(item)
            self.letters = []
            for colour, letter in zip((self.theme.orange, self.theme.green, self.theme.blue), "xyz", strict=True):
                self.axes.append(pg.PlotCurveItem(pen=pg.mkPen(colour, width=4)))
                self.letters.append(pg.TextItem(letter, color=colour, anchor=(0.5, 0.5)))
                self.plot.addItem(self.axes[-1])
                self.plot.addItem(self.letters[-1])
            frame = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1.0]]) @ CORNER.T
            room = pg.PlotCurveItem(*frame.T, pen=pg.mkPen(self.theme.grid, width=1.5), connect="pairs")
            self.plot.addItem(room)

    def paint(self) -> None:
        if not self.flat:
            self._turned()
            return
        corners = []
        for k, (feed, place) in enumerate(zip(self.feeds, self.places, strict=True)):
            _, x = feed.samples_between(self.look.left, self.look.right)
            if place is None or not len(x):
                continue
            at = {c: i for i, c in enumerate(feed.spec.channels)}
            xy = x[:, [at[c] for c in place]].astype(float)
            xy = xy[:: max(1, len(xy) // MOST)]
            for curve, part in zip(self.tails[k], np.array_split(np.arange(len(xy)), 4), strict=True):
                part = np.append(part, part[-1] + 1) if len(part) and part[-1] + 1 < len(xy) else part
                curve.setData(xy[part, 0], xy[part, 1])
            here = x[-1, [at[c] for c in place]].astype(float)
            if np.isfinite(here).all():
                self.dots[k].setData(here[:1], here[1:])
                corners += [np.nanmin(xy, axis=0), np.nanmax(xy, axis=0)]
            if (angle := heading(x[-1], at)) is not None and self.reach is not None:
                size = 0.1 * float(np.ptp(self.reach, axis=0).max())
                self.arrows[k].setData(*np.array([here, here + size * np.array([np.cos(angle), np.sin(angle)])]).T)
        if corners:
            self._range(np.array([np.min(corners, axis=0), np.max(corners, axis=0)]))

    def _range(self, box: NDArray[np.float64]) -> None:
        """Room for all of it; changed only where it does not fit, or fits a tenth."""
        old = self.reach
        if old is not None and (box[0] >= old[0]).all() and (box[1] <= old[1]).all():
            if np.ptp(box, axis=0).max() > 0.1 * np.ptp(old, axis=0).max():
                return
        half = max(float(np.ptp(box, axis=0).max()) * 0.6, 1e-9)
        self.reach = np.array([box.mean(axis=0) - half, box.mean(axis=0) + half])
        self.plot.setRange(xRange=self.reach[:, 0], yRange=self.reach[:, 1], padding=0)

    def _turned(self) -> None:
        feed = self.feeds[0]
        _, x = feed.samples_between(self.look.left, self.look.right)
        places = [feed.spec.channels.index(c) for c in turn(feed.spec.channels)]
        q = x[-1, places].astype(float) if len(x) else np.full(4, np.nan)
        if not np.isfinite(q).all() or not (q**2).sum() > 0:
            return
        R = rotation(q)
        for item, letter, axis in zip(self.axes, self.letters, R.T, strict=True):
            item.setData(*np.array([np.zeros(2), CORNER @ axis]).T)
            letter.setPos(*(1.1 * CORNER @ axis))
        for item, (normal, corners) in zip(self.faces, FACES, strict=True):
            item.setVisible(bool(R @ normal @ VIEWER > 0))
            item.setPolygon(pg.QtGui.QPolygonF([pg.QtCore.QPointF(*p) for p in corners @ R.T @ CORNER.T]))
        yaw, pitch, roll = np.degrees(angles(R))
        colours = zip((self.theme.orange, self.theme.green, self.theme.blue), "xyz", strict=True)
        legend = " ".join(f"{dot(c)} {word}" for c, word in colours)
        self.say(f"{legend} &nbsp; yaw {yaw:.0f}°, pitch {pitch:.0f}°, roll {roll:.0f}°")

    def names(self) -> str:
        return super().names() if len(self.feeds) > 1 else said(self.line.name)


CORNER = np.array([[0.866, 0.866, 0.0], [-0.35, 0.35, 0.94]])
"""From the room's axes to the screen: seen from a corner, from above."""


VIEWER = np.array([1.0, -1.0, 0.745])
"""From where that is: CORNER VIEWER = 0."""
BOX = np.array([0.5, 0.32, 0.1])
"""Half of the body's length, width and height, as it is drawn."""


def _faces() -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Normal (3,) and corners (4, 3) of each side of the box, in the body's axes."""
    round_ = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1.0]])
    found = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            corners = np.insert(round_, axis, side, axis=1) * BOX
            found.append((side * np.eye(3)[axis], corners))
    return found


FACES = _faces()


def pair(line: Line, spec: Spec) -> tuple[str, str] | None:
    """The two channels of a path."""
    for a, b in (((line.channels[:2]) and [line.channels[:2]]) or []) + [("x", "y")]:
        if a in spec.channels and b in spec.channels:
            return a, b
    return None


def turn(channels: Sequence[str]) -> tuple[str, ...]:
    """The channels of a quaternion; none: there is none."""
    return next((names for names in TURNS if set(names) <= set(channels)), ())


def rotation(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix of a quaternion (w, x, y, z): columns are the body's axes in the room."""
    w, x, y, z = q / np.sqrt((q**2).sum())
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def angles(R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Yaw, pitch and roll, rad: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    pitch = -np.arcsin(np.clip(R[2, 0], -1, 1))
    return np.array([np.arctan2(R[1, 0], R[0, 0]), pitch, np.arctan2(R[2, 1], R[2, 2])])


def heading(x: NDArray[np.float32], at: dict[str, int]) -> float | None:
    """Direction in the plane, rad, where the stream says it."""
    for word in HEADING:
        if word in at and np.isfinite(x[at[word]]):
            return float(x[at[word]])
    if names := turn(tuple(at)):
        q = x[[at[c] for c in names]].astype(float)
        if np.isfinite(q).all() and (q**2).sum() > 0:
            return float(angles(rotation(q))[0])
    return None
