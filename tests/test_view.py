"""The window: what it keeps, what it shows, and that closing it stops nothing. Painted off screen."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PySide6.QtCore import QRectF
from PySide6.QtGui import QImage

from rheobase.devices._feed import COLUMNS, Feed
from rheobase.devices._panels import BLUE, GREEN, ORANGE, PINK, RED, YELLOW, nice
from rheobase.devices.view import View, Window, application, usual
from rheobase.nodes.task import TASK
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import now

SPECS = {
    "task": Spec(rate=200, channels=TASK, unit="m"),
    "rates": Spec(rate=50, channels=numbered("n", 96), unit="count"),
    "cursor": Spec(rate=50, channels=("intended_x", "intended_y"), unit="m/s"),
    "wish": Spec(rate=200, channels=("intended_x", "intended_y"), unit="m/s"),
    "markers": Spec(rate=0, channels=("marker",), dtype="str"),
}


def view(*names: str, **more: object) -> View:
    v = View.make(**more)
    v.inputs = names
    v.start(*(SPECS[n] for n in names))
    return v


def filled(v: View, seconds: float = 12.0) -> View:
    """A circling cursor, rates with a gradient, two velocities, some words."""
    begin = now() - seconds
    for i, name in enumerate(v.inputs):
        spec = SPECS[name]
        t = begin + np.arange(1, round(seconds * (spec.rate or 1)) + 1) / (spec.rate or 1)
        if name == "task":
            x = np.zeros((len(t), spec.n))
            x[:, 0], x[:, 1] = 0.1 * np.cos(t - begin), 0.1 * np.sin(t - begin)
            x[:, 2], x[:, 4], x[:, 5], x[:, 7] = -0.121, 0.012, 0.3, 7
        elif name == "rates":
            x = np.random.default_rng(0).poisson(np.linspace(0, 4, 96), (len(t), 96)).astype(float)
        elif name == "markers":
            x = np.array([[f"word {k}"] for k in range(len(t))], object)
        else:
            x = np.stack([np.sin(3 * (t - begin)), np.cos(3 * (t - begin))], axis=1) * (
                0.2 if name == "cursor" else 0.15
            )
        for a in range(0, len(t), 10):
            v.take(i, Block(x[a : a + 10], t[a : a + 10], a))
    return v


def colours(w: Window, area: QRectF) -> np.ndarray:
    """Pixels (n, 3) of an area of the window."""
    image = w.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    whole = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    rgb = whole[:, : 3 * image.width()].reshape(image.height(), image.width(), 3)
    top = w.plots.mapTo(w, w.plots.rect().topLeft())
    a, b, c, d = (
        int(z) for z in (area.left() + top.x(), area.right() + top.x(), area.top() + top.y(), area.bottom() + top.y())
    )
    return rgb[c:d, a:b].reshape(-1, 3).copy()


def share(pixels: np.ndarray, colour: str, near: int = 40) -> float:
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    return float((np.abs(pixels.astype(int) - rgb).max(axis=1) < near).mean())


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (SPECS["task"], "cursor"),
        (SPECS["rates"], "image"),
        (SPECS["cursor"], "traces"),
        (SPECS["markers"], "numbers"),
        (Spec(rate=1000, channels=numbered("n", 96), unit="count"), "image"),
        (Spec(rate=1000, channels=numbered("eeg", 64), unit="V"), "traces"),
    ],
)
def test_each_stream_finds_the_panel_that_suits_it(spec: Spec, kind: str) -> None:
    assert usual(spec) == kind


@pytest.mark.parametrize(
    ("names", "panels", "says"),
    [
        (("task", "rates"), {"rate": "image"}, "panels: no input 'rate'; did you mean 'rates'"),
        (("rates",), {"rates": "cursor"}, "'rates' has no channels 'cursor_x' and 'cursor_y'"),
        (("markers",), {"markers": "traces"}, "'markers' carries words"),
    ],
)
def test_refuses_panels_that_do_not_suit(names: tuple[str, ...], panels: dict[str, str], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        view(*names, panels=panels)
    with pytest.raises(StreamError, match="panels"):
        View.make(panels={"rates": "spectrum"})


@given(st.data())
def test_columns_hold_the_lowest_and_highest_of_every_so_many_samples(data: st.DataObject) -> None:
    """However the stream is cut into blocks, for any rate, past the end of the ring."""
    every = data.draw(st.integers(1, 5))
    n = data.draw(st.integers(1, 2 * every * COLUMNS["traces"]))
    spec = Spec(rate=every * COLUMNS["traces"] / 10, channels=("a", "b"))
    rng = np.random.default_rng(n)
    x, t = rng.standard_normal((n, 2)), np.arange(1, n + 1) / spec.rate
    x[rng.random((n, 2)) < 0.1] = np.nan
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=8)))
    feed = Feed("x", spec, "traces", 10.0)
    for a, b in zip([0, *cuts], [*cuts, n], strict=True):
        feed.take(Block(x[a:b], t[a:b], a))
    starts = range(0, n, every)
    low = np.array([np.fmin.reduce(x[k : k + every]) for k in starts])
    high = np.array([np.fmax.reduce(x[k : k + every]) for k in starts])
    kept = len(low[-COLUMNS["traces"] :])
    times, a, b = feed.recent(-1.0)
    np.testing.assert_array_equal(times, t[::every][-kept:])
    np.testing.assert_array_equal(a, low[-kept:])
    np.testing.assert_array_equal(b, high[-kept:])
    assert feed.drops == 0


def test_drops_segments_rate_and_silence_are_told() -> None:
    feed = Feed("x", SPECS["cursor"], "traces", 10.0)
    assert feed.health()[-1] == "nothing yet"
    begin = now() - 1.0
    t = begin + np.arange(50) / 50
    x = np.zeros((50, 2))
    feed.take(Block(x[:20], t[:20], 0))
    feed.take(Block(x[20:30], t[20:30], 27))  # seven missing
    feed.take(Block(x[30:], t[30:], 37, segment=1))
    _, _, p99, drops, segment, words = feed.health()
    assert (drops, segment, words) == ("7", "1", "samples dropped")
    assert float(p99.split()[0].replace(",", "")) >= 1000.0
    assert math.isnan(feed.rate())  # unknown after a gap, until there are two blocks
    feed.take(Block(x, t[-1] + 0.02 + t - begin, 57, segment=1))
    assert feed.rate() == pytest.approx(50.0)
    feed.heard -= 3.0
    assert feed.health()[-1] == "silent for 3 s, samples dropped"
    _, low, _ = feed.recent(begin - 1)
    assert np.isnan(low).any(axis=1).sum() == 1  # the gap breaks the line


def test_memory_does_not_grow() -> None:
    feed = Feed("x", SPECS["task"], "cursor", 10.0)
    for k in range(3000):
        feed.take(Block(np.zeros((10, len(TASK))), (10 * k + np.arange(10)) / 200, 10 * k))
    assert feed.low.shape == (COLUMNS["cursor"], len(TASK))
    assert len(feed.ages) <= 1000
    assert len(feed.clock) <= 1000
    words = Feed("w", SPECS["markers"], "numbers", 10.0)
    words.take(Block(np.full((100, 1), "word", object), np.arange(100.0)))
    assert len(words.lines) < 20


def test_painting_takes_no_references_away() -> None:
    """PySide6 6.12.0 gave None back more often than it took it, until Python 3.11 died of it."""
    w = filled(view("task", "rates", "cursor")).window()
    w.grab()
    before = sys.getrefcount(None)
    for _ in range(20):
        w.paint()
        w.grab()
    assert sys.getrefcount(None) > before - 200
    w.close()


@given(st.floats(1e-12, 1e12))
def test_scale_bars_have_round_lengths(x: float) -> None:
    y = nice(x)
    assert x / 2.5 <= y * (1 + 1e-9) and y <= x * (1 + 1e-9)
    assert round(y / 10.0 ** math.floor(math.log10(y) + 1e-9), 9) in (1, 2, 5)


def test_every_panel_shows_what_it_was_given() -> None:
    v = filled(view("task", "rates", "cursor", "wish", "markers", panels={"markers": "numbers"}))
    w = v.window()
    w.grab()  # lays it out
    kinds = {type(p).__name__: p for p in w.panels}
    assert list(kinds) == ["CursorPanel", "ImagePanel", "TracesPanel", "NumbersPanel"]
    assert [f.name for f in kinds["TracesPanel"].feeds] == ["cursor", "wish"]  # alike: one over the other

    def pixels(kind: str) -> np.ndarray:
        return colours(w, kinds[kind].plot.vb.sceneBoundingRect())

    for kind, colour in [("CursorPanel", BLUE), ("CursorPanel", PINK), ("TracesPanel", BLUE), ("TracesPanel", ORANGE)]:
        assert share(pixels(kind), colour) > 2e-4, (kind, colour)
    image = pixels("ImagePanel").astype(int)
    assert len(np.unique(image, axis=0)) >= 8  # counts from 0 to 4 and more
    rows = image.reshape(int(kinds["ImagePanel"].plot.vb.sceneBoundingRect().height()), -1, 3).sum(axis=(1, 2))
    assert rows[: len(rows) // 4].mean() > 1.5 * rows[-len(rows) // 4 :].mean()  # high channels fire, low ones do not
    assert len(np.unique(pixels("NumbersPanel"), axis=0)) > 5
    for name in v.inputs:
        assert name in w.table.text()
    w.close()


def test_the_cursor_panel_shows_what_became_of_each_target() -> None:
    """Rings of the size of the stream's targets, in the colour of their outcome; the title counts them once."""
    v = view("task")
    at = {c: i for i, c in enumerate(TASK)}
    x = np.zeros((1000, len(TASK)))
    x[:, at["cursor_x"]] = 0.13  # out of the way
    for k, (outcome, place) in enumerate([(1, -0.1), (2, -0.05), (3, 0.0), (1, 0.05), (0, 0.1)]):
        part = x[200 * k : 200 * (k + 1)]
        part[:, at["number"]], part[:, at["target_y"]], part[:, at["radius"]] = k + 1, place, 0.02
        part[-1, at["outcome"]] = outcome
    x[:, at["assist"]] = 0.5
    v.take(0, Block(x, now() - 5 + np.arange(1000) / 200))
    w = v.window()
    w.grab()
    w.paint()  # a second look at the same samples counts nothing twice
    [panel] = w.panels
    area = panel.plot.vb.sceneBoundingRect()
    for colour in (GREEN, RED, YELLOW, ORANGE):
        assert share(colours(w, area), colour) > 2e-4, colour
    title = panel.plot.titleLabel.text
    for words in ("target 5", "2 acquired", "1 timed out", "1 wrong", "assisted 50%"):
        assert words in title
    assert panel.goal.points()[0].size() == pytest.approx(4.0)
    assert [p.size() for p in panel.ghosts.points()] == pytest.approx([4.0] * 5)
    w.close()


