"""The newest values, or the newest words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel, QSizePolicy

from rheobase.devices._panel import Line, Panel, said, squared
from rheobase.devices._words import read
from rheobase.stream.block import Spec

MOST = 48
"""Values shown."""
LINES = 60
"""Words shown, the newest last."""


class NumbersPanel(Panel):
    """The newest value of each channel with its unit, or the newest lines of a stream of words."""

    stretch = 1

    @classmethod
    def suits(cls, line: Line, specs: Sequence[Spec]) -> None:
        """Anything can be shown so."""

    def build(self) -> None:
        self.words = QLabel()
        self.words.setTextFormat(Qt.TextFormat.RichText)
        self.words.setContentsMargins(10, 2, 6, 4)
        self.words.setStyleSheet(f"color: {self.theme.ink};")
        self.words.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
        self.words.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        layout = self.layout()
        assert layout is not None
        layout.addWidget(self.words)

    def paint(self) -> None:
        feed, dim = self.feeds[0], self.theme.dim
        fit = max(1, (self.words.height() - 6) // 17)
        if feed.spec.dtype == "str":
            past = [(t, word) for t, word in feed.words if t <= self.look.right][-min(LINES, fit) :]
            rows = [
                f'<tr><td style="color:{dim}; padding-right:14px" align="right">{t - self.look.right:.1f} s</td>'
                f"<td>{said(read(word)[1][:80])}</td></tr>"
                for t, word in past
            ]
            self.words.setText(f'<table cellspacing="0">{"".join(rows)}</table>')
            return
        shown = self.chosen(feed, MOST)
        x = feed.last
        if self.look.end is not None:
            _, past_x = feed.samples_between(self.look.left, self.look.right)
            x = past_x[-1] if len(past_x) else np.full(feed.spec.n, np.nan)
        cells = [
            f'<td style="color:{dim}">{said(feed.spec.channels[k])}</td>'
            f'<td align="right" style="padding-left:12px; padding-right:26px">{value(float(x[k]))} '
            f'<span style="color:{dim}">{said(unit_of(feed.spec, k))}</span></td>'
            for k in shown
        ]
        rows = ["".join(cells[r::fit]) for r in range(min(fit, len(cells)))]
        self.words.setText(f'<table cellspacing="0">{"".join(f"<tr>{r}</tr>" for r in rows)}</table>')


def unit_of(spec: Spec, k: int) -> str:
    """The unit of a channel: of a covariance that of the stream, squared."""
    return squared(spec.unit) if spec.channels[k].startswith("cov(") and spec.unit else spec.unit


def value(x: float) -> str:
    """A number, or a dash where there is none."""
    return f"{x:.4g}" if np.isfinite(x) else "–"
