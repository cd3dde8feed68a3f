"""Markers as people read them, and their words in a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyqtgraph as pg

from rheobase.devices._theme import Theme, clear

ROWS = 3
"""Words may stand so many under one another."""


def read(word: str) -> tuple[str, str]:
    """A marker as people read it, in short and whole: `{"event": "state", "state": 3, "from": 0}` is "state 3" and
    "state 3, from 0". What is not JSON with an event stands as it is."""
    try:
        given = json.loads(word) if word.startswith("{") else None
    except ValueError:
        given = None
    if not isinstance(given, dict) or "event" not in given:
        return word, word
    event = str(given.pop("event"))
    parts = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in given.items() if v is not None]
    if not parts:
        return event, event
    first = parts[0].split(" ", 1)[1]
    return f"{event} {first}", ", ".join([f"{event} {first}", *parts[1:]])


def labels(plot: pg.PlotItem, n: int, theme: Theme) -> list[pg.TextItem]:
    """So many words in a plot, none of them seen yet."""
    items = [pg.TextItem(color=theme.yellow, fill=clear(theme.panel, 0.85)) for _ in range(n)]
    for item in items:
        item.setZValue(21)
        item.setVisible(False)
        plot.addItem(item, ignoreBounds=True)
    return items


def label(plot: Any, words: Sequence[tuple[float, str]], right: float, span: float) -> None:
    """Markers (time in s, word), the newest first, each in the first row where there is room for it; the plot shows
    `span` s up to `right` s."""
    width, top = plot.vb.sceneBoundingRect().width(), plot.vb.viewRange()[1][1]
    free = [math.inf] * ROWS
    for item in plot.words[len(words) :]:
        item.setVisible(False)
    for item, (t, word) in zip(plot.words, words, strict=False):
        item.setText(read(word)[0][:24])
        own, at = item.boundingRect().width(), width * (1 - (right - t) / span)
        late = at + own > width
        begin, end = (at - own, at) if late else (at, at + own)
        row = next((r for r, x in enumerate(free) if end <= x), -1)
        item.setVisible(row >= 0)
        if row >= 0:
            free[row] = begin
            item.setAnchor((1 if late else 0, -0.8 * row))
            item.setPos(t - right, top)
