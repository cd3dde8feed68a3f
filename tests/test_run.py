"""Real processes: the barrier, what they count, and every way to end."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
import yaml
from parts import Fail, Keep, Late, Ramp, Recorded, Square

from rheobase.stream.block import Spec, StreamError
from rheobase.stream.child import _engine
from rheobase.stream.graph import Graph, from_dict, parse
from rheobase.stream.parent import far_edges
from rheobase.stream.pulse import Pulse
from rheobase.stream.report import Report, Status
from rheobase.stream.run import new_folder, run

TESTS = Path(__file__).parent


def graph_of(text: str) -> Graph:
    return parse("name: t\nnodes:\n" + text)


THREE = """
  src:  {{type: "parts:Ramp", n: {n}, process: acquire}}
  two:  {{type: {middle}, in: src}}
  keep: {{type: "parts:Keep", in: [src, two], process: sink}}
"""


def test_three_processes_lose_nothing_and_say_so(tmp_path: Path) -> None:
    report = run(graph_of(THREE.format(n=800, middle="parts:Square")), tmp_path)
    assert report.ok
    assert report.samples == {"src": 800, "two": 800, "keep": 1600}
    assert [(r["sent"], r["received"], r["dropped"], r["lost"]) for r in report.losses()] == [(800, 800, 0, 0)] * 3
    assert report.ages["keep"]["n"] == 1600
    assert 0 < report.ages["keep"]["p50"] <= report.ages["keep"]["p99"] <= report.ages["keep"]["max"]
    k = np.arange(800.0)
    assert np.loadtxt(tmp_path / "keep.txt").sum() == k.sum() + (k**2).sum()
    said = json.loads((tmp_path / "tables.json").read_text())
    assert said["ok"] is True
    assert said["losses"] == report.losses()
    assert "keep" in (tmp_path / "tables.txt").read_text()
    assert {"config.yaml", "versions.json", "log.txt"} <= {f.name for f in tmp_path.iterdir()}
    again = from_dict(yaml.safe_load((tmp_path / "config.yaml").read_text()))
    assert list(again) == ["src", "two", "keep"]


def test_one_process_opens_no_socket_and_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    import zmq

    monkeypatch.setattr(zmq.Context, "socket", lambda *_: pytest.fail("a socket was opened"))
    got = []
    graph = graph_of('  src: {type: "parts:Recorded", n: 50}\n  two: {type: "parts:Square", in: src}')
    report = run(graph, taps={"two": got.append})
    assert report.samples == {"src": 50, "two": 50}
    assert sum(len(b) for b in got) == 50
    assert report.losses() == []


def test_seconds_end_a_run_and_nothing_on_its_way_is_lost(tmp_path: Path) -> None:
    report = run(graph_of(THREE.format(n=100000, middle="parts:Square")), tmp_path, seconds=0.7)
    assert report.ok
    assert 400 < report.samples["src"] < 1500
    assert report.samples["two"] == report.samples["src"]


def test_a_slow_reader_on_drop_oldest_holds_up_nobody(tmp_path: Path) -> None:
    report = run(
        graph_of(
            '  src: {type: "parts:Ramp", n: 1000, rate: 2000, process: acquire}\n'
            '  slow: {type: "parts:Keep", in: {from: src, policy: {drop_oldest: 5}}, slow: 0.02, process: view}\n'
            '  all: {type: "parts:Keep", in: src, process: sink}\n'
        ),
        tmp_path,
    )
    slow, whole = report.losses()
    assert report.ok, "drops on such an edge are counted, and are no failure"
    assert whole["received"] == 1000
    assert slow["dropped"] > 0
    assert slow["received"] + slow["dropped"] + slow["lost"] == 1000


@pytest.mark.parametrize(
    ("middle", "says"),
    [
        ('"parts:Fail", at: 50', r"node 'two' \(parts:Fail\): ValueError: on purpose"),
        ('"parts:Stop", at: 50', r"process 'main' died: signal SIGKILL"),
    ],
)
def test_a_node_that_fails_or_dies_is_named_and_ends_the_run(tmp_path: Path, middle: str, says: str) -> None:
    begin = time.monotonic()
    with pytest.raises(StreamError, match=says):
        run(graph_of(THREE.format(n=1000000, middle=middle)), tmp_path)
    assert time.monotonic() - begin < 60
    got = np.loadtxt(tmp_path / "keep.txt")
    assert len(got) > 50, "the sink that lived kept what it had got"
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert tables["samples"]["src"] > 50
    assert not alive(tmp_path)


def test_a_hang_is_ended_by_force_and_named(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"process 'main' did not stop within 5 s and was killed"):
        run(graph_of(THREE.format(n=1000000, middle='"parts:Stop", at: 50, hang: true')), tmp_path, seconds=1.0)
    assert not alive(tmp_path)


def test_a_death_is_seen_within_100_ms(tmp_path: Path) -> None:
    """The source kills itself at a known moment; the run names it soon after. Only that it is soon is asserted
    (the machine may be busy); the moment itself is in the message of the failure."""
    graph = graph_of(
        '  src: {type: "parts:Ramp", n: 100000, die: 300, process: acquire}\n'
        '  keep: {type: "parts:Keep", in: src, process: sink}\n'
    )
    with pytest.raises(StreamError, match=r"process 'acquire' died: signal SIGKILL"):
        run(graph, tmp_path)
    assert len(np.loadtxt(tmp_path / "keep.txt")) >= 250
    assert not alive(tmp_path)


@pytest.mark.parametrize("edge", ["edge: shm", "edge: zmq", "policy: latest"])
def test_who_reads_two_edges_of_the_dead_ends_with_them(tmp_path: Path, edge: str) -> None:
    """Nothing comes on either any more, and no end."""
    both = f"[{{from: src, {edge}}}, {{from: two, {edge}}}]"
    graph = graph_of(
        '  src: {type: "parts:Ramp", n: 100000, die: 300, process: acquire}\n'
        '  two: {type: "parts:Square", in: src, process: acquire}\n'
        f'  keep: {{type: "parts:Keep", in: {both}, process: sink}}\n'
    )
    with pytest.raises(StreamError) as failed:
        run(graph, tmp_path)
    assert "process 'acquire' died: signal SIGKILL" in str(failed.value)
    assert "did not stop" not in str(failed.value)


def alive(folder: Path) -> list[str]:
    """Command lines of children that were given this folder and still run."""
    found = []
    for p in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"RHEO_TEST={folder}".encode() in p.read_bytes():
                found.append(p.parent.name)
        except OSError:
            continue
    return found


def command(folder: Path, text: str, *more: str, **env: str) -> subprocess.Popen[str]:
    (folder / "g.yaml").write_text("name: t\nnodes:\n" + text)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "rheobase.stream",
            "run",
            str(folder / "g.yaml"),
            "--folder",
            str(folder / "run"),
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TESTS,
        env={**os.environ, "RHEO_TEST": str(folder), "PYTHONPATH": str(TESTS), **env},
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        if path.exists() or process.poll() is not None:
            return
        time.sleep(0.05)
    pytest.fail(f"{path} did not come")


def test_ctrl_c_stops_in_good_order(tmp_path: Path) -> None:
    """As a terminal does it: the signal goes to the whole group."""
    process = command(tmp_path, THREE.format(n=1000000, middle="parts:Square"))
    wait_for(tmp_path / "run" / "log.txt", process)
    time.sleep(4)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "samples" in out
    tables = json.loads((tmp_path / "run" / "tables.json").read_text())
    assert tables["ok"]
    assert tables["samples"]["src"] > 0
    assert not alive(tmp_path)


ONE = """
  src:  {{type: "parts:Ramp", n: {n}}}
  two:  {{type: {middle}, in: src}}
  keep: {{type: "parts:Keep", in: [src, two]}}
