"""How old samples are when they come, and what was dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QSizePolicy

from rheobase.devices._panel import LEFT, Line, Panel, said
from rheobase.devices._theme import clear
from rheobase.stream.block import Spec
from rheobase.stream.clock import now
from rheobase.stream.live import FILE

EDGES = np.logspace(-1, 4, 76)
"""ms: steps of 17 %."""
LOOK = 1.0
"""s between two looks at what the run says of its nodes."""
SHOWN = 6
"""Nodes of it."""


class HealthPanel(Panel):
    """A histogram of ages (now less the time of a block's oldest sample, as it comes to the window) of the last 1000
    blocks of each input, with the median and the 99th percentile; below it what was dropped, over time. Where the run
    says what it is at (live.json in its directory), the nodes that take most time: the share of it at which each had
    a block, and the time that this comes to for each of its samples."""

    inputs: ClassVar[tuple[int, int]] = (1, 99)
    stretch = 2

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        """Any stream has an age."""

    def build(self) -> None:
        self.plot = self.add_plot(0, x="age, ms", y="blocks, %")
        ticks = [(float(k), f"{10.0**k:g}") for k in range(-1, 5)]
        self.plot.getAxis("bottom").setTicks([ticks])
        self.plot.setXRange(-1, 4, padding=0)
        self.plot.showGrid(x=True, y=True, alpha=0.12)
        self.drops = self.add_plot(1, x=self.look.label(), y="dropped", time=True)
        self.plot.getAxis("left").setWidth(LEFT)
        self.drops.getAxis("left").setStyle(hideOverlappingLabels=False)
        self.side_axis(self.drops)
        self.side_axis(self.plot)
        self.graphics.ci.layout.setRowStretchFactor(0, 3)
        self.graphics.ci.layout.setRowStretchFactor(1, 1)
        self.bars, self.lost, self.rules = [], [], []
        for k, _ in enumerate(self.feeds):
            colour = self.theme.lines[k % len(self.theme.lines)]
            pen = pg.mkPen(colour, width=1.6)
            self.bars.append(steps(pen, clear(colour, 0.15)))
            self.lost.append(pg.PlotCurveItem(pen=pen, connect="pairs"))
            self.rules.append(pg.InfiniteLine(0, angle=90, pen=pg.mkPen(colour, width=1, dash=[3, 3])))
            self.plot.addItem(self.bars[-1])
            self.plot.addItem(self.rules[-1])
            self.drops.addItem(self.lost[-1])

        self.nodes = QLabel()
        self.nodes.setTextFormat(Qt.TextFormat.RichText)
        self.nodes.setContentsMargins(10, 0, 6, 4)
        self.nodes.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.looked = -np.inf

    def paint(self) -> None:
        if now() - self.looked > LOOK:
            self.looked = now()
            self.busy()
        top, worst, most = 1.0, [], 1.0
        for k, feed in enumerate(self.feeds):
            ages = np.array(feed.ages) * 1e3
            counts = np.histogram(np.clip(ages, EDGES[0], EDGES[-1]), EDGES)[0] * (100 / max(len(ages), 1))
            if feed.recorded:
                counts[:] = 0
            self.bars[k].setData(np.log10(EDGES), counts)
            top = max(top, float(counts.max()))
            known = len(ages) > 0 and not feed.recorded
            self.rules[k].setVisible(known)
            if known:
                p50, p99 = np.quantile(ages, [0.5, 0.99], method="higher")
                self.rules[k].setPos(np.log10(max(p99, EDGES[0])))
                worst.append((float(p50), float(p99)))
            at = np.array([t for t, _ in feed.lost]) - self.look.right
            n = np.array([float(m) for _, m in feed.lost])
            self.lost[k].setData(np.repeat(at, 2), np.stack([np.zeros(len(n)), n], axis=1).ravel())
            most = max(most, float(n[at > -self.look.span].max(initial=1.0)))
        self.plot.setYRange(0, 1.08 * top, padding=0)
        self.drops.setYRange(0, 1.1 * most, padding=0)
        self.drops.getAxis("left").setTicks([[(0, "0"), (most, f"{most:,.0f}")]])
        if worst:
            p50, p99 = max(worst, key=lambda w: w[1])
            self.say(f"oldest: p50 {p50:.1f} ms, p99 {p99:.1f} ms (dashed: p99)")
        else:
            self.say("recorded: ages mean nothing")

    def busy(self) -> None:
        """The nodes that take most time."""
        if not self.nodes.parent() and (layout := self.layout()):
            layout.addWidget(self.nodes)
        found = busiest(self.look.folder)
        self.nodes.setVisible(bool(found))
        words = [f"{said(n)} <b>{100 * b:.0f} %</b>{f', {1e3 * s:.3g} ms' if s else ''}" for n, b, s in found[:SHOWN]]
        dim = f'<span style="color:{self.theme.dim}">busy, a sample:</span>'
        self.nodes.setText(f'<span style="color:{self.theme.ink}">{dim} {" &nbsp; ".join(words)}</span>')


def busiest(folder: Path | None) -> list[tuple[str, float, float | None]]:
    """Name, share of the time and s a sample of the nodes of a run, the busiest first; none: the run does not say."""
    try:
        nodes = json.loads((folder / FILE).read_text())["nodes"] if folder else {}
        found = [(str(k), float(v["busy"]), v.get("step")) for k, v in nodes.items() if v.get("busy")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return sorted(found, key=lambda x: -x[1])


def steps(pen: Any, brush: Any) -> pg.PlotCurveItem:
    """A histogram over `EDGES`."""
    flat = np.zeros(len(EDGES) - 1)
    return pg.PlotCurveItem(np.log10(EDGES), flat, pen=pen, brush=brush, stepMode="center", fillLevel=0)
