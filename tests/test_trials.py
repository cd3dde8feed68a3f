"""Scores of a closed loop, against sums done by hand."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
import yaml
from numpy.typing import NDArray

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay
from rheobase.nodes._targets import KINDS, sequence
from rheobase.nodes.task import TASK, Task
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.fuse import Loop
from rheobase.stream.graph import Graph
from rheobase.tools.trials import Trial, main, recorded, summary, table, trials

F = NDArray[np.float64]
DT = 0.02


def trial(outcome: int = 1, n: int = 100, held: float = 0.3, distance: float = 0.1, **more: Any) -> Trial:
    """n samples straight to a target `distance` m to the right."""
    x = np.linspace(0, distance, n)
    usual: dict[str, Any] = dict(
        number=1,
        outcome=outcome,
        times=np.arange(n) * DT,
        cursor=np.stack([x, 0 * x], axis=1),
        target=np.array([distance, 0.0]),
        radius=0.012,
        held=held,
        dt=DT,
        assist=0.0,
    )
    return Trial(**(usual | more))


def steered(task: str, seconds: float = 60.0, noise: float = 0.0, **values: Any) -> tuple[F, F]:
    """Times and rows of a task that somebody steers straight, or nearly so."""
    loop = Loop([node := Task(task=task, **values)], [-1], [0])
    loop.start(Spec(rate=1 / DT, channels=("vx", "vy")))
    rng = np.random.default_rng(0)
    rows, times = [], []
    for k in range(round(seconds / DT)):
        goal = node.params.targets[node.state.number[0] - 1, :2]
        v = 4 * (goal - node.state.cursor)
        v *= min(1.0, 0.2 / max(float(np.hypot(*v)), 1e-9))
        v += noise * rng.standard_normal(2)
        [(_, y)] = loop.process(Block(v[None], np.array([1000 + (k + 1) * DT])))
        rows.append(y.data[0])
        times.append(y.times[0])
    return np.array(times), np.array(rows)


def test_trials_are_cut_where_the_number_changes() -> None:
    times, rows = steered("radial8")
    found = trials(times, rows)
    ends = np.flatnonzero(rows[:, TASK.index("outcome")])
    assert [t.number for t in found] == list(range(1, len(ends) + 1))
    assert [t.times[-1] for t in found] == times[ends].tolist()
    assert sum(len(t.times) for t in found) == ends[-1] + 1
    targets = sequence("radial8", *KINDS["radial8"][:2], 0)
    for t in found:
        np.testing.assert_array_equal(t.target, targets[t.number - 1, :2])
        assert t.held == pytest.approx(0.3)
        assert t.seconds == pytest.approx(t.times[-1] - t.times[0] + DT)


def test_what_is_not_whole_is_left_out() -> None:
    times, rows = steered("radial8", 20)
    whole = trials(times, rows)
    after = np.flatnonzero(rows[:, TASK.index("number")] == 2)[0] + 5
    assert [t.number for t in trials(times[after:], rows[after:])] == [t.number for t in whole[2:]]
    gap = np.ones(len(times), bool)
    gap[after : after + 3] = False
    assert [t.number for t in trials(times[gap], rows[gap])] == [1, *(t.number for t in whole[2:])]
    gap = np.ones(len(times), bool)
    gap[after - 5 : after] = False  # its beginning: neither D nor the way of what is left is that of the trial
    assert [t.number for t in trials(times[gap], rows[gap])] == [1, *(t.number for t in whole[2:])]
    back = times - 60.0 * (np.arange(len(times)) >= after)  # the clock was set back
    assert [t.number for t in trials(back, rows)] == [1, *(t.number for t in whole[2:])]
    assert trials(times[:1], rows[:1]) == []
    assert trials(times[:5], rows[:5]) == []
    with pytest.raises(StreamError, match=r"rows \(T, 11\), got \(5,\), \(5, 9\)"):
        trials(times[:5], rows[:5, :9])


def test_the_scores_are_those_of_the_equations() -> None:
    w = 0.024 + 0.0075
    near, far, lost = trial(), trial(n=150, distance=0.2), trial(outcome=2, n=250, held=0.0)
    s = summary([near, far, lost], "radial8")
    ids = [math.log2(d / w + 1) for d in (0.1, 0.2)]
    assert (s["trials"], s["acquired"], s["timeouts"], s["wrong"]) == (3, 2, 1, 0)
    assert s["seconds"] == pytest.approx(10.0)
    assert s["success"] == pytest.approx(2 / 3)
    assert s["acquired_per_min"] == pytest.approx(12.0)
    assert s["time_to_target_s"] == pytest.approx(2.5)
    assert s["movement_time_s"] == pytest.approx(2.2)
    assert s["path_efficiency"] == pytest.approx(1.0)
    assert s["difficulty_bits"] == pytest.approx(np.mean(ids))
    assert s["throughput_bits_s"] == pytest.approx((ids[0] / 1.7 + ids[1] / 2.7) / 2)
    assert s["information_bits_s"] == pytest.approx(sum(ids) / 10)
    assert "slope_s_per_bit" not in s
    assert "grid_bits_s" not in s


def test_the_way_round_costs_efficiency() -> None:
    corner = np.concatenate([np.stack([np.linspace(0, 0.3, 50), np.zeros(50)], 1), np.full((50, 2), 0.3)])
    corner[50:, 1] = np.linspace(0, 0.4, 50)
    t = trial(cursor=corner, target=np.array([0.3, 0.4]))
    assert t.efficiency == pytest.approx(0.5 / 0.7)


def test_the_line_through_time_and_difficulty() -> None:
    made = []
    for d in (0.05, 0.1, 0.15, 0.2):
        bits = math.log2(d / (0.024 + 0.0075) + 1)
        n = round((0.4 + 1.1 * bits + 0.5) / DT)
        made.append(trial(n=n, distance=d, held=0.5))
    s = summary(made, "fitts")
    assert s["slope_s_per_bit"] == pytest.approx(1.1, abs=0.02)
    assert s["intercept_s"] == pytest.approx(0.4, abs=0.04)
    low, high = s["intervals"]["slope_s_per_bit"]
    assert low <= s["slope_s_per_bit"] <= high
    alike = summary([trial()] * 5, "fitts")
    assert alike["slope_s_per_bit"] is None  # no line through one point


def test_the_bit_rate_of_a_grid() -> None:
    right, wrong, late = trial(radius=0.02), trial(outcome=3), trial(outcome=2, n=200)
    s = summary([right] * 9 + [wrong] * 3 + [late], "grid")
    assert s["grid_bits_s"] == pytest.approx(math.log2(35) * 6 / (12 * 2 + 4))
    assert summary([right] + [wrong] * 3, "grid")["grid_bits_s"] == 0.0
    assert "throughput_bits_s" not in s


def test_nothing_to_tell_is_none_and_not_a_number_made_up() -> None:
    for task in KINDS:
        empty = summary([], task)
        assert (empty["trials"], empty["success"], empty["time_to_target_s"]) == (0, None, None)
        assert set(empty["intervals"].values()) == {None}
    lost = summary([trial(outcome=2, held=0.0)] * 3, "radial8")
    assert (lost["success"], lost["throughput_bits_s"], lost["information_bits_s"]) == (0.0, None, 0.0)


def test_who_began_inside_has_made_no_way() -> None:
    inside = trial(distance=0.01)
    s = summary([inside, trial(n=200)], "radial8")
    assert s["acquired"] == 2
    assert s["movement_time_s"] == pytest.approx(3.7)
    assert s["time_to_target_s"] == pytest.approx(3.0)


def test_intervals_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    good, bad = trial(), trial(outcome=2, held=0.0)
    hits = 0
    for k in range(400):
        made = [good if u < 0.7 else bad for u in rng.random(60)]
        low, high = summary(made, "grid", bootstrap=200, seed=k)["intervals"]["success"]
        hits += low <= 0.7 <= high
    assert 0.90 < hits / 400 < 0.98


def test_intervals_are_the_same_each_time() -> None:
    made = trials(*steered("fitts", noise=0.1))
    assert summary(made, "fitts") == summary(made, "fitts")
    assert summary(made, "fitts", bootstrap=0)["intervals"]["success"] is None


def test_a_run_is_read_from_its_recording(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    run.mkdir()
    v = np.random.default_rng(3).normal(0, 0.4, (2000, 2))
    np.savez(tmp_path / "v.npz", v=v, t=10 + np.arange(2000) * DT)
    graph = Graph("loop")
    graph.add("cursor", Replay(file=str(tmp_path / "v.npz"), stream="v", times="t", rate=50))
    graph.add("game", Task(task="grid", hold=0.1), "cursor")
    graph.add("rec", Record(), ["game"])
    (run / "config.yaml").write_text(yaml.safe_dump(graph.to_dict()))
    engine = Engine(graph, folder=run)
    engine.start()
    engine.run()
    found, task = recorded(run)
    assert task == "grid"
    assert sum(t.outcome == 3 for t in found) > 3
    assert main([str(run)]) == 0
    assert "grid bit rate" in capsys.readouterr().out
    assert main([str(tmp_path / "none")]) == 1
    assert "not a run directory" in capsys.readouterr().err


def test_a_table_shows_tasks_side_by_side() -> None:
    sums = [summary(trials(*steered(k, 30)), k) for k in ("radial8", "grid", "fitts")]
    console = rich.console.Console(width=160, file=io.StringIO(), record=True)
    console.print(table(*sums))
    text = console.export_text()
    for words in ("targets acquired", "Fitts throughput", "grid bit rate", "time on difficulty", "wrong"):
        assert words in text
    assert "nan" not in text
