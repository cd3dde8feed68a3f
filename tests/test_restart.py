"""Processes that die, hang and raise: named, started again from their checkpoint, and what is safe meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_outlet import Reader

from rheobase.stream import clock, live
from rheobase.stream.block import StreamError
from rheobase.stream.graph import Graph, parse
from rheobase.stream.report import Report
from rheobase.stream.run import run

GRAPH = """
name: t
processes: {{main: {options}}}
nodes:
  src:  {{type: "parts:Ramp", n: {n}, process: acquire}}
  n:    {{type: "parts:Count", in: src}}
  stop: {{type: "parts:Stop", in: n, at: 1500, {how}}}
  all:  {{type: "parts:Keep", in: src, process: sink}}
  keep: {{type: "parts:Keep", in: stop, process: sink}}
"""


either = pytest.mark.parametrize("edge", ["shm", "zmq"])


def graph(options: str, how: str, n: int = 6000, edge: str = "") -> Graph:
    text = GRAPH.format(options=options, how=how, n=n)
    for name in ("src", "stop") if edge else ():
        text = text.replace(f"in: {name}", f"in: {{from: {name}, edge: {edge}}}")
    return parse(text)


def rows(report: Report) -> dict[str, dict[str, Any]]:
    return {r["edge"]: r for r in report.losses()}


@pytest.mark.slow
@either
@pytest.mark.parametrize(
    ("how", "options", "why"),
    [
        ("attempts: 1", "{restart: 1}", r"process 'main' died: signal SIGKILL: node 'stop' has had sample 1500"),
        ("attempts: 1, fail: true", "{restart: 1}", r"node 'stop' \(parts:Stop\): ValueError: on purpose"),
        (
            "attempts: 1, hang: true",
            "{restart: 1, hang: 1}",
            r"process 'main' hangs since 1\.\d s: node 'stop' has had sample 1500",
        ),
    ],
)
def test_a_process_is_started_again_from_its_checkpoint(
    tmp_path: Path, how: str, options: str, why: str, edge: str
) -> None:
    report = run(graph(options, how, edge=edge), tmp_path)
    [again] = report.restarts
    assert re.search(why, again["why"])
    assert (again["process"], again["node"], again["seq"]) == ("main", "stop", 1500)
    edges = rows(report)
    alive = edges["src -> all"]
    assert (alive["sent"], alive["received"], alive["lost"], alive["dropped"]) == (6000, 6000, 0, 0)
    into = edges["src -> n"]
    assert into["sent"] == 6000
    assert into["received"] + into["dropped"] + into["lost"] == 6000, "each sample is somewhere in the table"
    assert report.ok == (into["lost"] + into["dropped"] + edges["stop -> keep"]["lost"] == 0)
    counts = np.loadtxt(tmp_path / "keep.txt")
    [back] = np.flatnonzero(np.diff(counts) != 1)
    assert counts[back] <= 1500
    assert 500 < counts[back + 1] <= 1501, "it went on with what it had counted a second before, not from nothing"
    said = json.loads((tmp_path / "tables.json").read_text())
    assert len(said["restarts"]) == 1
    if "hang" in how:
        assert (
            "signal.pause" in (tmp_path / "log.txt").read_text() or "in process" in (tmp_path / "log.txt").read_text()
        )


def test_the_only_process_is_started_again_too(tmp_path: Path) -> None:
    text = """
name: t
processes: {{main: {{restart: 1, hang: 1}}}}
nodes:
  src:  {{type: "parts:Ramp", n: 300}}
  stop: {{type: "parts:Stop", in: src, at: 100, attempts: 1, {how}: true}}
  keep: {{type: "parts:Keep", in: stop}}
