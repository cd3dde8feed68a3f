"""Words of a task: each trial's begin and end once, whatever the cuts; and that they travel and are recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay
from rheobase.nodes.task import Task
from rheobase.nodes.task_markers import TaskMarkers
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.fuse import Loop
from rheobase.stream.graph import Graph

N = 1500
TIMES = 10 + np.arange(N) / 50


def task(**values: object) -> tuple[Spec, Block]:
    """A task with targets that are reached, missed and mistaken."""
    loop = Loop([Task.make(**values)], [-1], [0])
    [spec] = loop.start(Spec(rate=50, channels=("vx", "vy")))
    v = np.random.default_rng(3).normal(0, 0.4, (N, 2)) * np.repeat(np.arange(N // 50) % 2, 50)[:, None]
    [(_, y)] = loop.process(Block(v, TIMES))
    return spec, y


def said(spec: Spec, y: Block, cuts: list[int]) -> list[tuple[float, str]]:
    node = TaskMarkers()
    assert node.start(spec).dtype == "str"
    found: list[tuple[float, str]] = []
    for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), N], strict=True):
        words = node.process(y.cut(a, b)) if b > a else None
        if words is not None:
            assert words.seq == len(found)
            found += [(t, w) for t, [w] in zip(words.times, words.data, strict=True)]
    return found


def test_a_trial_is_announced_and_its_end_is_told() -> None:
    spec, y = task(task="grid", hold=0.3, timeout=2)
    at = {c: y.data[:, i] for i, c in enumerate(spec.channels)}
    expected = []
    for k in range(N):
        about = {"number": int(at["number"][k]), "x": round(at["target_x"][k], 4), "y": round(at["target_y"][k], 4)}
        if k == 0 or at["outcome"][k - 1]:
            expected.append((TIMES[k], {"event": "target", **about}))
        if at["outcome"][k]:
            what = {1: "acquired", 2: "timeout", 3: "wrong"}[int(at["outcome"][k])]
            expected.append((TIMES[k], {"event": what, **about}))
    found = [(t, json.loads(w)) for t, w in said(spec, y, [])]
    assert found == expected
    assert {w["event"] for _, w in found} >= {"target", "wrong", "timeout"}


@settings(max_examples=30)
@given(st.lists(st.integers(0, N), max_size=8))
def test_any_cut_gives_the_same_words(cuts: list[int]) -> None:
    spec, y = task(sizes=[0.07], hold=0.1)
    assert said(spec, y, cuts) == said(spec, y, [])


def test_a_trial_of_one_sample_has_both_words() -> None:
    spec, y = task(sizes=[0.24], hold=0.02, reach=0.01)
    found = said(spec, y, [])
    assert [json.loads(w)["event"] for _, w in found[:4]] == ["target", "acquired"] * 2
    assert found[0][0] == found[1][0]


def test_takes_a_task_only() -> None:
    with pytest.raises(StreamError, match="takes the stream of a task; the input has no number, outcome"):
        TaskMarkers().start(Spec(rate=50, channels=("target_x", "target_y")))


def test_they_are_recorded(tmp_path: Path) -> None:
    velocity = np.random.default_rng(3).normal(0, 0.4, (N, 2))
    np.savez(tmp_path / "v.npz", v=velocity, t=TIMES)
    graph = Graph("words")
    graph.add("cursor", Replay(file=str(tmp_path / "v.npz"), stream="v", times="t", rate=50))
    graph.add("task", Task(sizes=[0.07], hold=0.1), "cursor")
    graph.add("markers", TaskMarkers(), "task")
    graph.add("rec", Record(file=str(tmp_path / "r.xdf")), ["task", "markers"])
    engine = Engine(graph, folder=tmp_path)
    engine.start()
    engine.run()
    words = Replay(file=str(tmp_path / "r.xdf"), stream="markers")
    assert words.start().dtype == "str"
    events = [json.loads(w)["event"] for b in words.blocks() for [w] in b.data]
    assert events[0] == "target"
    assert len(events) > 4
