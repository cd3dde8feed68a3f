"""Markers as people read them, and where their words stand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")

from rheobase.devices._words import read
from rheobase.devices.view import View
from rheobase.stream.block import Block, Spec


@pytest.mark.parametrize(
    ("word", "short", "whole"),
    [
        ("cough", "cough", "cough"),
        ('{"event": "state", "state": 3, "from": 0, "after": 0.65, "p": 0.99312}',
         "state 3", "state 3, from 0, after 0.65, p 0.9931"),
        ('{"event": "state", "state": 1, "from": null, "p": 1.0}', "state 1", "state 1, p 1"),
        ('{"event": "target", "number": 12, "x": 0.12, "y": -0.05}', "target 12", "target 12, x 0.12, y -0.05"),
        ('{"event": "rest"}', "rest", "rest"),
        ('{"state": 3}', '{"state": 3}', '{"state": 3}'),
        ("{broken", "{broken", "{broken"),
    ],
)  # fmt: skip
def test_words_of_programs_are_read(word: str, short: str, whole: str) -> None:
    assert read(word) == (short, whole)


def test_words_do_not_lie_over_one_another() -> None:
    """Six marks within a second, three rows: the newest have their words, and none is cut off at the right."""
    v = View.make(span=10.0, layout=["eeg"])
    v.inputs = ("eeg", "marks")
    v.start(Spec(rate=100, channels=("a",)), Spec(rate=0, channels=("m",), dtype="str"))
    v.take(0, Block(np.zeros((1000, 1)), 90 + np.arange(1, 1001) / 100))
    times = np.array([95.0, 99.0, 99.2, 99.4, 99.6, 99.8, 100.0])
    v.take(1, Block(np.array([[f"word number {k}"] for k in range(7)], object), times))
    w = v.window()
    w.resize(700, 300)
    w.grab()
    w.paint()
    [panel] = w.panels
    plot = panel.plot
    boxes = [x.mapRectToScene(x.boundingRect()) for x in plot.words if x.isVisible()]
    shown = [x.toPlainText() for x in plot.words if x.isVisible()]
    assert {"word number 6", "word number 0"} <= set(shown) and 4 <= len(shown) < 7
    assert not any(a.adjusted(2, 5, -2, -5).intersects(b) for k, a in enumerate(boxes) for b in boxes[:k])
    inside = plot.vb.sceneBoundingRect().adjusted(-3, 0, 3, 0)
    assert all(inside.left() <= b.left() and b.right() <= inside.right() for b in boxes)
    w.close()
