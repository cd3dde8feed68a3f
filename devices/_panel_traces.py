"""Channels one above the other, hundreds of them, painted as pixels (`_pixels.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF

from rheobase.devices import _pixels
from rheobase.devices._panel import Line, Panel, nice, said
from rheobase.devices._theme import fading
from rheobase.stream.block import Spec, StreamError

LANES = 128
"""Most channels drawn; the title says how many there are, and any can be picked."""


class TracesPanel(Panel):
    """Channels on one scale, each around 0 where it crosses 0, else around its middle. Several inputs of as many
    channels lie one over the other. The wheel over the left edge changes the scale."""

    inputs: ClassVar[tuple[int, int]] = (1, 6)

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if len({s.n for s in specs}) > 1:
            raise StreamError(f"{' and '.join(map(repr, line.of))}: traces lie over each other, channel by channel")

    def build(self) -> None:
        self.unit = 1.0
        """What a lane is high, in units of the stream."""
        self.zoom = 1.0
        self.lanes: tuple[list[int], int] = [], 0
        self.drawn = 0.0, 0.0
        """Where the scale bar is, and what it measures."""
        self.plot = self.add_plot(x=self.look.label(), time=True)
        self.rules = pg.PlotCurveItem(pen=pg.mkPen(self.theme.grid, width=1), connect="pairs")
        self.plot.addItem(self.rules)
        self.layers = []
        for colour, _ in zip(self.theme.lines, self.feeds, strict=False):
            item = pg.ImageItem(axisOrder="row-major")
            item.setLookupTable(fading(colour))
            self.plot.addItem(item)
            self.layers.append(item)
        self.side, self.wide = self.side_axis(self.plot), True
        self.bar = pg.PlotCurveItem(pen=pg.mkPen(self.theme.ink, width=3))
        self.plot.addItem(self.bar)

    def paint(self) -> None:
        look = self.look
        w, h = self.pixels(self.plot)
        lanes = self.chosen(self.feeds[0], LANES)
        n = len(lanes)
        self._lanes(lanes, h)
        few = lanes == list(range(lanes[0], lanes[0] + n)) if n else False
        shown = slice(lanes[0], lanes[0] + n) if few else lanes  # neighbours need no copy
        edges = np.linspace(look.left, look.right, w + 1)
        margin = look.span / w
        past = [f.between(look.left - 3 * margin - 0.1 * look.span, look.right + 3 * margin, w) for f in self.feeds]
        seen = []
        for t, a, b in past:
            own = a[:, shown]
            seen.append(_pixels.spans(t, own, own if b is a else b[:, shown], edges))
        least = np.fmin.reduce([np.fmin.reduce(a) for a, _ in seen])
        most = np.fmax.reduce([np.fmax.reduce(b) for _, b in seen])
        if not n or not np.isfinite(least).any():
            return
        around = np.where((least <= 0) & (most >= 0), 0.0, (least + most) / 2)
        reach = float(np.nanmax(np.maximum(most - around, around - least), initial=0.0))
        if not 0.5 * self.unit < 2.2 * reach <= self.unit and reach > 0:  # lanes do not meet, nor change all the time
            self.unit = 2.5 * reach
        unit = self.unit / self.zoom
        each = h / (n + 0.2)  # pixels of a lane; the view holds 0.1 of one more at either end
        middle = (np.arange(n) + 0.6) * each
        for item, (lowest, highest) in zip(self.layers, seen, strict=False):
            top, bottom = (middle - (v - around) / unit * each for v in (highest, lowest))
            item.setImage(
                _pixels.cover(top, bottom, h, min(1.3, 0.3 + each / 8))[::-1], levels=(0, 255), autoLevels=False
            )
            item.setRect(QRectF(-look.span, -0.6, look.span, n + 0.2))
        size = nice(unit / 3 if n > 1 else unit / 4)
        while size / unit * each < 14 and size < 100 * unit:  # a bar that can be seen
            size = nice(size * 2.6)
        edge, centre = -0.004 * look.span, (n - 1) / 2
        self.bar.setData([edge, edge], [centre - size / unit / 2, centre + size / unit / 2])
        if (centre, size) != self.drawn:
            self.drawn = centre, size
            self.side.setTicks([[(centre, scale(size, self.feeds[0].spec.unit))]])

    def _lanes(self, lanes: list[int], h: int) -> None:
        """The axis: as many names as there is room for."""
        n = len(lanes)
        self.plot.setYRange(-0.6, n - 0.4, padding=0)
        spec = self.feeds[0].spec
        every = max(1, -(-n * 15 // max(h, 1)))
        if (lanes, every) != self.lanes:
            self.lanes = lanes, every
            ticks = [(n - 1 - k, str(spec.channels[c])[:11]) for k, c in enumerate(lanes) if k % every == 0]
            self.plot.getAxis("left").setTicks([ticks])
            few = n <= 16
            y = np.repeat(np.arange(n), 2) if few else np.empty(0)
            self.rules.setData(np.tile([-1e6, 0.0], n) if few else y, y)
            self.say(f"{n} of {spec.n} channels" if n < spec.n else f"{n} channels" if n > 6 else "")

    def names(self) -> str:
        return super().names() if len(self.feeds) > 1 else said(self.line.name)


def scale(size: float, unit: str) -> str:
    """A length of a scale bar, with the prefix that suits it."""
    if unit in ("V", "A", "m", "T"):
        for factor, prefix in ((1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f")):
            if size >= factor * 0.999:
                return f"{size / factor:g} {prefix}{unit}"
    return f"{size:g} {unit.replace('^2', '²')}".strip()
