"""A run as others see it while it runs: `rheo top`, `rheo graph --live`, `--metrics`; and one that was killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rheobase.stream import live, metrics
from rheobase.stream.block import StreamError
from rheobase.stream.cli import main
from rheobase.stream.graph import parse
from rheobase.stream.live import Live, Seen
from rheobase.stream.report import Report
from rheobase.stream.run import run

GRAPH = """
name: seen
nodes:
  src:  {type: "parts:Ramp", n: 100000, process: acquire}
  lp:   {type: lowpass, in: src, corner: 40}
  b:    {type: bins, in: lp, width: 0.02}
  keep: {type: "parts:Keep", in: b}
  slow: {type: "parts:Keep", in: {from: src, policy: "drop_oldest: 10"}, slow: 0.004, process: slow}
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def wait(done: Callable[[], Any], seconds: float = 180) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()) and time.monotonic() < end:
        time.sleep(0.05)
    assert found
    return found


def goes(folder: Path, n: int = 500) -> dict[str, Any] | None:
    """What it is at, once it goes."""
    try:
        said = live.read(folder)
    except StreamError:
        return None
    return said if said["nodes"].get("keep", {}).get("rate") and (said["nodes"]["src"]["samples"] or 0) > n else None


@pytest.fixture(scope="module")
def going(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A run in a process of its own, and the port of its metrics."""
    here = tmp_path_factory.mktemp("seen")
    (here / "g.yaml").write_text(GRAPH)
    port, folder = free_port(), here / "runs" / "one"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-m", "rheobase.stream", "run", "g.yaml", "--folder", str(folder), "--metrics", str(port)]
    with open(here / "said.txt", "w") as out:
        process = subprocess.Popen(words, cwd=here, env=env, stdout=out, stderr=out)
    try:
        wait(lambda: process.poll() is not None or goes(folder))
        assert process.poll() is None, (here / "said.txt").read_text()
        yield folder, port
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert not list(folder.glob("live*")), "nothing of it is live any more"
        with pytest.raises(StreamError, match="one: runs no more"):
            live.read(folder)
    finally:
        process.kill()
        process.wait()


def test_what_it_is_at_is_what_is_there(going: tuple[Path, int]) -> None:
    said = live.read(going[0])
    nodes = said["nodes"]
    assert nodes["lp"]["samples"] is None, "what never leaves a compiled loop is not counted, and not said to be 0"
    assert nodes["keep"]["samples"] > 0
    assert nodes["slow"]["busy"] > nodes["keep"]["busy"], "4 ms a block against none"
    assert nodes["src"]["busy"] is None, "a source has no block: it waits"
    edges = {(e["from"], e["to"]): e for e in said["edges"]}
    assert edges.keys() == {("src", "lp"), ("lp", "b"), ("b", "keep"), ("src", "slow")}
    assert edges["src", "slow"]["policy"] == "drop_oldest"
    assert edges["src", "lp"] | {"rate": 0, "samples": 0, "depth": 0} == {
        "from": "src", "to": "lp", "policy": "block", "age": None, "rate": 0, "samples": 0, "lost": 0, "dropped": 0,
        "depth": 0,
    }  # fmt: skip
    assert 0 < edges["b", "keep"]["age"]["p50"] <= edges["b", "keep"]["age"]["p99"]
    assert edges["b", "keep"]["depth"] is None, "a call holds nothing"
    assert said["processes"].keys() == {"acquire", "main", "slow"}
    for p in said["processes"].values():
        assert p["state"] == "running"
        assert b"stream.child" in Path(f"/proc/{p['pid']}/cmdline").read_bytes()
        assert p["rss"] > 1 << 20


def test_rates_are_those_of_the_clock(going: tuple[Path, int]) -> None:
    """Samples between two of them, over the time between them, are what the second says of the last second."""
    a = live.read(going[0])
    b = wait(lambda: c if (c := live.read(going[0]))["clock"] > a["clock"] + 0.5 else None)
    edge = [next(e for e in said["edges"] if e["to"] == "lp") for said in (a, b)]
    if b["clock"] < a["clock"] + 1.5:  # none between them was missed
        measured = (edge[1]["samples"] - edge[0]["samples"]) / (b["clock"] - a["clock"])
        assert edge[1]["rate"] == pytest.approx(measured, rel=1e-6)


def test_top_prints_it_once_into_a_pipe(
    going: tuple[Path, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(going[0].parent.parent)
    for words in (["top", str(going[0])], ["top", str(going[0]), "--once"], ["top"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert re.search(r"^seen: \d+ s in .*one", out)
        assert re.search(r"^src -> slow +drop_oldest +\d+", out, re.M)
        assert re.search(r"^b -> keep +a call +\d+", out, re.M)
        assert re.search(r"^acquire +\d+ +running +[\d.]+ +[\d.]+$", out, re.M)


def test_graph_live_has_them_on_its_edges(
    going: tuple[Path, int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(going[0].parent.parent)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name in (str(going[0]), "g.yaml"):
        assert main(["graph", name, "--live"]) == 0
        out = capsys.readouterr().out
        assert re.search(r'  src -\. "block<br/>[\d.]+/s, lost 0" \.-> lp\n', out)
        assert re.search(r'  b -- "[\d.]+/s, age [\d.]+, p99 [\d.]+ ms" --> keep\n', out)
        assert "\n  lp --> b\n" in out
    Path("other.yaml").write_text(GRAPH.replace("name: seen", "name: other"))
    assert main(["graph", "other.yaml", "--live"]) == 1
    assert "no run of 'other' is running in runs: start one with `rheo run`" in capsys.readouterr().err


def test_metrics_are_in_the_text_format(going: tuple[Path, int]) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{going[1]}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = answer.read().decode().splitlines()
    name = ""
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split()[2]
        elif line.startswith("# TYPE "):
            assert line.split()[2:] in ([name, "counter"], [name, "gauge"])
            assert name.endswith("_total") == line.endswith("counter")
        else:
            found = re.fullmatch(r'(\w+)\{(\w+="[^"]*"(?:,\w+="[^"]*")*)\} (\S+)', line)
            assert found and found[1] == name, line
            assert float(found[3]) >= 0
    assert any(re.match(r'rheobase_edge_lost_samples_total\{graph="seen",from="src",to="lp"\} 0$', x) for x in lines)
    asked = http.client.HTTPConnection("127.0.0.1", going[1], timeout=10)
    asked.request("GET", "/other")
    assert asked.getresponse().status == 404


def test_who_asks_for_nothing_is_not_waited_for(going: tuple[Path, int]) -> None:
    with socket.create_connection(("127.0.0.1", going[1])) as silent:
        silent.sendall(b"GET /met")
        with urllib.request.urlopen(f"http://127.0.0.1:{going[1]}/metrics", timeout=10) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("where", ["0.0.0.0:9100", "192.168.1.4:9100", "example.org:9100", "[::]:9100"])
def test_metrics_are_for_this_machine_only(where: str) -> None:
    with pytest.raises(StreamError, match=rf"--metrics {re.escape(where)}: .* is not this machine's own"):
        metrics.address(where)


@pytest.mark.parametrize("where", ["", "x", "0", "70000", "127.0.0.1:", "-1"])
def test_a_port_is_a_number(where: str) -> None:
    with pytest.raises(StreamError, match="write a port from 1 to 65535"):
        metrics.address(where)


def test_where_metrics_may_be() -> None:
    assert metrics.address("9100") == ("127.0.0.1", 9100)
    assert metrics.address("localhost:9100") == ("127.0.0.1", 9100)
    assert metrics.address("[::1]:9100") == ("::1", 9100)


def test_a_port_that_is_taken_is_said_before_a_device_opens(tmp_path: Path) -> None:
    graph = parse('nodes: {src: {type: "parts:Late", late: 0.01, n: 10}, k: {type: "parts:Keep", in: src}}')
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        with pytest.raises(StreamError, match=f"--metrics {port}: cannot listen on 127.0.0.1 port {port}: Address"):
            run(graph, tmp_path / "run", metrics=str(port))
    assert not (tmp_path / "run" / "starting").exists()


def test_labels_are_escaped() -> None:
    said = {"graph": 'a"b\\c\nd', "processes": {"main": {"state": "running", "cpu": None, "rss": 5}}}
    text = metrics.text(said)
    assert 'rheobase_process_up{graph="a\\"b\\\\c\\nd",process="main"} 1\n' in text
    assert "rheobase_process_cpu_ratio{" not in text, "what is not known is not said"


def test_a_run_of_one_process_is_seen_from_its_start(tmp_path: Path) -> None:
    graph = parse('name: t\nnodes: {src: {type: "parts:Late", late: 2, n: 3000}, keep: {type: "parts:Keep", in: src}}')
    folder = tmp_path / "run"
    thread = threading.Thread(target=run, args=(graph, folder))
    thread.start()
    said = wait(lambda: (folder / "live.json").exists() and live.read(folder))
    assert said["processes"]["main"]["state"] == "starting"
    said = wait(lambda: goes(folder))
    assert said["processes"]["main"] | {"cpu": 0, "rss": 0} == {
        "pid": os.getpid(),
        "state": "running",
        "cpu": 0,
        "rss": 0,
    }
    assert said["nodes"]["keep"]["rate"] > 0
    assert said["nodes"]["keep"]["busy"] is None, "who looks is in this process, and would see itself wait"
    thread.join()
    assert not (folder / "live.json").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    Path("g.yaml").write_text(GRAPH)
    assert main(["top"]) == 1
    assert capsys.readouterr().err == (
        "rheo: no run is running in runs: start one with `rheo run`, or name its directory\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    words = [sys.executable, "-m", "rheobase.stream", "run", "g.yaml", "--folder", "runs/two"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = Path("runs/two")
    wait(lambda: goes(folder, 0))
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(live, "STALE", 1.5)
    wait(lambda: live.old(live.read(folder)))
    assert main(["top", "runs/two"]) == 0
    assert re.search(r"the run has said nothing for \d+ s", capsys.readouterr().out)
    process.kill()
    process.wait()
    assert main(["top", "runs/two"]) == 1
    assert re.search(rf"runs/two: was killed: its process {process.pid} is gone", capsys.readouterr().err)
    assert main(["top"]) == 1
    assert "no run is running in runs (runs/two: was killed" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "[" * 100000, '{"pid": 1, "began": 0, "time": 0}'])
def test_a_file_that_no_run_wrote_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "live.json").write_text(text)
    with pytest.raises(StreamError, match=r"live\.json: not written by a run"):
        live.read(tmp_path)


def test_a_disk_that_is_full_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = Report(parse('nodes: {a: {type: "parts:Recorded"}}'))
    seen = Live(report, tmp_path / "gone")
    for _ in range(3):
        seen._due = 0.0
        seen.look(lambda: {"main": Seen(os.getpid(), "running")})
        time.sleep(0.05)
    seen.close()
    assert seen.said["nodes"]["a"]["samples"] == 0
    assert caplog.text.count("live.json: No such file") == 1
    json.dumps(seen.said)


def test_an_end_that_comes_while_it_writes_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Live(Report(parse('nodes: {a: {type: "parts:Recorded"}}')), tmp_path)
    closing, clear, begun = threading.Thread(target=seen.close, daemon=True), seen._fresh.clear, threading.Event()

    def late() -> None:
        if not seen._ended.is_set():
            closing.start()
            begun.set()
            while not seen._ended.is_set():
                time.sleep(0.001)
            time.sleep(0.05)  # its word to the thread that writes comes next
        clear()

    monkeypatch.setattr(seen._fresh, "clear", late)
    seen.look(dict)
    assert begun.wait(5)
    closing.join(5)
    assert not closing.is_alive()
