"""Events of many channels: a tick wherever a channel is above zero."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QRectF

from rheobase.devices._feed import Feed
from rheobase.devices._panel import Look, Panel
from rheobase.devices._pixels import grouped
from rheobase.devices._theme import Theme, fading


class RasterPanel(Panel):
    """Channels from below, a tick an event, brighter where a column of pixels holds more of them."""

    def build(self) -> None:
        self.plot = self.add_plot(x=self.look.label(), y="channel", time=True)
        self.side_axis(self.plot)
        self.draw = raster(self.plot, self.theme)

    def paint(self) -> None:
        feed = self.feeds[0]
        shown = self.chosen(feed, 1024)
        self.draw(feed, self.look, *self.pixels(self.plot), shown)
        self.say(f"{len(shown)} channels" if len(shown) == feed.spec.n else f"{len(shown)} of {feed.spec.n} channels")


def raster(plot: pg.PlotItem, theme: Theme) -> Callable[[Feed, Look, int, int, list[int]], None]:
    """A raster in a plot: what draws it anew."""
    item = pg.ImageItem(axisOrder="row-major")
    item.setLookupTable(fading(theme.ink))
    plot.addItem(item)

    def draw(feed: Feed, look: Look, w: int, h: int, shown: list[int]) -> None:
        edges = np.linspace(look.left, look.right, w + 1)
        times, low, high = feed.between(look.left, look.right, w)
        n = len(shown)
        plot.setYRange(-0.5, n - 0.5, padding=0)
        image = np.zeros((n, w), np.float32)
        if len(times):
            x = np.maximum(-low, high)[:, shown]
            at = np.searchsorted(np.maximum.accumulate(times), edges)
            some, most = grouped(np.fmax, x, at)
            image[:, some] = np.nan_to_num(most).T
        top = max(1.0, float(np.quantile(image[image > 0], 0.95)) if (image > 0).any() else 1.0)
        shade = np.clip(image / top, 0, 1)
        shade[image > 0] = 0.35 + 0.65 * shade[image > 0]
        if n and h // n > 3:  # a gap between channels
            each = h // n
            tall = np.zeros((n, each, w), np.uint8)
            tall[:, 1:-1] = (shade * 255).astype(np.uint8)[:, None]
            shade8 = tall.reshape(n * each, w)
        else:
            shade8 = (shade * 255).astype(np.uint8)
        item.setImage(shade8, levels=(0, 255), autoLevels=False)
        item.setRect(QRectF(-look.span, -0.5, look.span, n))

    return draw
