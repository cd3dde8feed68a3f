"""The window in use: real key and mouse events, marks, layouts that are kept, several windows, nobody there to see."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")

from panels import T0, times_of, waves
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QMouseEvent, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication

from rheobase.devices._hands import picked
from rheobase.devices._theme import DARK, LIGHT
from rheobase.devices.marks import Marks, write
from rheobase.devices.view import View, Window, layout_file
from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.graph import parse
from rheobase.stream.run import run
from rheobase.tools.look import reopened

MARKS = Spec(rate=0, channels=("mark",), dtype="str")


def view(seconds: float = 60.0, n: int = 8, **more: object) -> View:
    """An EEG of a minute, at 250 Hz, and marks."""
    v = View.make(**more)
    v.inputs = ("eeg", "marks")
    spec, x = waves(n, seconds=seconds)
    v.start(spec, MARKS)
    t = times_of(spec, len(x))
    for a in range(0, len(t), 500):
        v.take(0, Block(x[a : a + 500], t[a : a + 500], a))
    v.take(1, Block(np.array([["begin"], ["cough"]], object), np.array([T0 - 40, T0 - 2])))
    return v


@pytest.fixture
def window() -> Iterator[Window]:
    w = view().window()
    w.show()
    w.grab()
    w.paint()
    yield w
    w.close()


def press(w: Window, *keys: Qt.Key) -> None:
    for key in keys:
        QTest.keyClick(w, key)
    w.paint()


def wheel(w: Window, panel: int, x: float, turn: int) -> None:
    target = w.panels[panel].graphics
    at = QPointF(x, 60)
    event = QWheelEvent(
        at, target.viewport().mapToGlobal(at), QPoint(), QPoint(0, 120 * turn), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(target.viewport(), event)
    w.paint()


def more(w: Window, seconds: float) -> None:
    """Samples go on."""
    feed = w.feeds["eeg"]
    t = feed.newest + np.arange(1, round(250 * seconds) + 1) / 250
    feed.take(Block(np.ones((len(t), feed.spec.n)), t, feed.samples))
    w.paint()


def test_space_holds_the_picture_while_samples_go_on(window: Window) -> None:
    w = window
    assert w.look.end is None and w.look.right == T0
    press(w, Qt.Key.Key_Space)
    more(w, 5.0)
    assert w.look.right == T0
    assert "paused, 5.0 s back" in w.status.text()
    press(w, Qt.Key.Key_Space)
    assert w.look.end is None and w.look.right == pytest.approx(T0 + 5)


def test_keys_are_heard_after_a_click_in_a_panel(window: Window) -> None:
    w = window
    w.activateWindow()
    QTest.qWaitForWindowActive(w, 2000)
    w.setFocus()
    QTest.mouseClick(w.panels[0].graphics.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(200, 60))
    assert QApplication.focusWidget() is w
    QTest.keyClick(QApplication.focusWidget(), Qt.Key.Key_Space)
    assert w.look.end is not None


def test_the_arrows_go_back_and_on_as_far_as_there_is_anything(window: Window) -> None:
    w = window
    press(w, Qt.Key.Key_Left)
    assert w.look.right == pytest.approx(T0 - 2.5)
    press(w, Qt.Key.Key_Left, Qt.Key.Key_Right)
    assert w.look.right == pytest.approx(T0 - 2.5)
    press(w, Qt.Key.Key_Right)
    assert w.look.end is None  # it has come to the newest and follows
    press(w, Qt.Key.Key_Home)
    assert w.look.right == pytest.approx(T0 - 50, abs=0.01)
    press(w, Qt.Key.Key_Left)
    assert w.look.right == pytest.approx(T0 - 50, abs=0.01)
    press(w, Qt.Key.Key_End)
    assert w.look.end is None


def test_what_is_looked_at_is_what_was_there(window: Window) -> None:
    """Scrolled back, the panel shows the samples of then, and the mark of then."""
    w = window
    [eeg, words] = w.panels
    shown = eeg.layers[0].image.copy()
    assert [t for t, _ in w.look.words] == [T0 - 2]
    for _ in range(14):
        press(w, Qt.Key.Key_Left)
    assert w.look.right == T0 - 35
    assert [word for _, word in w.look.words] == ["begin"]
    assert not np.array_equal(eeg.layers[0].image, shown)
    assert eeg.plot.lines.getData()[0][0] == pytest.approx(-5.0)
    assert "begin" in words.words.text() and "cough" not in words.words.text()
    press(w, Qt.Key.Key_End)
    np.testing.assert_array_equal(eeg.layers[0].image, shown)


def test_zoom_by_key_and_wheel(window: Window) -> None:
    w = window
    press(w, Qt.Key.Key_Up)
    assert w.look.span == pytest.approx(10 / 1.5)
    press(w, Qt.Key.Key_Down, Qt.Key.Key_Down)
    assert w.look.span == pytest.approx(15.0)
    wheel(w, 0, 400, 1)
    assert w.look.span == pytest.approx(12.0)
    wheel(w, 0, 400, -1)
    assert w.look.span == pytest.approx(15.0)
    for _ in range(40):
        press(w, Qt.Key.Key_Down)
    assert w.look.span == w.past == 300.0
    for _ in range(60):
        press(w, Qt.Key.Key_Up)
    assert w.look.span == pytest.approx(0.02)
    scale = w.panels[0].zoom
    wheel(w, 0, 30, 1)
    assert w.panels[0].zoom == pytest.approx(1.25 * scale) and w.look.span == pytest.approx(0.02)


def test_dragging_scrolls(window: Window) -> None:
    w, panel = window, window.panels[0]
    port = panel.graphics.viewport()
    wide = panel.pixels(panel.plot)[0]
    QTest.mousePress(port, Qt.MouseButton.LeftButton, pos=QPoint(300, 100))
    for kind, x in ((QEvent.Type.MouseMove, 350), (QEvent.Type.MouseMove, 400)):
        at = QPointF(x, 100)
        left = Qt.MouseButton.LeftButton
        event = QMouseEvent(kind, at, port.mapToGlobal(at), left, left, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(port, event)
    QTest.mouseRelease(port, Qt.MouseButton.LeftButton, pos=QPoint(400, 100))
    assert w.look.right == pytest.approx(T0 - 100 * 10 / wide)


def test_a_double_click_shows_one_panel_alone_and_all_again(window: Window) -> None:
    w = window
    port = w.panels[0].graphics.viewport()
    QTest.mouseDClick(port, Qt.MouseButton.LeftButton, pos=QPoint(200, 60))
    assert [p.isVisible() for p in w.panels] == [True, False]
    QTest.mouseDClick(port, Qt.MouseButton.LeftButton, pos=QPoint(200, 60))
    assert [p.isVisible() for p in w.panels] == [True, True]


def test_channels_are_picked(window: Window) -> None:
    w = window
    press(w, Qt.Key.Key_C)
    assert w.hands.entry.isVisible()
    QTest.keyClicks(w.hands.entry, "2-4 ch7")
    QTest.keyClick(w.hands.entry, Qt.Key.Key_Return)
    w.paint()
    assert w.look.picks == {"eeg": [2, 3, 4, 7]}
    assert w.panels[0].lanes[0] == [2, 3, 4, 7] and "4 of 8 channels" in w.panels[0].shown
    assert not w.hands.entry.isVisible()
    press(w, Qt.Key.Key_PageUp)
    assert w.look.picks == {"eeg": [0, 1, 2, 3]}
    press(w, Qt.Key.Key_PageDown, Qt.Key.Key_PageDown)
    assert w.look.picks == {"eeg": [4, 5, 6, 7]}
    for text, then in [("eeg: 1", {"eeg": [1]}), ("nobody: 1", {"eeg": [1]}), ("99", {"eeg": [1]}), ("all", {})]:
        press(w, Qt.Key.Key_C)
        QTest.keyClicks(w.hands.entry, text)
        QTest.keyClick(w.hands.entry, Qt.Key.Key_Return)
        assert w.look.picks == then
    press(w, Qt.Key.Key_C)
    QTest.keyClick(w.hands.entry, Qt.Key.Key_Escape)
    assert not w.hands.entry.isVisible()


def test_how_channels_are_named() -> None:
    names = ("Fz", "Cz", "3", "x")
    assert picked("0-1, x 3", names) == [0, 1, 3, 2]  # a name goes before a number
    assert picked("2-9", names) == [2, 3]
    assert picked("7 nobody -", names) == []
    assert picked("1 1 0", names) == [1, 0]


def test_theme_help_and_another_window(window: Window) -> None:
    w = window
    press(w, Qt.Key.Key_T)
    assert w.look.theme is LIGHT and all(p.theme is LIGHT for p in w.panels)
    press(w, Qt.Key.Key_T)
    assert w.look.theme is DARK
    press(w, Qt.Key.Key_H)
    assert "another&nbsp;window" in w.status.text()
    press(w, Qt.Key.Key_H)
    assert "another&nbsp;window" not in w.status.text()


def test_the_other_theme_leaves_all_where_it_is() -> None:
    """Every panel of every column as large as before."""
    panels: dict[str, Any] = {k: {"kind": "traces", "of": "eeg"} for k in "abc"}
    w = view(panels=panels | {"marks": "numbers"}, layout=[["a", "b"], ["c", "marks"], "eeg"]).window()
    w.show()
    w.grab()
    w.proportions([[300, 500, 400], [100, 400], [300, 200], [1]])
    before = [w.splitter.sizes(), *(s.sizes() for s in w.sides())]
    press(w, Qt.Key.Key_T)
    assert [w.splitter.sizes(), *(s.sizes() for s in w.sides())] == before
    assert min(map(min, before)) > 50 and before[1][0] < before[1][1]
    w.close()


def test_two_windows_look_at_different_things() -> None:
    v = view()
    first = v.window()
    first.show()
    press(first, Qt.Key.Key_N)
    assert len(v.windows) == 2
    second = v.windows[1]
    assert second.isVisible()
    press(second, Qt.Key.Key_Space, Qt.Key.Key_Left, Qt.Key.Key_Up)
    assert first.look.end is None and first.look.span == 10.0
    assert second.look.end is not None
    second.close()
    first.paint()
    first.close()


def test_a_picture_is_saved_by_a_key(tmp_path: Path) -> None:
    v = view()
    v.folder, v.name = tmp_path, "view"
    w = v.window()
    w.show()
    press(w, Qt.Key.Key_P)
    press(w, Qt.Key.Key_P)
    assert (tmp_path / "view-1.png").exists() and (tmp_path / "view-2.png").exists()
    w.close()


def test_what_was_looked_at_and_is_forgotten_gives_way() -> None:
    v = view(seconds=15.0, past=20.0)
    w = v.window()
    w.show()
    press(w, Qt.Key.Key_Space)
    for _ in range(10):
        more(w, 5.0)
    assert w.look.right >= w.feeds["eeg"].oldest
    w.close()


def test_the_layout_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "layout.json"
    w = view().window()
    w.show()
    w.keep(path)
    w.setGeometry(40, 50, 900, 600)
    w.grab()
    w.sides()[0].setSizes([100, 400])
    press(w, Qt.Key.Key_T, Qt.Key.Key_Up)
    w.close()
    other = view().window()
    other.show()
    other.keep(path)
    other.grab()
    assert (other.width(), other.height()) == (900, 600)
    assert other.look.theme is LIGHT
    assert other.look.span == pytest.approx(10 / 1.5)
    above, below = other.sides()[0].sizes()
    assert below > 2 * above
    other.close()
    saved = path.read_text()
    for damaged in ("", "[1]", saved[: len(saved) // 2], json.dumps({"place": ["x"] * 4}), '{"place": 1}'):
        path.write_text(damaged)
        w = view().window()
        w.keep(path)
        w.paint()
        w.close()


def test_layouts_lie_in_the_home_of_configurations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert layout_file("cursor", "view") == tmp_path / "rheobase" / "cursor-view.json"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert layout_file("cursor", "view") == tmp_path / ".config" / "rheobase" / "cursor-view.json"


# --- marks


def test_marks_typed_go_to_the_node(window: Window) -> None:
    w = window
    press(w, Qt.Key.Key_3)
    assert "no mark" in w.status.text()
    node = Marks.make()
    spec = node.start()
    assert (spec.dtype, spec.rate) == ("str", 0)
    blocks = node.blocks()
    press(w, Qt.Key.Key_3, Qt.Key.Key_Return)
    QTest.keyClicks(w.hands.entry, "drank & spoke")
    QTest.keyClick(w.hands.entry, Qt.Key.Key_Return)
    a, b = next(blocks), next(blocks)
    assert (a.data[0, 0], b.data[0, 0]) == ("3", "drank & spoke")
    assert a.times[0] < b.times[0] and (a.seq, b.seq) == (0, 1)
    w.paint()
    assert "drank &amp; spoke" in w.status.text()
    assert next(blocks) is None
    node.stop()
    assert list(blocks) == [] and not write("x")


GRAPH = """
name: marked
nodes:
  raw:   {{type: signal, rate: 100, channels: 2, process: view}}
  marks: {{type: marks, process: view}}
  out:   {{type: lsl_out, in: marks, stream: {stream}, process: view}}
  view:  {{type: view, in: [raw, marks], process: view}}
  rec:   {{type: record, in: [raw, marks], process: view}}
