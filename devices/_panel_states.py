"""States of a brain: how probable each is over time, as a ribbon under the spikes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF

from rheobase.devices import _pixels
from rheobase.devices._panel import Line, Panel, columns, dot
from rheobase.devices._panel_raster import raster
from rheobase.devices._theme import rgb
from rheobase.stream.block import Spec, StreamError

LATE = 0.1
"""s: a delay of the stream that is told, since it can be seen."""
POSTERIOR = re.compile(r"p\d+")


def probabilities(spec: Spec) -> list[str]:
    """The channels that hold the probability of a state: p0, p1, ..."""
    return [c for c in spec.channels if POSTERIOR.fullmatch(c)]


class StatesPanel(Panel):
    """Channels p0, p1, ... stacked from below, a colour a state; above them a raster of a second stream, if there is
    one."""

    inputs: ClassVar[tuple[int, int]] = (1, 2)
    stretch = 3

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if sum(bool(probabilities(s)) for s in specs) != 1:
            raise StreamError(f"{' and '.join(map(repr, line.of))}: one must have channels p0, p1, ...")

    def build(self) -> None:
        self.feeds.sort(key=lambda f: not probabilities(f.spec))
        posterior = self.feeds[0]
        self.p = columns(posterior, probabilities(posterior.spec))
        self.colours = [self.theme.states[k % len(self.theme.states)] for k in range(len(self.p))]
        row = 0
        self.events = None
        self.stretch = 5 if len(self.feeds) > 1 else 2
        if len(self.feeds) > 1:
            self.upper = self.add_plot(0, y="channel", time=True)
            self.upper.getAxis("bottom").setStyle(showValues=False)
            self.side_axis(self.upper)
            self.events = raster(self.upper, self.theme)
            row = 1
        self.plot = self.add_plot(row, x=self.look.label(), y="probability", time=True)
        self.side_axis(self.plot)
        self.plot.setYRange(0, 1, padding=0)
        self.plot.getAxis("left").setTicks([[(0, "0"), (0.5, "0.5"), (1, "1")]])
        self.plot.getAxis("left").setStyle(hideOverlappingLabels=False)
        if row:
            self.graphics.ci.layout.setRowStretchFactor(0, 3)
            self.graphics.ci.layout.setRowStretchFactor(1, 2)
        self.ribbon = pg.ImageItem(axisOrder="row-major")
        table = np.zeros((256, 4), np.uint8)
        for k, colour in enumerate(self.colours):
            table[k] = *rgb(colour), 235
        self.ribbon.setLookupTable(table)
        self.plot.addItem(self.ribbon)

    def paint(self) -> None:
        feed, look = self.feeds[0], self.look
        w, h = self.pixels(self.plot)
        edges = np.linspace(look.left, look.right, w + 1)
        times, x = feed.samples_between(look.left - 2.0, look.right)
        shares = _pixels.held(times, x[:, self.p], edges, 1 / feed.spec.rate if feed.spec.rate else look.span)
        image = _pixels.stacked(shares, h)[::-1]
        self.ribbon.setImage(image, levels=(0, 255), autoLevels=False)
        self.ribbon.setRect(QRectF(-look.span, 0, look.span, 1))
        if self.events is not None:
            self.events(self.feeds[1], look, *self.pixels(self.upper), self.chosen(self.feeds[1], 1024))
        now = x[-1, self.p] if len(x) else np.full(len(self.p), np.nan)
        known = np.isfinite(now).all()
        words = [
            f"{dot(c, True)} {k}" + (f" {100 * v:.0f} %" if known and v >= 0.005 else "")
            for k, (c, v) in enumerate(zip(self.colours, now, strict=True))
        ]
        if known and "state" in feed.spec.channels:
            state = x[-1, feed.spec.channels.index("state")]
            words.append(f"&nbsp; state {state:.0f}" if np.isfinite(state) else "")
        if feed.spec.delay >= LATE:
            words.append(f"&nbsp; {feed.spec.delay:g} s late")
        self.say(" &nbsp;".join(words))

    def names(self) -> str:
        return self.line.name