def test_targets_of_several_sizes_leave_few_rings() -> None:
    v = view("task")
    at = {c: i for i, c in enumerate(TASK)}
    x = np.zeros((2000, len(TASK)))
    x[:, at["number"]] = np.arange(2000) // 100 + 1
    x[:, at["target_x"]] = 0.005 * x[:, at["number"]]
    x[:, at["radius"]] = 0.01 + 0.005 * (x[:, at["number"]] % 3)
    v.take(0, Block(x, now() - 10 + np.arange(2000) / 200))
    w = v.window()
    [panel] = w.panels
    assert [round(float(p.pos().x()), 2) for p in panel.ghosts.points()] == [7.5, 8.0, 8.5, 9.0, 9.5, 10.0]
    w.close()


def test_nothing_is_shown_before_anything_came() -> None:
    w = view("task", "rates", "cursor").window()
    assert w.table.text().count("nothing yet") == 3
    w.paint()
    w.close()


def test_missing_values_and_flat_lines_paint() -> None:
    v = view("task", "rates", "cursor")
    t = now() - 1 + np.arange(50) / 50
    for i, value in [(0, np.nan), (1, 3.0), (2, np.nan)]:
        v.take(i, Block(np.full((50, SPECS[v.inputs[i]].n), value), t))
    w = v.window()
    w.grab()
    w.close()


def test_closing_the_window_does_not_end_the_loop_and_the_picture_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rheobase.devices.view.visible", lambda app: True)
    v = filled(view("task", "rates", picture="window.png"))
    v.folder = tmp_path
    looks = 0
    closed = False

    def stopped() -> bool:
        nonlocal looks, closed
        looks += 1
        if looks == 4:
            windows = [w for w in application().topLevelWidgets() if isinstance(w, Window) and w.isVisible()]
            closed = bool(windows) and all(w.close() for w in windows)
            v.take(0, Block(np.full((1, len(TASK)), 0.05), np.array([now()]), 2400))
        return looks > 8

    assert v.loop(stopped) is True
    assert closed and looks == 9
    image = QImage(str(tmp_path / "window.png"))
    assert (image.width(), image.height()) == (1280, 720)
    assert v.feeds[0].samples == 2401


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    v = view("cursor", picture="file/window.png")
    v.folder = tmp_path
    with pytest.raises(StreamError, match="picture: cannot write"):
        v.loop(lambda: True)
