"""`rheo view` and `rheo report`: on a run, on a recording of anybody's, on LSL streams of what runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PySide6.QtWidgets")
pytest.importorskip("pyqtgraph")
pytest.importorskip("matplotlib")

import rich.console
from PySide6.QtCore import Qt
from PySide6.QtGui import QImage
from PySide6.QtTest import QTest

from rheobase.devices.record import Record
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.cli import main
from rheobase.stream.graph import parse
from rheobase.stream.run import run
from rheobase.tools.look import fitting, recorded
from rheobase.tools.run_page import COLUMNS, course, run_page

QUIET = rich.console.Console(quiet=True)
GRAPH = """
name: lab
nodes:
  raw:   {{type: replay, file: {0}/x.csv, rate: 100, channels: [a, b], unit: V}}
  slow:  {{type: pick, in: raw, channels: [a, b]}}
  more:  {{type: pick, in: raw, channels: [a, b]}}
  view:  {{type: view, in: [raw, slow, more], panels: {{f: {{kind: spectrum, of: raw}}, g: {{kind: compare, of: [more,
          raw]}}, h: health}}, layout: [[raw, f], [slow, more, g]], span: 5}}
  rec:   {{type: record, in: [raw, slow]}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 20 s; a window saw three streams, two of which were recorded."""
    home = tmp_path_factory.mktemp("run")
    t = np.arange(2000) / 100
    np.savetxt(home / "x.csv", np.column_stack([np.sin(t), np.where(t < 10, 0, 1)]), delimiter=",")
    run(parse(GRAPH.format(home)), home / "run")
    return home / "run"


def test_a_run_is_shown_as_its_graph_says(folder: Path) -> None:
    """But for what was not recorded."""
    v = recorded(folder, (), {}, None, False)
    assert v.inputs == ("raw", "slow") and v.span == 5
    assert [[x.name for x in c] for c in v.columns] == [["raw", "f"], ["slow"]]
    assert v.recording.at - v.recording.begin == 5.0  # its first seconds
    assert v.feeds[0].health()["age p50"] == "recorded"


def test_any_time_of_a_recording_is_put_before_the_panels(folder: Path) -> None:
    v = recorded(folder, ["raw"], {"raw": "traces"}, 12.0, False)
    r, feed = v.recording, v.feeds[0]
    whole = np.loadtxt(folder.parent / "x.csv", delimiter=",").astype(np.float32)
    times, x = feed.samples_between(-np.inf, np.inf)
    assert len(x) >= 600 and times[-1] == pytest.approx(r.begin + 12.0)
    np.testing.assert_array_equal(x, whole[1200 - len(x) + 1 : 1201])
    r.seek(r.begin + 3.0)  # back
    times, x = feed.samples_between(-np.inf, np.inf)
    np.testing.assert_array_equal(x, whole[:301])
    r.playing, r.ticked = True, r.ticked - 2.0  # two seconds go by
    r.tick()
    times, x = feed.samples_between(-np.inf, np.inf)
    assert r.at == pytest.approx(r.begin + 5.0, abs=0.5)
    np.testing.assert_array_equal(x, whole[: len(x)])
    assert feed.drops == 0
    r.ticked -= 100.0
    r.tick()
    assert r.at == r.end and not r.playing
    assert feed.newest == r.end


def test_a_recording_is_driven_by_keys_and_the_slider(folder: Path) -> None:
    v = recorded(folder, ["raw"], {}, 4.0, False)
    w = v.window()
    w.show()
    r = v.recording
    QTest.keyClick(w, Qt.Key.Key_Right)
    assert r.at == pytest.approx(r.begin + 4 + 5 / 4)
    QTest.keyClick(w, Qt.Key.Key_Space)
    assert r.playing
    QTest.keyClick(w, Qt.Key.Key_Space)
    assert not r.playing
    QTest.keyClick(w, Qt.Key.Key_End)
    assert r.at == r.end
    w.slider.sliderMoved.emit(500)
    assert r.at == pytest.approx((r.begin + r.end) / 2)
    w.paint()
    assert w.look.right == pytest.approx(r.at, abs=0.02)
    assert "paused, 10.0 of 20.0 s" in w.status.text()
    QTest.keyClick(w, Qt.Key.Key_Down)
    assert r.back == w.look.span == 7.5
    w.close()


def test_segments_and_clock_resets_of_a_recording(tmp_path: Path) -> None:
    rec = Record.make(file=str(tmp_path / "r.xdf"))
    rec.inputs = ("x", "words")
    rec.start(Spec(rate=100, channels=("a",)), Spec(rate=0, channels=("w",), dtype="str"))
    t = 50 + np.arange(300) / 100
    rec.take(0, Block(np.ones((300, 1)), t, 0, 0))
    rec.take(0, Block(2 * np.ones((300, 1)), t - 20, 300, 1))  # the clock was set back
    rec.take(1, Block(np.array([["hello"]], object), np.array([51.0])))
    rec.stop()
    v = recorded(tmp_path / "r.xdf", (), {}, None, True)
    assert v.feeds[0].segment == 1 and v.feeds[0].samples == 600
    assert list(v.feeds[1].words) == [(51.0, "hello")]
    w = v.window()
    w.paint()
    w.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "no LSL stream with name 'nowhere'"),
        (["x.xdf"], "x.xdf"),
        (["{run}", "row"], "no stream 'row'; did you mean 'raw'"),
        (["{run}", "--panel", "raw"], "write INPUT=KIND"),
        (["{run}", "--panel", "raw=spectrun", "--picture", "p.png"], "did you mean 'spectrum'"),
        (["{run}", "--size", "big"], "write WIDTHxHEIGHT"),
        (["{run}"], "no screen to open a window on"),
    ],
)
def test_says_what_cannot_be_looked_at(
    words: list[str], says: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rheobase.tools.look.FIND", 0.3)
    assert main(["view", *(w.format(run=folder) for w in words)]) == 1
    assert re.search(says, capsys.readouterr().err)


def test_a_picture_of_a_recording(folder: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    assert main(["view", str(folder), "--picture", str(one), "--at", "4", "--theme", "light"]) == 0
    more = ["--panel", "raw=numbers", "--size", "1920x1080"]
    assert main(["view", str(folder / "recording.xdf"), "raw", "--picture", str(two), *more]) == 0
    for path, size in ((one, (1280, 720)), (two, (1920, 1080))):
        assert (QImage(str(path)).width(), QImage(str(path)).height()) == size
    assert one.read_bytes() != two.read_bytes()


def test_a_table_without_times_or_names(tmp_path: Path) -> None:
    """Its rate, or which column holds the times, is said beside it; it is called by its file."""
    table = tmp_path / "probe.csv"
    table.write_text("".join(f"{k / 50},{k % 7},{k % 5}\n" for k in range(500)))
    with pytest.raises(StreamError, match="has no times: give its rate"):
        recorded(table, (), {}, None, True)
    v = recorded(table, (), {}, None, True, {"times": "0"})
    assert v.inputs == ("probe",) and v.feeds[0].spec.n == 2 and v.feeds[0].spec.rate == pytest.approx(50)
    v = recorded(table, (), {}, None, True, {"rate": 10.0})
    assert v.feeds[0].spec.n == 3 and v.recording.end - v.recording.begin == pytest.approx(50, abs=0.2)


def test_what_of_a_config_fits() -> None:
    given = {"panels": {"a": "image", "b": "image", "c": {"kind": "compare", "of": ["a", "b"]}, "h": "health"},
             "layout": ["b", ["a", "c", "h"]], "span": 3}  # fmt: skip
    assert fitting(given, ["a"]) == {"panels": {"a": "image", "h": "health"}, "layout": [["a", "h"]], "span": 3}


RUNNING = """
name: running
nodes:
  src: {{type: signal, rate: 200, channels: 4, seconds: 15}}
  out: {{type: lsl_out, in: src, stream: {0}}}
"""


@pytest.mark.slow
def test_two_windows_come_and_go_while_a_graph_runs(tmp_path: Path) -> None:
    """Attached by LSL to a graph that knows nothing of them, each in a process of its own; it goes on without them."""
    stream = f"Attach{os.getpid()}"
    done: list[Any] = []
    runs = threading.Thread(
        target=lambda: done.append(run(parse(RUNNING.format(stream)), tmp_path / "run")), daemon=True
    )
    runs.start()
    pictures = [tmp_path / "one.png", tmp_path / "two.png"]
    command = [sys.executable, "-m", "rheobase.stream", "view", stream, "--picture"]
    windows = [subprocess.Popen([*command, str(p)], cwd=tmp_path) for p in pictures]
    assert [w.wait(60) for w in windows] == [0, 0]
    assert all(p.stat().st_size > 1000 for p in pictures)
    runs.join(30.0)
    assert done and done[0].ok and done[0].samples["src"] == 3000


def test_the_report_of_a_run(folder: Path, tmp_path: Path) -> None:
    from test_page import Parsed

    path = tmp_path / "page.html"
    assert main(["report", str(folder), "--out", str(path)]) == 0
    found = Parsed(path)
    found.check()  # nothing in it is loaded from elsewhere
    assert found.heads == ["Window at the end", "Streams", "Config", "Versions"]
    assert found.row("raw")[1:9] == ["2,000", "100", "100.000", "2", "V", "0.00", "19.99", "1"]
    assert found.tags.count("img") == 1 and found.tags.count("svg") == 2
    assert any("type: spectrum" in t or "kind: spectrum" in t for t in found.texts)


def test_the_report_of_marks_and_losses(tmp_path: Path) -> None:
    from test_page import Parsed

    np.savetxt(tmp_path / "x.csv", np.zeros((50, 12)), delimiter=",")
    text = f"""
name: lab
nodes:
  raw:   {{type: replay, file: {tmp_path}/x.csv, rate: 100}}
  rec:   {{type: record, in: [raw], process: b}}
"""
    run(parse(text), tmp_path / "run")
    (tmp_path / "run" / "recording.xdf").unlink()
    rec = Record.make(file=str(tmp_path / "run" / "recording.xdf"))
    rec.inputs = ("raw", "marks")
    rec.start(Spec(rate=100, channels=tuple("abcdefghijkl")), Spec(rate=0, channels=("w",), dtype="str"))
    x = np.random.default_rng(0).standard_normal((5000, 12))
    x[7] = np.nan
    for a in range(0, 5000, 700):
        rec.take(0, Block(x[a : a + 700], 10 + np.arange(a, min(a + 700, 5000)) / 100, a))
    words = np.array([[f"<b>word {k}</b>"] for k in range(100)], object)
    rec.take(1, Block(words, 10.5 + np.arange(100.0) / 4))
    rec.stop()
    found = Parsed(run_page(tmp_path / "run"))
    found.check()
    assert found.row("raw")[1] == "5,000" and found.row("raw")[-1] == "1"
    assert found.row("<b>word 0</b>")[1] == "0.500"
    assert "40 between them are left out" in found.raw and "<b>word" not in found.raw
    assert found.row("raw -> rec")[2:4] == ["50", "50"]
    assert json.loads((tmp_path / "run" / "tables.json").read_text())["ok"]


def test_a_report_without_a_recording(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "x.csv", np.zeros((50, 2)), delimiter=",")
    text = f"name: lab\nnodes:\n  raw: {{type: replay, file: {tmp_path}/x.csv, rate: 100}}\n"
    run(parse(text), tmp_path / "run")
    assert "no record node" in run_page(tmp_path / "run").read_text()
    with pytest.raises(StreamError, match="not a run directory"):
        run_page(tmp_path)


def test_every_column_of_a_course_is_the_lowest_and_highest(tmp_path: Path) -> None:
    n = 3 * COLUMNS + 100
    x = np.random.default_rng(1).standard_normal((n, 2))
    x[5, 0] = np.nan
    rec = Record.make(file=str(tmp_path / "r.xdf"))
    rec.inputs = ("x",)
    rec.start(Spec(rate=10, channels=("a", "b")))
    for a in range(0, n, 333):
        rec.take(0, Block(x[a : a + 333], np.arange(a, min(a + 333, n)) / 10, a))
    rec.stop()
    found = course(str(tmp_path / "r.xdf"), "x")
    starts = np.arange(0, n, -(-n // COLUMNS))
    np.testing.assert_array_equal(found.low, np.fmin.reduceat(x, starts))
    np.testing.assert_array_equal(found.high, np.fmax.reduceat(x, starts))
    np.testing.assert_array_equal(found.times, starts / 10)
    assert (found.samples, found.missing) == (n, 1)