"""
    for how, why in (("fail", r"node 'stop' \(parts:Stop\): ValueError"), ("hang", "process 'main' hangs since")):
        report = run(parse(text.format(how=how)), tmp_path)
        [again] = report.restarts
        assert re.match(why, again["why"])
        assert len(np.loadtxt(tmp_path / "keep.txt")) == 300


def test_what_was_counted_before_a_new_start_stays() -> None:
    graph = parse(
        'nodes: {a: {type: "parts:Recorded"}, c: {type: "parts:Count", in: a}, k: {type: "parts:Keep", in: c}}'
    )
    report, before, after = Report(graph), clock.Ages(), clock.Ages()
    ages = [0.3, *np.arange(1, 100) / 1e3]
    for part, of in ((before, ages[:60]), (after, ages[60:])):
        for age in of:
            part.add(age)

    def counts(part: clock.Ages) -> dict[str, Any]:
        return {
            "nodes": {"a": 10},
            "late": {"k": 1},
            "missed": {"k": 2},
            "swapped": {"c": {"swaps": 3, "refused": 0}},
            "health": {"a": {"lost": 2, "p50": "1 ms"}, "c": {"bins": 5}},
            "ages": {"k": part.table()},
            "histograms": {"k": {str(i): int(part.counts[i]) for i in part.counts.nonzero()[0]}},
        }

    report.update("main", counts(before))
    report.carry("main")
    assert report.samples["a"] == 10
    assert report.ages["k"] == before.table()
    report.update("main", counts(after))
    assert report.samples["a"] == 20
    assert report.health == {
        "a": {"lost": 4, "p50": "1 ms"},
        "c": {"bins": 5, "swaps": 6, "refused": 0},  # what a kernel counts is in its checkpoint
        "k": {"late": 2, "missed": 4},
    }
    for age in ages[:60]:
        after.add(age)
    assert report.ages["k"] == after.table()
    assert report.ages["k"]["max"] == 0.3


@pytest.mark.slow
def test_who_dies_too_often_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=r"process 'main' died: signal SIGKILL"):
        run(graph("{restart: 2, backoff: 0.01}", "attempts: 9", n=100000), tmp_path)
    said = json.loads((tmp_path / "tables.json").read_text())
    assert [round(r["wait"], 3) for r in said["restarts"]] == [0.01, 0.02]
    assert not said["ok"]
    assert np.loadtxt(tmp_path / "all.txt").size > 1500, "the process that lived kept what it had got"


@pytest.mark.slow
@either
def test_what_a_dead_process_had_counted_is_known(tmp_path: Path, edge: str) -> None:
    with pytest.raises(StreamError, match="SIGKILL"):
        run(graph("{}", "attempts: 1", edge=edge), tmp_path)
    said = json.loads((tmp_path / "tables.json").read_text())
    [out] = [r for r in said["losses"] if r["edge"] == "stop -> keep"]
    assert out["sent"] == 1500
    assert out["lost"] == 1500 - out["received"]


def test_a_hang_is_named_with_its_node_though_nothing_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheobase.stream.parent.HANG", 0.5)
    monkeypatch.setattr("rheobase.stream.parent.GRACE", 0.5)
    with pytest.raises(StreamError, match=r"did not stop within 0.5 s and was killed: node 'stop' has had sample 1500"):
        run(graph("{}", "hang: true"), tmp_path, seconds=3.0)
    said = json.loads((tmp_path / "tables.json").read_text())
    assert "process 'main' hangs since" in said["hangs"][0]


OUTLET = """
name: t
processes: {{{label}: {{restart: {restart}}}}}
nodes:
  src:  {{type: "parts:Ramp", n: 100000, c: 1, process: acquire}}
  stop: {{type: "parts:Stop", in: src, at: 1000, attempts: {attempts}}}
  out:  {{type: zmq_out, in: stop, address: "ipc://{folder}/o", hold: 0.2, safe: -1, process: {label}}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("label", ["main", "out"])
@pytest.mark.parametrize("restart", [0, 1])
def test_outlets_are_safe_whoever_dies(tmp_path: Path, label: str, restart: int) -> None:
    """main: the outlet dies with its process, and its last word comes from the parent."""
    reader = Reader(f"ipc://{tmp_path}/o")
    text = OUTLET.format(folder=tmp_path, label=label, restart=restart if label == "main" else 0, attempts=1)
    if restart and label == "out":
        text = text.replace("processes: {out: {restart: 0}}", "processes: {main: {restart: 1}}")
    if restart:
        run(parse(text), tmp_path / "run", seconds=4.0)
    else:
        with pytest.raises(StreamError, match="SIGKILL"):
            run(parse(text), tmp_path / "run")
    reader.thread.join(10)
    values = [b.data[0, 0] for _, b in reader.got]
    last = max(k for k, v in enumerate(values) if 0 < v < 1000)
    assert values[last + 1] == -1, "the next word is safe"
    assert values[-1] == -1
    assert (max(values) > 1000) == bool(restart), "and samples come again once it is back"


@pytest.mark.slow
def test_a_suspended_machine_loses_nothing_and_blames_nobody(tmp_path: Path) -> None:
    """All processes are stopped for 3 s and go on."""
    text = """
name: t
processes: {main: {hang: 2, restart: 1}}
nodes:
  src:  {type: "parts:Ramp", n: 6000, process: acquire}
  sq:   {type: "parts:Square", in: src}
  keep: {type: "parts:Keep", in: [src, sq], process: sink}
"""
    code = f"import sys; sys.path[:0] = {[str(Path(__file__).parent)]!r}\n"
    code += "from pathlib import Path; from rheobase.stream.graph import parse; from rheobase.stream.run import run\n"
    code += f"report = run(parse({text!r}), Path({str(tmp_path)!r})); print(report.ok)\n"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    until = time.monotonic() + 120
    while time.monotonic() < until and not (tmp_path / "live.json").exists():
        time.sleep(0.1)
    while time.monotonic() < until and not live.read(tmp_path)["nodes"]["keep"]["samples"]:
        time.sleep(0.1)
    children = [int(p) for p in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    assert len(children) == 3
    for pid in (parent.pid, *children):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in (*children, parent.pid):
        os.kill(pid, signal.SIGCONT)
    out, _ = parent.communicate(timeout=60)
    assert out.strip() == "True"
    said = json.loads((tmp_path / "tables.json").read_text())
    assert said["restarts"] == []
    assert said["samples"] == {"src": 6000, "sq": 6000, "keep": 12000}
    assert [s["cause"] for s in said["stalls"] if s["process"] == "run"] == ["suspended"]


def test_samples_that_are_late_are_counted_and_withheld_or_end_the_run(tmp_path: Path) -> None:
    text = """
name: t
processes: {{main: {{deadline: 0.05, late: {late}}}}}
nodes:
  src:  {{type: "parts:Ramp", n: 400, c: 1}}
  slow: {{type: "parts:Slow", in: src, at: 200, late: 0.2}}
  out:  {{type: zmq_out, in: slow, address: "ipc://{folder}/o", hold: 0.1, safe: -1}}
"""
    reader = Reader(f"ipc://{tmp_path}/o")
    report = run(parse(text.format(late="safe", folder=tmp_path)))
    reader.thread.join(10)
    missed = report.health["out"]["missed"]
    assert missed >= 1
    assert report.health["out"]["withheld"] == missed
    values = [b.data[0, 0] for _, b in reader.got]
    assert 200 not in values
    assert values[-1] == -1
    with pytest.raises(
        StreamError, match=r"node 'out' \(zmq_out\): sample 200 is \d+ ms old, more than its deadline of 50"
    ):
        run(parse(text.format(late="stop", folder=tmp_path)))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("{mian: {}}", r"processes: no node lives in process 'mian'; did you mean 'main'\?"),
        ("{main: {restrat: 1}}", r"processes: main: unknown key 'restrat'; did you mean 'restart'\?"),
        ("{main: {hang: -1}}", "processes: main: expected `float` >= 0"),
        ("{main: 3}", "processes: main: expected `object`"),
        ("[1]", "processes: write"),
    ],
)
def test_what_is_wrong_in_the_table_is_said(table: str, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        parse(f'name: t\nprocesses: {table}\nnodes:\n  a: {{type: "parts:Ramp"}}\n')


def test_what_the_system_does_not_allow_is_said_and_the_run_goes_on(tmp_path: Path) -> None:
    text = 'name: t\nprocesses: {main: {cpu: [4095]}}\nnodes:\n  a: {type: "parts:Recorded", n: 10}\n'
    assert run(parse(text)).samples == {"a": 10}