"""


@pytest.mark.parametrize("text", [ONE, THREE])
def test_a_closed_terminal_stops_in_good_order(tmp_path: Path, text: str) -> None:
    """It says so more than once."""
    process = command(tmp_path, text.format(n=1000000, middle="parts:Square"))
    wait_for(tmp_path / "run" / "live.json", process)
    time.sleep(4)
    for _ in range(3):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    process.communicate(timeout=30)
    tables = json.loads((tmp_path / "run" / "tables.json").read_text())
    assert tables["ok"]
    assert len(np.loadtxt(tmp_path / "run" / "keep.txt")) == tables["samples"]["keep"] > 0


def test_a_hang_of_the_only_process_is_named_when_it_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheobase.stream.run.GRACE", 0.5)
    begin = time.monotonic()
    graph = graph_of(ONE.format(n=100000, middle='"parts:Slow", at: 100, late: 30'))
    with pytest.raises(StreamError, match=r"'main' did not stop within 0.5 s: node 'two' has had sample 100"):
        run(graph, seconds=1.0)
    assert time.monotonic() - begin < 20


def test_a_node_that_does_not_start_leaves_nothing_open() -> None:
    class Never(Keep):
        def start(self, *inputs: Spec) -> None:
            raise StreamError("on purpose")

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{s.getsockname()[1]}"
    src = '  src: {type: "parts:Recorded", n: 50}\n'
    out = f'{src}  out: {{type: zmq_out, in: src, address: "{address}", safe: -1}}\n'
    with pytest.raises(StreamError, match="on purpose"):
        run(graph_of(out).add("never", Never(), "src"))
    assert run(graph_of(out)).samples["out"] == 50


class Waits(Late):
    """May look for its stream for so long."""

    wait: float = 0.0
    """s."""


@pytest.mark.parametrize("wait", [0, 60])
def test_a_start_may_take_as_long_as_a_source_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    monkeypatch.setattr("rheobase.stream.parent.START", 1.0)
    text = f'  src: {{type: "test_run:Waits", late: 4, n: 20, wait: {wait}, process: acquire}}\n'
    graph = graph_of(text + '  k: {type: "parts:Keep", in: src}')
    if wait:
        assert run(graph, tmp_path).samples["k"] == 20
        return
    with pytest.raises(StreamError, match=r"not ready after 1 s: process acquire$"):
        run(graph, tmp_path)


def test_who_reads_waits_as_long_as_a_source_does(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '  src: {type: "parts:Ramp", process: acquire}\n  k: {type: "parts:Keep", in: src}'
    order = {"process": "main", "pulse": os.devnull, "wait": 0.4, "specs": {}, "config": graph_of(text).to_dict()}
    monkeypatch.setattr("rheobase.stream.child.Pulse", lambda *_: Pulse(None, 1))
    monkeypatch.setattr("rheobase.stream.engine.START", 0.1)
    edges = [e | {"at": e["address"], "ring": False} for e in far_edges(graph_of(text), "ipc://nobody/")]
    engine = _engine(order | {"edges": edges, "folder": None, "speed": 0.0, "options": {}, "attempt": 0}, print)
    with pytest.raises(StreamError, match=r"nothing came on .* within 0.4 s"):
        engine.start()


@pytest.mark.parametrize("quick", [1, 2, 3])
def test_no_folder_is_left_however_often_it_is_interrupted(tmp_path: Path, quick: int) -> None:
    (tmp_path / "tmp").mkdir()
    process = command(tmp_path, THREE.format(n=1000000, middle="parts:Square"), TMPDIR=str(tmp_path / "tmp"))
    wait_for(tmp_path / "run" / "log.txt", process)
    assert list((tmp_path / "tmp").glob("rheo-*"))
    time.sleep(3)
    for _ in range(quick):
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)
    process.communicate(timeout=30)
    assert not list((tmp_path / "tmp").glob("rheo-*"))


def test_a_class_of_the_program_itself_cannot_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waits, "__module__", "__main__")
    graph = Graph().add("src", Waits(), process="other").add("keep", Keep(), "src")
    with pytest.raises(StreamError, match=r"node 'src': class 'Waits' .* 'other' .* put it in a module of its own"):
        run(graph, tmp_path)


def test_the_children_end_with_their_parent(tmp_path: Path) -> None:
    process = command(tmp_path, THREE.format(n=1000000, middle="parts:Square"))
    wait_for(tmp_path / "run" / "log.txt", process)
    time.sleep(3)
    assert len(alive(tmp_path)) == 4
    process.kill()
    process.communicate()
    for _ in range(100):
        if not alive(tmp_path):
            break
        time.sleep(0.1)
    assert not alive(tmp_path)


def test_a_node_that_only_this_program_knows_cannot_move(tmp_path: Path) -> None:
    from parts import Keep, Ramp

    class Here(Ramp):
        """A class that no other process can import."""

    graph = Graph().add("src", Here(), process="other").add("keep", Keep(), "src")
    with pytest.raises(StreamError, match=r"no class .*Here"):
        run(graph, tmp_path)


def test_a_sink_that_is_behind_is_waited_for_while_it_gets_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheobase.stream.parent.GRACE", 2.0)
    text = '  src: {type: "parts:Ramp", n: 100000, process: acquire}\n  k: {type: "parts:Keep", in: src, slow: 0.005}'
    report = run(graph_of(text), tmp_path, seconds=1.2)
    assert report.ok
    assert report.samples["k"] == report.samples["src"] > 500


@pytest.mark.parametrize(("one", "other"), [("a", "b"), ("a", "main"), ("main", "b")])
def test_recorded_inputs_from_several_processes_meet_by_time(tmp_path: Path, one: str, other: str) -> None:
    """As fast as it goes one is far ahead of the other, by chance."""
    report = run(
        graph_of(
            f'  fast: {{type: "parts:Recorded", n: 100000, block: 500, process: {one}}}\n'
            f'  slow: {{type: "parts:Recorded", n: 2000, rate: 20, c: 1, process: {other}}}\n'
            "  both: {type: merge, in: [slow, fast]}\n"
            "  pick: {type: pick, in: both, channels: [fast.c0]}\n"
            '  keep: {type: "parts:Keep", in: pick}\n'
        ),
        tmp_path,
    )
    assert report.ok
    assert not report.health
    assert np.array_equal(np.loadtxt(tmp_path / "keep.txt"), np.arange(2000) * 50)


def test_what_was_missing_before_an_edge_was_not_lost_on_it(tmp_path: Path) -> None:
    text = '  src: {type: "parts:Gaps", n: 400, process: acquire}\n  k: {type: "parts:Keep", in: src}'
    report = run(graph_of(text), tmp_path)
    assert report.ok
    assert [(r["sent"], r["received"], r["dropped"], r["gaps"], r["lost"]) for r in report.losses()] == [
        (400, 400, 0, 1, 0)
    ]


def test_what_a_node_prints_is_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    text = '  src: {type: "parts:Ramp", n: 20, process: acquire}\n  k: {type: "parts:Say", in: src}'
    assert run(graph_of(text), tmp_path).ok
    assert (tmp_path / "log.txt").read_text().split() == [w for k in range(20) for w in ("took", str(k))]


@pytest.mark.parametrize("where", ["", ", process: acquire"])
def test_ctrl_c_ends_a_start_that_takes_long(tmp_path: Path, where: str) -> None:
    process = command(tmp_path, f'  src: {{type: "parts:Late", late: 60{where}}}\n  k: {{type: "parts:Keep", in: src}}')
    wait_for(tmp_path / "run" / "starting", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert not alive(tmp_path)


def test_a_window_that_breaks_is_named_and_the_run_is_closed() -> None:
    class Window(Keep):
        def loop(self, stopped: Callable[[], bool]) -> bool:
            raise RuntimeError("on purpose")

        def stop(self) -> None:
            self.closed = True

    window = Window()
    graph = Graph().add("src", Ramp(n=100000)).add("w", window, "src")
    with pytest.raises(StreamError, match=r"node 'w' .*: RuntimeError: on purpose"):
        run(graph)
    assert window.closed


def test_a_full_disk_does_not_hide_what_went_wrong_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Report, "write", full)
    graph = Graph().add("src", Recorded(n=200)).add("bad", Fail(), "src")
    with pytest.raises(StreamError, match="node 'bad'"):
        run(graph, tmp_path)
    graph = Graph().add("src", Recorded(n=20)).add("sq", Square(), "src")
    with pytest.raises(StreamError, match=f"{tmp_path}: No space left on device"):
        run(graph, tmp_path)


def test_the_status_line_ends_and_not_the_run_when_nobody_reads_it() -> None:
    read, write = os.pipe()
    os.close(read)
    report = Report(Graph())
    report.update("main", {"nodes": {}})
    with open(write, "w", buffering=1, closefd=False) as file:
        line = Status(report, shown=True)
        line.console, line.every = rich.console.Console(file=file), 0.0
        line.show()
        os.dup2(os.open(os.devnull, os.O_WRONLY), write)
    os.close(write)
    assert not line.shown


def test_run_can_be_called_from_a_thread() -> None:
    reports = []
    graph = graph_of('  src: {type: "parts:Recorded", n: 50}\n  two: {type: "parts:Square", in: src}')
    thread = threading.Thread(target=lambda: reports.append(run(graph)))
    thread.start()
    thread.join(30)
    assert reports[0].samples["two"] == 50


def test_folders_do_not_meet(tmp_path: Path) -> None:
    made = [new_folder("a", tmp_path / "runs") for _ in range(3)]
    assert len({*made}) == 3
    assert all(f.is_dir() for f in made)
