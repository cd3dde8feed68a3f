"""The simulated person: the task's arithmetic on scripted movements, and the loop through real streams."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from rheobase.devices._centre_out import REACH, TARGET, CentreOut, Neurons, World
from rheobase.devices.cursor_user import TASK, CursorUser
from rheobase.stream.block import StreamError
from rheobase.stream.clock import now

pylsl = pytest.importorskip("pylsl")


def task(**more: float) -> CentreOut:
    return CentreOut(**{"hold": 0.3, "patience": 5.0, "rng": np.random.default_rng(0)} | more)  # type: ignore[arg-type]


def walk(t: CentreOut, to: np.ndarray, steps: int = 100, dt: float = 0.01) -> list[str]:
    """Straight to a point in so many steps; the events on the way."""
    v = (to - t.cursor) / (steps * dt)
    return [json.loads(m)["event"] for _ in range(steps) for m in t.move(v, dt)]


def rest(t: CentreOut, steps: int, dt: float = 0.01) -> list[str]:
    return [json.loads(m)["event"] for _ in range(steps) for m in t.move(np.zeros(2), dt)]


def test_a_straight_way_has_efficiency_1() -> None:
    t = task()
    assert walk(t, t.target) == []  # the last tenth lies in the target: 0.1 s held
    assert rest(t, 30) == ["acquired", "target"]
    assert t.efficiency == [pytest.approx(1.0)]
    inside = math.ceil(100 * (1 - TARGET / 2 / REACH))  # the step that brings it inside
    assert t.times == [pytest.approx((inside + 29) * 0.01)]
    np.testing.assert_array_equal(t.target, [0, 0])


def test_a_detour_costs_what_it_is_longer() -> None:
    t = task(patience=60.0)
    corner = t.target / 2 + 0.05 * np.array([-t.target[1], t.target[0]]) / REACH
    walk(t, corner)
    walk(t, t.target)
    rest(t, 30)
    legs = 2 * math.hypot(REACH / 2, 0.05)
    assert t.efficiency == [pytest.approx(REACH / legs)]


def test_leaving_the_target_begins_the_hold_anew() -> None:
    t = task()
    goal = t.target
    t.cursor = goal
    assert rest(t, 29) == []
    t.move(goal / REACH, 0.02)  # 2 cm on, outside
    assert t.held == 0.0
    t.cursor = goal
    assert rest(t, 29) == []
    assert rest(t, 1) == ["acquired", "target"]


def test_a_target_times_out_after_its_patience() -> None:
    t = task(patience=2.0)
    assert rest(t, 199) == []
    assert rest(t, 1) == ["timeout", "target"]
    assert t.score() == {
        "targets": 1,
        "acquired": 0,
        "timeouts": 1,
        "path_efficiency": None,
        "time_to_target_s": None,
    }


def test_all_eight_targets_come_before_any_comes_twice_with_the_centre_between() -> None:
    t = task()
    shown = []
    for _ in range(32):
        shown.append(tuple(t.target.round(4)))
        t.cursor = t.target
        rest(t, 30)
    assert set(shown[1::2]) == {(0.0, 0.0)}
    assert len(set(shown[0:16:2])) == len(set(shown[16::2])) == 8
    assert {round(math.hypot(*p), 3) for p in shown[::2]} == {REACH}


def test_the_cursor_does_not_leave_the_screen() -> None:
    t = task()
    t.move(np.array([10.0, -10.0]), 1.0)
    np.testing.assert_array_equal(t.cursor, [0.16, -0.16])


def test_neurons_are_cosine_tuned() -> None:
    n = Neurons(50, top=0.2, brain=3)
    np.testing.assert_array_equal(n.rates(np.zeros(2)), n.baseline)
    depth = np.hypot(*n.tuning) * 0.2
    assert (depth <= 14.0).all() and (depth >= 2.0).all()
    for k in range(50):
        preferred = n.tuning[:, k] / math.hypot(*n.tuning[:, k])
        assert n.rates(0.2 * preferred)[k] == pytest.approx(n.baseline[k] + depth[k])
        assert n.rates(-0.2 * preferred)[k] == pytest.approx(max(0.0, n.baseline[k] - depth[k]))
        across = np.array([-preferred[1], preferred[0]])
        assert n.rates(0.2 * across)[k] == pytest.approx(n.baseline[k])


def test_spikes_come_at_the_rate_of_the_neurons() -> None:
    w = World(CursorUser(mode="control", neurons=20))  # no decoder yet, so it aims at the first target throughout
    total, expected = np.zeros(20), np.zeros(20)
    for _ in range(2000):
        counts, row, _ = w.step(None)
        total += counts.sum(axis=0)
        expected += w.neurons.rates(row[4:6]) * 0.005
    assert counts.shape == (5, 20)
    assert np.hypot(*row[4:6]) > 0.05
    assert (np.abs(total - expected) < 5 * np.sqrt(expected)).all()


def played(steps: int = 400, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    w = World(CursorUser.make(neurons=10, **changes))
    counts, rows = [], []
    v = None
    for _ in range(steps):
        c, row, _ = w.step(v)
        v = row[4:6]
        counts.append(c)
        rows.append(row)
    return np.concatenate(counts), np.array(rows)


def test_a_seed_gives_the_same_person_again() -> None:
    for a, b in zip(played(seed=4), played(seed=4), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (played(seed=4)[0] != played(seed=5)[0]).any()
    one, other = World(CursorUser(brain=1)), World(CursorUser(brain=2))
    assert (one.neurons.tuning != other.neurons.tuning).any()
    np.testing.assert_array_equal(one.neurons.tuning, World(CursorUser(brain=1, seed=9)).neurons.tuning)


@pytest.mark.parametrize(("delay", "straight"), [(0.0, 0.999), (0.12, 0.97)])  # late sight: it goes on to where it was
def test_with_a_decoder_that_reads_minds_every_target_is_acquired(delay: float, straight: float) -> None:
    w = World(CursorUser(noise=0.0, delay=delay, seed=1))
    v = np.zeros(2)
    for _ in range(60 * 200):
        _, row, _ = w.step(v)
        v = row[4:6]
    score = w.task.score()
    assert score["timeouts"] == 0
    assert score["acquired"] > 30
    assert score["path_efficiency"] > straight


def test_with_no_decoder_no_trial_goes_on() -> None:
    w = World(CursorUser())
    for _ in range(3000):
        w.step(None)
    assert w.task.spent == 0.0
    assert w.task.score()["targets"] == 0


def test_it_sees_the_cursor_late() -> None:
    """A cursor that jumps is noticed after `delay`, not before."""
    w = World(CursorUser(noise=0.0, delay=0.1))
    for _ in range(100):
        before = w.step(None)[1][4:6]
    w.task.cursor = 1.3 * w.task.target  # beyond it
    aims = np.array([w.step(None)[1][4:6] for _ in range(21)])
    np.testing.assert_allclose(aims[:20], np.broadcast_to(before, (20, 2)), atol=1e-12)
    assert before @ w.task.target > 0 > aims[20] @ w.task.target


def test_observed_paths_are_straight_smooth_and_as_fast_as_asked() -> None:
    _, rows = played(steps=4000, mode="observe", noise=0.0, speed=0.25)
    x = rows[:, 0:2]
    v = np.diff(x, axis=0) / 0.005
    speed = np.hypot(v[:, 0], v[:, 1])
    assert speed.max() == pytest.approx(0.25, rel=1e-3)
    assert np.abs(np.diff(speed)).max() < 0.25 * 0.05
    np.testing.assert_allclose(rows[1:, 4:6], v, atol=1e-9)  # what it intends is what it watches
    r = np.hypot(x[:, 0], x[:, 1])
    out = r > 0.01
    np.testing.assert_allclose(x[out, 0] * x[out, 1] * (x[out, 0] ** 2 - x[out, 1] ** 2), 0.0, atol=1e-12)


def test_step_must_hold_whole_samples() -> None:
    with pytest.raises(StreamError, match=r"step: 0.0015 s is not a whole number of samples at 1000.0 Hz"):
        CursorUser(step=0.0015).start()


# --- through real streams

PERSON = """
import sys, json
from pathlib import Path
from rheobase.devices.cursor_user import CursorUser
from rheobase.stream.clock import now
names = dict(zip(("array", "task", "markers", "cursor"), sys.argv[2:], strict=True))
user = CursorUser(neurons=8, seed=2, **names)
user.folder = Path(sys.argv[1])
print(user.start().rate, flush=True)
sys.stdin.readline()
until = now() + 40
for block in user.blocks():
    if user.world.task.acquired >= 2 or now() > until:
        break
