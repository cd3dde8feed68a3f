"""What frequencies a stream holds: now, and over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import QRectF

from rheobase.devices._panel import Line, Panel, said, squared
from rheobase.devices._panel_image import steady
from rheobase.stream.block import Spec, StreamError

F = NDArray[np.float64]
WINDOW = 1.0
"""s of a window of the spectrum, at most: lines 1 Hz apart and half as wide again are told apart."""
AVERAGED = 4.0
"""s that are averaged."""
MOST = 64
"""Channels of which a spectrum is computed, at most; of more, so many evenly chosen."""


def density(x: F, rate: float, size: int, hop: int) -> F:
    """Power spectral density of each window of `size` samples, `hop` apart: (windows, size // 2 + 1, c), unit^2 / Hz.

    One-sided periodogram |X(f)|^2 / (rate sum w^2) with Hann's window w, times 2 except at 0 and rate / 2, of x (t, c)
    less the mean of the window. Averaged over windows it is Welch's (IEEE Trans Audio Electroacoust 15:70, 1967).
    """
    w = np.hanning(size + 1)[:-1]
    parts = np.lib.stride_tricks.sliding_window_view(x, size, axis=0)[::hop]
    parts = parts - parts.mean(axis=-1, keepdims=True)
    p = np.abs(np.fft.rfft(parts * w, axis=-1)) ** 2 / (rate * (w**2).sum())
    p[..., 1 : (size + 1) // 2] *= 2
    return np.moveaxis(p, -1, 1)


def window(rate: float, have: int) -> int:
    """Samples of a window: the power of two that lies within `WINDOW` s and half of what there is."""
    return 1 << max(3, int(np.log2(max(8.0, min(rate * WINDOW, have / 2)))))


def decibels(p: F) -> F:
    """10 log10, floored where there is no power."""
    return 10 * np.log10(np.maximum(p, 1e-30))


class SpectrumPanel(Panel):
    """Power spectral density of the last seconds, by Welch's method: the median channel, the band from the 10th to the
    90th percentile of channels, and, in orange, the first channel that was picked."""

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if not specs[0].rate:
            raise StreamError(f"{line.of[0]!r} has no rate, which a {line.kind} needs")

    def build(self) -> None:
        spec = self.feeds[0].spec
        self.plot = self.add_plot(x="frequency, Hz", y=f"power, dB re {squared(spec.unit)}/Hz")
        self.plot.showGrid(x=True, y=True, alpha=0.12)
        self.plot.setXRange(0, spec.rate / 2, padding=0)
        lines = [pg.PlotCurveItem(pen=None) for _ in range(2)]
        colour = pg.mkColor(self.theme.blue)
        colour.setAlphaF(0.25)
        self.edges = lines
        self.middle = pg.PlotCurveItem(pen=pg.mkPen(self.theme.blue, width=1.6))
        self.one = pg.PlotCurveItem(pen=pg.mkPen(self.theme.orange, width=1.3))
        for item in (*lines, pg.FillBetweenItem(*lines, brush=colour), self.middle, self.one):
            self.plot.addItem(item)
        self.low = self.high = np.nan

    def paint(self) -> None:
        feed = self.feeds[0]
        rate = feed.spec.rate
        picked = self.chosen(feed, feed.spec.n)
        if not picked:
            return
        shown = picked[:: -(-len(picked) // MOST)]
        _, x = feed.samples_between(self.look.right - AVERAGED, self.look.right)
        x = unbroken(x[:, shown])
        if len(x) < 16 or not x.shape[1]:
            self.say("too few samples yet")
            return
        size = window(rate, len(x))
        p = decibels(density(x.astype(float), rate, size, size // 2).mean(axis=0))
        f = np.fft.rfftfreq(size, 1 / rate)
        low, middle, high = np.quantile(p, [0.1, 0.5, 0.9], axis=1)
        several = x.shape[1] > 1
        self.edges[0].setData(f[1:], (low if several else middle)[1:])
        self.edges[1].setData(f[1:], (high if several else middle)[1:])
        self.middle.setData(f[1:], middle[1:])
        chosen = feed.name in self.look.picks or self.line.channels
        self.one.setData(f[1:], p[1:, 0] if chosen and several else np.full(len(f) - 1, np.nan))
        a, b = float(p[1:].min()), float(p[1:].max())
        if not (self.low <= a and b <= self.high and b - a > 0.4 * (self.high - self.low)):
            self.low, self.high = a - 5, b + 5
            self.plot.setYRange(self.low, self.high, padding=0)
        of = f"median of {x.shape[1]} channels, 10 to 90 % &nbsp;" if several else said(feed.spec.channels[shown[0]])
        self.say(f"{of} &nbsp;{size / rate:.3g} s windows, Hann")


class SpectrogramPanel(Panel):
    """Power of one channel (the first that was picked) by frequency over time."""

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        super().suits(line, specs)
        if not specs[0].rate:
            raise StreamError(f"{line.of[0]!r} has no rate, which a {line.kind} needs")

    def build(self) -> None:
        spec = self.feeds[0].spec
        self.plot = self.add_plot(x=self.look.label(), y="frequency, Hz", time=True)
        self.plot.setYRange(0, spec.rate / 2, padding=0)
        self.item, self.bar = self.add_image(self.plot)

    def paint(self) -> None:
        feed, look = self.feeds[0], self.look
        rate = feed.spec.rate
        picked = self.chosen(feed, 1)
        size = window(min(rate, rate * look.span / 20 / WINDOW), round(rate * look.span))
        times, x = feed.samples_between(look.left - size / rate, look.right)
        if not picked or len(x) < size:
            self.say("too few samples yet")
            return
        w, _ = self.pixels(self.plot)
        hop = max(1, round(rate * look.span / w))
        p = decibels(density(x[:, picked].astype(float), rate, size, hop)[:, :, 0])
        middles = times[size // 2 : size // 2 + hop * len(p) : hop][: len(p)]
        grid = np.linspace(look.left, look.right, w + 1)[1:]
        i = np.searchsorted(np.maximum.accumulate(middles), grid, side="right") - 1
        image = p[np.maximum(i, 0)]
        image[(i < 0) | (grid - middles[np.maximum(i, 0)] > size / rate + 2 * hop / rate)] = np.nan
        known = image[np.isfinite(image)]
        if known.size:
            a, b = np.percentile(known[:: max(1, known.size // 20_000)], [5, 99.5])
            levels = steady(self.bar.levels(), float(a), float(max(b, a + 1)))
            self.item.setImage(image.T, levels=levels, autoLevels=False)
            self.item.setRect(QRectF(-look.span, 0, look.span, rate / 2))
            if levels != self.bar.levels():
                self.bar.setLevels(levels)
        what = said(feed.spec.channels[picked[0]])
        self.say(f"{what}, dB re {squared(feed.spec.unit)}/Hz")


def unbroken(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The samples after the last gap, of those channels that miss none."""
    gaps = np.flatnonzero(~np.isfinite(x).any(axis=1))
    x = x[gaps[-1] + 1 :] if len(gaps) else x
    return x[:, np.isfinite(x).all(axis=0)]