"""


def test_marks_are_recorded_and_sent_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that runs; a key is pressed in its window; the mark is in the recording and comes by LSL."""
    import os

    import pylsl
    from PySide6.QtCore import QTimer

    from rheobase.devices.replay import Replay

    monkeypatch.setattr("rheobase.devices.view.visible", lambda app: True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    stream = f"Marks{os.getpid()}"
    seen: list[str] = []
    inlets: list[pylsl.StreamInlet] = []

    def type_into(v: View) -> None:
        """Every 0.1 s, from within the window's own loop."""
        if not inlets and (found := pylsl.resolve_byprop("name", stream, 1, 0.05)):
            inlets.append(pylsl.StreamInlet(found[0]))
            inlets[0].open_stream(2.0)
        if inlets:
            QTest.keyClick(v.windows[0], Qt.Key.Key_5)
            sample, _ = inlets[0].pull_sample(0.05)
            seen.extend(sample or [])

    plain = View.loop

    def loop(v: View, stopped: object) -> bool:
        timer = QTimer()
        timer.timeout.connect(lambda: type_into(v))
        timer.start(100)
        return plain(v, lambda: stopped() or len(seen) >= 3)

    monkeypatch.setattr(View, "loop", loop)
    run(parse(GRAPH.format(stream=stream)), tmp_path / "run", seconds=4.0)
    inlets.clear()
    assert seen[:3] == ["5", "5", "5"]
    recorded = Replay(file=str(tmp_path / "run" / "recording.xdf"), stream="marks")
    recorded.start()
    words = [w for b in recorded.blocks() for w in b.data[:, 0]]
    assert words and set(words) == {"5"}


# --- nobody there, or nothing


def test_windows_of_empty_and_odd_streams_paint() -> None:
    v = View.make(panels={"f": {"kind": "spectrogram", "of": "a"}, "s": {"kind": "spectrum", "of": "a"}, "h": "health"})
    v.inputs = ("a", "p", "r", "u")
    v.start(
        Spec(rate=100, channels=numbered("c", 3)),
        Spec(rate=0, channels=("p0", "p1")),
        Spec(rate=0, channels=("rul_5", "rul_50", "rul_95")),
        Spec(rate=0, channels=("unit", "rul_5", "rul_50", "rul_95"), unit="s"),
    )
    w = v.window()
    w.show()
    for value in (np.nan, 0.0, 1e300, -1e-300):
        for i, f in enumerate(v.feeds):
            t = 1.0 + f.samples + np.arange(30) / 100
            v.take(i, Block(np.full((30, f.spec.n), value), t, f.samples, segment=f.segment + 1))
        w.paint()
        w.grab()
    press(w, Qt.Key.Key_Home, Qt.Key.Key_Down, Qt.Key.Key_End)
    w.close()


def test_a_clock_that_is_set_back_paints() -> None:
    v = view(seconds=5.0)
    feed = v.feeds[0]
    v.take(0, Block(np.ones((100, 8)), 500.0 + np.arange(100) / 250, feed.samples, segment=1))
    w = v.window()
    w.grab()
    w.paint()
    assert math.isfinite(w.look.right)
    w.close()


def test_the_window_closed_and_opened_again_while_samples_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rheobase.devices.view.visible", lambda app: True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    v = view(seconds=5.0)
    v.folder = tmp_path
    (tmp_path / "config.yaml").touch()
    answers: list[bool] = []
    asks = threading.Thread(target=lambda: answers.append(reopened(tmp_path)))
    looks = 0

    def stopped() -> bool:
        nonlocal looks
        looks += 1
        f = v.feeds[0]
        v.take(0, Block(np.ones((5, 8)), f.newest + np.arange(1, 6) / 250, f.samples))
        if looks == 3:
            v.windows[0].close()
        if looks == 6:
            assert not v.windows[0].isVisible()
            asks.start()  # rheo view RUN
        return len(answers) > 0 or looks > 300

    assert v.loop(stopped)
    assert answers == [True] and len(v.windows) == 2
    assert v.windows[1].look.newest > T0  # painted after it was opened
    assert v.feeds[0].samples == 1250 + 5 * looks
    (tmp_path / "tables.json").touch()  # the run has ended
    assert not reopened(tmp_path)


def test_the_slider_scrolls(window: Window) -> None:
    w = window
    w.slider.setValue(500)
    w.slider.sliderMoved.emit(500)
    w.paint()
    assert w.look.right == pytest.approx(T0 - 25, abs=0.1)
    assert abs(w.slider.value() - 500) <= 1
    w.slider.sliderMoved.emit(1000)
    assert w.look.end is None
