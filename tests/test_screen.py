"""A window on a real X server, and what becomes of the graph where that dies."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("PySide6.QtWidgets")

from rheobase.devices.replay import Replay
from rheobase.devices.view import ASK, screen
from rheobase.stream.graph import Graph, parse
from rheobase.stream.options import SPARE

GRAPH = """
name: gone
nodes:
  src:   {type: signal, rate: 200, channels: 4, process: source}
  marks: {type: marks, process: view}
  out:   {type: record, in: [src, marks], process: record}
  view:  {type: view, in: [src, marks], picture: window.png, process: view}
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """An X server of its own, whose display is that of this process."""
    if not shutil.which("Xvfb"):
        pytest.skip("no Xvfb here (on Debian: apt-get install xvfb)")
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x800x24", "-noreset", "-nolisten", "tcp"]
    x = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    try:
        with os.fdopen(ours) as f:
            number = f.readline().strip()
        assert number, "Xvfb did not start"
        monkeypatch.setenv("DISPLAY", f":{number}")
        monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
        if not screen():
            pytest.skip("Qt opens no window on an X server here: README.md names the libraries")
        yield x
    finally:
        x.kill()
        x.wait()


@pytest.mark.slow
def test_the_graph_goes_on_when_the_screen_is_gone(
    server: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its window comes back off screen, for the picture at the end; nobody else notices."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    folder, log = tmp_path / "run", tmp_path / "run" / "log.txt"
    (tmp_path / "gone.yaml").write_text(GRAPH)
    command = [sys.executable, "-m", "rheobase.stream", "run", "gone.yaml", "--folder", str(folder)]
    graph = subprocess.Popen(command, cwd=tmp_path)
    try:
        wait(log.exists)
        (folder / ASK).touch()
        wait(lambda: not (folder / ASK).exists())  # a window is there, and hears
        server.kill()
        wait(lambda: "no window" in log.read_text())
        time.sleep(1.0)
    finally:
        graph.send_signal(signal.SIGINT)
        graph.wait(60.0)
    tables = json.loads((folder / "tables.json").read_text())
    [again] = tables["restarts"]
    assert again["process"] == "view"
    assert (folder / "window.png").stat().st_size > 1000
    [kept] = [e for e in tables["losses"] if e["edge"] == "src -> out"]
    assert kept["sent"] == kept["received"] > again["seq"] and kept["dropped"] == 0
    source = Replay(file=str(folder / "recording.xdf"), stream="src")
    source.start()
    assert sum(len(b) for b in source.blocks()) == kept["received"]


def wait(done: Callable[[], bool]) -> None:
    until = time.monotonic() + 90.0
    while not done():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_what_the_others_can_do_without() -> None:
    """A process of a window, of marks and of what hears nothing but these; not one that anything else hangs on."""
    given = """
name: t
nodes:
  src:   {type: signal, rate: 200, process: src}
  marks: {type: marks, process: view}
  out:   {type: lsl_out, in: marks, stream: M, process: view}
  view:  {type: view, in: [src, marks], process: view}
  rec:   {type: record, in: [src, marks], process: record}
"""
    assert parse(given).spare() == {"view"}
    assert parse(given.replace("in: [src, marks], process: record", "in: src, process: view")).spare() == set()
    assert Graph("empty").spare() == set()
    assert SPARE > 0
