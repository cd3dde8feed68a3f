"""The window: what it keeps, what it shows, and that closing it stops nothing. Painted off screen."""

from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")

from PySide6.QtGui import QImage

from rheobase.devices._feed import COLUMNS, UNITS, WORDS, Feed, Ring
from rheobase.devices._panel import Panel, nice
from rheobase.devices._theme import DARK
from rheobase.devices.view import View, Window, application
from rheobase.nodes.task import TASK
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import now

BLUE, GREEN, ORANGE, PINK, RED, YELLOW = DARK.blue, DARK.green, DARK.orange, DARK.pink, DARK.red, DARK.yellow
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


def colours(panel: Panel) -> np.ndarray:
    """Pixels (n, 3) of the inside of a panel's plot, as it is on the screen."""
    image = panel.graphics.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    whole = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    rgb = whole[:, : 3 * image.width()].reshape(image.height(), image.width(), 3)
    box = panel.plot.vb.sceneBoundingRect()
    return rgb[int(box.top()) : int(box.bottom()), int(box.left()) : int(box.right())].copy()


def share(pixels: np.ndarray, colour: str, near: int = 40) -> float:
    rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)])
    return float((np.abs(pixels.astype(int) - rgb).max(axis=-1) < near).mean())


@given(st.data())
def test_columns_hold_the_lowest_and_highest_of_every_so_many_samples(data: st.DataObject) -> None:
    """However the stream is cut into blocks, for any rate, past the end of the ring."""
    every = data.draw(st.integers(2, 5))
    n = data.draw(st.integers(1, 2 * every * COLUMNS))
    spec = Spec(rate=every * COLUMNS / 10, channels=("a", "b"))
    rng = np.random.default_rng(n)
    x, t = rng.standard_normal((n, 2)).astype(np.float32), np.arange(1, n + 1) / spec.rate
    x[rng.random((n, 2)) < 0.1] = np.nan
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=8)))
    with pytest.MonkeyPatch.context() as m:
        m.setattr("rheobase.devices._feed.FINE", 4 * 2 * 100)  # the last 100 samples as they are
        feed = Feed("x", spec, 10.0)
    for a, b in zip([0, *cuts], [*cuts, n], strict=True):
        feed.take(Block(x[a:b].astype(float), t[a:b], a))
    starts = range(0, n, every)
    low = np.array([np.fmin.reduce(x[k : k + every]) for k in starts])
    high = np.array([np.fmax.reduce(x[k : k + every]) for k in starts])
    kept = len(low[-COLUMNS:])
    times, a, b = feed.coarse.between(-1.0, np.inf)
    np.testing.assert_array_equal(times, t[::every][-kept:])
    np.testing.assert_array_equal(a, low[-kept:])
    np.testing.assert_array_equal(b, high[-kept:])
    times, samples = feed.samples_between(-1.0, np.inf)
    np.testing.assert_array_equal(times, t[-100:])
    np.testing.assert_array_equal(samples, x[-100:])
    assert feed.drops == 0


def test_what_is_asked_for_comes_as_samples_or_in_columns() -> None:
    """Samples where they are kept and a pixel has few of them, else columns; what is before the ring is forgotten."""
    spec = Spec(rate=10_000, channels=("a",))
    with pytest.MonkeyPatch.context() as m:
        m.setattr("rheobase.devices._feed.FINE", 4 * 20_000)  # 2 s
        feed = Feed("x", spec, 10.0, past=60.0)
    x = np.sin(np.arange(300_000) / 50)[:, None]
    for a in range(0, len(x), 1000):
        feed.take(Block(x[a : a + 1000], (a + np.arange(1000)) / 10_000, a))
    assert feed.coarse.every == math.ceil(10_000 * 10 / COLUMNS)
    times, low, high = feed.between(20.0, 30.0, 600)
    assert 0.9 * COLUMNS < len(times) <= COLUMNS + 1 and (high >= low).all()
    times, low, high = feed.between(29.9, 29.95, 600)
    assert len(times) == 500 and low is high
    times, low, high = feed.between(10.0, 10.05, 600)  # no samples are left of then
    assert 5 <= len(times) <= 7
    assert feed.oldest == 0.0
    assert len(feed.between(-5.0, -1.0)[0]) == 0


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(-40, 5)), max_size=12), st.integers(-60, 60), st.integers(0, 60)
)
def test_what_lies_between_two_times_whatever_the_clock_does(blocks: list[tuple[int, int]], a: int, long: int) -> None:
    """Also where it was set back, and for less than the ring holds, and for more."""
    ring = Ring(20, 1, 1)
    times, t = np.empty(0), 0.0
    for n, jump in blocks:
        more = t + jump + np.arange(1, n + 1)
        x = np.arange(len(times), len(times) + n, dtype=np.float32)[:, None]
        ring.write(more, x, x)
        times, t = np.append(times, more), more[-1]
    found, low, _ = ring.between(a, a + long)
    kept = np.arange(len(times))[-20:]
    own = kept[(times[kept] > a) & (times[kept] <= a + long)]
    np.testing.assert_array_equal(low[:, 0], own)
    np.testing.assert_array_equal(found, times[own])