user.stop()
"""


def named() -> list[str]:
    here = uuid.uuid4().hex[:8]
    return [f"{word}{here}" for word in ("Array", "Task", "Markers", "Cursor")]


def inlet(name: str) -> pylsl.StreamInlet:
    found = pylsl.resolve_byprop("name", name, timeout=20)
    assert found, name
    stream = pylsl.StreamInlet(found[0], as_numpy=True)
    stream.open_stream(timeout=10)
    return stream


@pytest.mark.slow
def test_the_loop_closes_through_lsl(tmp_path: Path) -> None:
    """A person in another process; the decoder here sends back what the task stream says is intended."""
    names = named()
    person = subprocess.Popen(
        [sys.executable, "-c", PERSON, str(tmp_path), *names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert person.stdout is not None and person.stdin is not None
        assert float(person.stdout.readline()) == 200.0
        array, task_, markers = (inlet(n) for n in names[:3])
        labels = task_.info(10).get_channel_labels()
        assert tuple(labels) == TASK
        info = pylsl.StreamInfo(names[3], "Velocity", 2, 50.0, pylsl.cf_double64, f"test-{names[3]}")
        out = pylsl.StreamOutlet(info)
        person.stdin.write("go\n")
        person.stdin.flush()
        spikes, times, rows, words = [], [], [], []
        until = now() + 45
        while person.poll() is None and now() < until:
            time.sleep(0.01)
            rows_, t = task_.pull_chunk()
            if len(t):
                out.push_sample(rows_[-1, 4:6], now())
                rows.append(rows_.copy())
            x, t = array.pull_chunk(max_samples=4096)
            spikes.append(x.copy())
            times.append(t.copy())
            words += [json.loads(str(m[0], "utf-8")) for m in markers.pull_chunk()[0]]
        assert person.wait(10) == 0
    finally:
        person.kill()
        person.wait()
    t, x, row = np.concatenate(times), np.concatenate(spikes), np.concatenate(rows)
    np.testing.assert_allclose(np.diff(t), 1e-3, atol=1e-6)  # no sample lost, and its own time on each
    assert (x >= 0).all() and x.sum() > 0 and (x == x.round()).all()
    assert row[-1, TASK.index("number")] >= 2
    score = json.loads((tmp_path / "task.json").read_text())
    assert score["acquired"] == 2
    assert score["path_efficiency"] > 0.8
    assert score["velocity_age_s"]["n"] > 0
    assert score["seconds"] * 1000 >= len(t)
    assert [w["event"] for w in words][:3] == ["target", "acquired", "target"]
    assert [w["number"] for w in words][:3] == [1, 1, 2]


@pytest.mark.slow
def test_a_decoder_of_one_channel_is_refused() -> None:
    array, task_, markers, cursor = named()
    out = pylsl.StreamOutlet(pylsl.StreamInfo(cursor, "Velocity", 1, 50.0, pylsl.cf_float32, cursor))
    user = CursorUser(array=array, task=task_, markers=markers, cursor=cursor, neurons=2)
    user.start()
    until = now() + 20
    with pytest.raises(StreamError, match=f"'{cursor}' must have two channels"):
        for _ in user.blocks():
            assert now() < until
    user.stop()
    del out


@pytest.mark.slow
def test_start_forgets_and_stop_says_how_it_went(tmp_path: Path) -> None:
    array, task_, markers, cursor = named()
    user = CursorUser(mode="observe", array=array, task=task_, markers=markers, cursor=cursor, neurons=2)
    user.folder = tmp_path
    runs = []
    for _ in range(2):
        user.start()
        runs.append(np.concatenate([b.data for _, b in zip(range(50), user.blocks(), strict=False)]))
    np.testing.assert_array_equal(*runs)
    user.stop()
    score = json.loads((tmp_path / "task.json").read_text())
    assert (score["mode"], score["seconds"], score["targets"]) == ("observe", 0.25, 0)
