"""Rates and other amounts of many channels, as an image."""

from __future__ import annotations

import numpy as np
from PySide6.QtCore import QRectF

from rheobase.devices import _pixels
from rheobase.devices._panel import Panel


class ImagePanel(Panel):
    """Channels by time, brightness by value; scale from the 2nd to the 99th percentile of what is shown."""

    def build(self) -> None:
        self.plot = self.add_plot(x=self.look.label(), y="channel", time=True)
        self.item, self.bar = self.add_image(self.plot)

    def paint(self) -> None:
        feed, look = self.feeds[0], self.look
        w, _ = self.pixels(self.plot)
        shown = self.chosen(feed, 2048)
        self.plot.setYRange(-0.5, len(shown) - 0.5, padding=0)
        of = f" of {feed.spec.n}" if len(shown) < feed.spec.n else ""
        self.say(f"{len(shown)}{of} channels, {feed.spec.unit or 'no unit'}")
        times, _, x = feed.between(look.left - 1.0, look.right, w)
        step = 1 / feed.spec.rate if feed.spec.rate else look.span / 100
        columns = w if feed.spec.rate * look.span > w else max(2, round(look.span / step))
        edges = np.linspace(look.left, look.right, columns + 1)
        image = _pixels.held(times, x[:, shown], edges, step).T
        known = image[np.isfinite(image)]
        if known.size:
            known = known[:: max(1, known.size // 20_000)]
            a, b = np.percentile(known, [2, 99])
            levels = steady(self.bar.levels(), float(a), float(b if b > a else a + 1))
            self.item.setImage(image, levels=levels, autoLevels=False)
            self.item.setRect(QRectF(-look.span, -0.5, look.span, len(shown)))
            if levels != self.bar.levels():
                self.bar.setLevels(levels)


def steady(old: tuple[float, float], a: float, b: float) -> tuple[float, float]:
    """Limits of a scale: the old ones as long as the new ones are near, so that colours do not flicker."""
    near = 0.05 * (b - a)
    return old if abs(old[0] - a) <= near and abs(old[1] - b) <= near else (a, b)