def test_drops_segments_rate_and_silence_are_told() -> None:
    feed = Feed("x", SPECS["cursor"], 10.0)
    assert feed.health()[""] == "nothing yet"
    begin = now() - 1.0
    t = begin + np.arange(50) / 50
    x = np.zeros((50, 2))
    feed.take(Block(x[:20], t[:20], 0))
    feed.take(Block(x[20:30], t[20:30], 27))  # seven missing
    feed.take(Block(x[30:], t[30:], 37, segment=1))
    told = feed.health()
    assert (told["dropped"], told["segment"], told[""]) == ("7", "1", "samples dropped")
    assert float(told["age p99"].split()[0].replace(",", "")) >= 1000.0
    assert list(feed.lost) == [(t[20], 7)]
    assert math.isnan(feed.rate())  # unknown after a gap, until there are two blocks
    feed.take(Block(x, t[-1] + 0.02 + t - begin, 57, segment=1))
    assert feed.rate() == pytest.approx(50.0)
    feed.heard -= 3.0
    assert feed.health()[""] == "silent for 3 s, samples dropped"
    _, low = feed.samples_between(begin - 1, np.inf)
    assert np.isnan(low).any(axis=1).sum() == 1  # the gap breaks the line


@pytest.mark.parametrize(("n", "rate"), [(1024, 30_000.0), (128, 1000.0), (8, 200.0), (4, 0.0)])
def test_memory_does_not_grow(n: int, rate: float) -> None:
    """Whatever the rate, an input keeps at most some 100 MB, and as much after a long time as before."""
    spec = Spec(rate=rate, channels=numbered("c", n))
    feed = Feed("x", spec, 10.0, past=300.0)
    assert feed.bytes <= 110e6
    before = feed.bytes
    for k in range(50):
        feed.take(Block(np.zeros((300, n)), (300 * k + np.arange(300)) / (rate or 1), 300 * k))
    assert feed.bytes == before
    assert len(feed.ages) <= 1000 and len(feed.clock) <= 400 and len(feed.lost) <= 400


def test_words_and_units_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Feed("w", SPECS["markers"], 10.0)
    for k in range(3):
        words.take(Block(np.full((WORDS, 1), f"word {k}", object), k + np.arange(WORDS) / WORDS, k * WORDS))
    assert len(words.words) == WORDS and words.words[-1] == (2 + (WORDS - 1) / WORDS, "word 2")
    assert UNITS >= 10_000
    monkeypatch.setattr("rheobase.devices._feed.UNITS", 10)
    fleet = Feed("f", Spec(rate=0, channels=("unit", "rul_5")), 10.0)
    for k in range(30):
        fleet.take(Block(np.array([[k, 2.0 * k], [k, 3.0 * k]]), np.array([k, k + 0.5]), 2 * k))
    assert list(fleet.units) == list(range(20, 30))
    assert fleet.units[25][0] == 25.5 and fleet.units[25][1][1] == 75


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
    v = filled(view("task", "cursor", "wish", "rates", "markers"))
    w = v.window()
    w.grab()  # lays it out
    kinds = {type(p).__name__: p for p in w.panels}
    assert list(kinds) == ["CursorPanel", "TracesPanel", "ImagePanel", "NumbersPanel"]
    assert [f.name for f in kinds["TracesPanel"].feeds] == ["cursor", "wish"]  # alike: one over the other
    w.paint()

    def pixels(kind: str) -> np.ndarray:
        return colours(kinds[kind])

    for kind, colour in [("CursorPanel", BLUE), ("CursorPanel", PINK), ("TracesPanel", BLUE), ("TracesPanel", ORANGE)]:
        assert share(pixels(kind), colour) > 2e-4, (kind, colour)
    image = pixels("ImagePanel").astype(int)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) >= 8  # counts from 0 to 4 and more
    rows = image.sum(axis=(1, 2))
    assert rows[: len(rows) // 4].mean() > 1.5 * rows[-len(rows) // 4 :].mean()  # high channels fire, low ones do not
    assert "word 11" in kinds["NumbersPanel"].words.text()
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
    for colour in (GREEN, RED, YELLOW, ORANGE):
        assert share(colours(panel), colour) > 2e-4, colour
    title = panel.shown
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
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
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
    assert (tmp_path / "home" / "rheobase" / "graph-view.json").exists()  # where it was, for the next time


def test_a_loop_that_had_nothing_to_do_leaves_the_next_alone() -> None:
    """Its timer, too, has ended."""
    kept = [view("cursor"), view("cursor")]
    assert kept[0].loop(lambda: True)
    gc.disable()  # nothing else ends it
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        return looks > 8

    try:
        assert kept[1].loop(stopped)
    finally:
        gc.enable()
    assert looks > 8


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    v = view("cursor", picture="file/window.png")
    v.folder = tmp_path
    with pytest.raises(StreamError, match="picture: cannot write"):
        v.loop(lambda: True)
