"""The task of a closed loop: its cursor, targets and outcomes, against a slow twin and by hand."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rheobase.nodes._targets import CELLS, DRAWN, KINDS, sequence
from rheobase.nodes.task import TASK, UNITS, Task
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop

F = NDArray[np.float64]
RATE = 50.0
AT = {c: i for i, c in enumerate(TASK)}


class Driven:
    """A task by itself, and a person who steers it without delay."""

    def __init__(self, **values: Any) -> None:
        self.node = Task.make(**values)
        self.loop = Loop([self.node], [-1], [0])
        [self.spec] = self.loop.start(Spec(rate=RATE, channels=("vx", "vy")))
        self.n = 0

    def feed(self, v: F, segment: int = 0) -> F:
        """Rows (n, 11) for velocities (n, 2)."""
        v = np.atleast_2d(np.asarray(v, float))
        times = (self.n + 1 + np.arange(len(v))) / RATE
        [(_, y)] = self.loop.process(Block(v, times, self.n, segment))
        self.n += len(v)
        return y.data

    def steer(self, n: int, gain: float = 4.0, turn: float = 0.0) -> F:
        """n samples at most 0.2 m/s to the target, `turn` rad beside it."""
        rows = []
        for _ in range(n):
            goal = self.node.params.targets[self.node.state.number[0] - 1, :2]
            d = gain * (goal - self.node.state.cursor)
            d *= min(1.0, 0.2 / max(math.hypot(*d), 1e-12))
            c, s = math.cos(turn), math.sin(turn)
            rows.append(self.feed(np.array([c * d[0] - s * d[1], s * d[0] + c * d[1]]))[0])
        return np.array(rows)


def column(rows: F, name: str) -> F:
    return rows[:, AT[name]]


def twin(v: F, task: str, sizes: tuple[float, ...], attenuate: F) -> list[tuple[float, ...]]:
    """(cursor_x, cursor_y, number, held, outcome), one thing at a time; hold 0.14 s, time-out 3 s."""
    targets = sequence(task, 0.121, sizes, 0)
    cursor, number, spent, held, cell = np.zeros(2), 1, 0, 0, None
    found = []
    for k, wanted in enumerate(v):
        goal, radius = targets[number - 1, :2], targets[number - 1, 2]
        way = goal - cursor
        if np.isfinite(wanted).all():
            u = way / np.linalg.norm(way) if np.linalg.norm(way) else np.zeros(2)
            across = wanted - (wanted @ u) * u if u.any() else np.zeros(2)
            cursor = np.clip(cursor + (wanted - attenuate[k] * across) / RATE, -0.16, 0.16)
        spent += 1
        if task == "grid":
            now = tuple(np.floor((cursor + 0.121) / (0.242 / CELLS)).astype(int))
            now = now if min(now) >= 0 and max(now) < CELLS else None
            held = 0 if now is None else held + 1 if now == cell else 1
            cell = now
            within = now == tuple(np.floor((goal + 0.121) / (0.242 / CELLS)).astype(int))
        else:
            within = np.linalg.norm(cursor - goal) <= radius
            held = held + 1 if within else 0
        outcome = 0
        if held >= 7:
            outcome = 1 if within else 3
        elif spent >= 150:
            outcome = 2
        found.append((*cursor, number, held / RATE, outcome))
        if outcome:
            number, spent, held, cell = number + 1, 0, 0, None
            if task == "centre_out":
                cursor = np.zeros(2)
    return found


@pytest.mark.parametrize("task", list(KINDS))
def test_it_is_what_its_slow_twin_says(task: str) -> None:
    """A restless velocity that meets borders, dwells and time-outs, with two assisted blocks and missing samples."""
    rng = np.random.default_rng(2)
    slow = np.zeros((3000, 2))
    for k in range(1, len(slow)):
        slow[k] = 0.95 * slow[k - 1] + 0.02 * rng.standard_normal(2)
    slow[rng.random(len(slow)) < 0.02, 0] = np.nan
    slow[rng.random(len(slow)) < 0.4] = 0.0
    assist = [{"seconds": 20, "attenuate": 0.8}, {"seconds": 15, "attenuate": 0.3}]
    attenuate = np.repeat([0.8, 0.3, 0.0], [1000, 750, 1250])
    sizes = KINDS[task].sizes if task == "grid" else (0.06, 0.04)
    more = {} if task == "grid" else {"sizes": sizes}
    rows = Driven(task=task, hold=0.14, timeout=3, assist=assist, **more).feed(slow)
    names = ("cursor_x", "cursor_y", "number", "held", "outcome")
    expected = np.array(twin(slow, task, sizes, attenuate))
    np.testing.assert_allclose(rows[:, [AT[c] for c in names]], expected, atol=1e-12)
    seen = set(column(rows, "outcome"))
    assert seen == ({0, 1, 2, 3} if task == "grid" else {0, 1, 2})


def test_its_stream_says_what_it_holds() -> None:
    spec = Driven().spec
    assert (spec.channels, spec.rate, len(UNITS)) == (TASK, RATE, len(TASK))


@settings(max_examples=20)
@given(st.sampled_from(list(KINDS)), st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_any_cut_gives_the_same_rows(task: str, control: bool, cuts: list[int]) -> None:
    v = np.random.default_rng(0).normal(0, 0.3, (400, 2))
    whole = Driven(task=task, control=control).feed(v)
    parts = [v[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 400], strict=True) if b > a]
    driven = Driven(task=task, control=control)
    assert np.concatenate([driven.feed(p) for p in parts]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("task", list(KINDS))
def test_who_steers_straight_takes_every_target(task: str) -> None:
    driven = Driven(task=task)
    rows = driven.steer(3000)
    ends = rows[column(rows, "outcome") > 0]
    assert (column(ends, "outcome") == 1).all()
    assert (column(ends, "number") == np.arange(1, len(ends) + 1)).all()
    assert driven.node.health == {"acquired": len(ends), "timeouts": 0, "wrong": 0}
    hold = column(ends, "held")
    np.testing.assert_allclose(hold, KINDS[task].hold, atol=1e-9)
    assert len(ends) > 20


def test_a_trial_belongs_to_its_target_until_its_last_sample() -> None:
    rows = Driven().steer(600)
    last = np.flatnonzero(column(rows, "outcome"))
    targets = rows[:, [AT["target_x"], AT["target_y"], AT["number"]]]
    assert (np.flatnonzero(np.any(np.diff(targets, axis=0), axis=1)) == last[: len(last)]).all()


@pytest.mark.parametrize("task", list(KINDS))
def test_who_never_holds_a_target_times_out_after_the_tasks_own_time(task: str) -> None:
    back_and_forth = np.tile([[8.0, 8.0], [-8.0, -8.0]], (1100, 1))  # from corner to corner of the screen
    rows = Driven(task=task).feed(back_and_forth)
    n = round(KINDS[task].timeout * RATE)
    assert np.flatnonzero(column(rows, "outcome")).tolist() == list(range(n - 1, 2200, n))
    assert set(column(rows, "outcome")) == {0, 2}
    assert np.abs(rows[:, :2]).max() == 0.16


def test_a_missing_velocity_rests_the_cursor_and_the_clock_goes_on() -> None:
    driven = Driven(timeout=1)
    moved = driven.feed([[0.1, 0.0]] * 10)
    for bad in (np.nan, np.inf, -np.inf):
        rows = driven.feed([[bad, 0.1]] * 5)
        np.testing.assert_array_equal(rows[:, :2], np.repeat(moved[-1:, :2], 5, axis=0))
    rows = driven.feed(np.full((30, 2), np.nan))
    assert np.flatnonzero(column(rows, "outcome") == 2).tolist() == [24]  # the 50th sample, 25 came before


def test_a_gap_stops_the_trial_and_does_not_end_it() -> None:
    """Samples that never came move nothing and take no time; nor is anything forgotten."""
    v = np.random.default_rng(4).normal(0, 0.3, (200, 2))
    whole, cut = Driven(), Driven()
    expected = whole.feed(v)
    first = cut.feed(v[:80])
    cut.n += 500
    second = cut.feed(v[80:], segment=1)
    assert np.concatenate([first, second]).tobytes() == expected.tobytes()


def test_assistance_takes_away_what_is_perpendicular_block_by_block() -> None:
    assist = [{"seconds": 0.2, "attenuate": 0.8}, {"seconds": 0.1, "attenuate": 0.5}]
    driven = Driven(assist=assist, timeout=5)
    goal = driven.node.params.targets[0, :2]
    before = np.zeros(2)
    for k in range(20):
        way = goal - before
        u = way / np.linalg.norm(way)
        across = np.array([-u[1], u[0]])
        share = 0.8 if k < 10 else 0.5 if k < 15 else 0.0
        row = driven.feed(0.03 * u + 0.1 * across)[0]
        step = (row[:2] - before) * RATE
        np.testing.assert_allclose([step @ u, step @ across], [0.03, 0.1 * (1 - share)], atol=1e-12)
        assert row[AT["assist"]] == share
        before = row[:2]


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("task", list(KINDS))
def test_what_is_intended_leads_to_the_target_that_the_person_acts_on(task: str, control: bool) -> None:
    """Straight from where the cursor was, slower near it, nothing inside; for 0.1 s after a new target still to the
    last one."""
    driven = Driven(task=task, speed=0.15, reaction=0.1, brake=0.05, timeout=2.5, control=control)
    rows = np.concatenate([driven.steer(300, turn=0.7), driven.feed(np.full((300, 2), 0.01)), driven.steer(300)])
    assert {1, 2} <= set(column(rows, "outcome")) or not control
    begins = np.flatnonzero(np.diff(column(rows, "number"), prepend=0))
    cursor, last = np.zeros(2), np.array([0.0, 0.0, rows[0, AT["radius"]]])
    for a, b in zip(begins, [*begins[1:], len(rows)], strict=True):
        for k in range(a, b):
            goal, radius = np.split(last if k - a < 5 else rows[k, 2:5], [2])
            way = goal - cursor
            if task == "grid":
                inside = (np.floor((cursor + 0.121) * 6 / 0.242) == np.floor((goal + 0.121) * 6 / 0.242)).all()
            else:
                inside = np.linalg.norm(way) <= radius
            far = np.linalg.norm(way)
            pace = 0.15 * (min(1.0, far / 0.05) if control else 1.0)
            expected = np.zeros(2) if inside else pace * way / far
            np.testing.assert_allclose(rows[k, 5:7], expected, atol=1e-12)
            cursor = rows[k, :2]
        last = rows[a, 2:5]
        if task == "centre_out":
            cursor, last = np.zeros(2), np.array([0.0, 0.0, radius[0]])


@pytest.mark.parametrize("task", list(KINDS))
def test_open_loop_goes_by_itself_on_a_minimum_jerk_path(task: str) -> None:
    driven = Driven(task=task, control=False, speed=0.25)
    rows = driven.feed(np.full((2000, 2), np.nan))  # the input sets the pace only
    ends = np.flatnonzero(column(rows, "outcome"))
    assert (column(rows, "outcome")[ends] == 1).all()
    np.testing.assert_allclose(rows[ends, :2], rows[ends, 2:4], atol=1e-9)
    fastest = max(
        np.hypot(*np.diff(rows[a + 1 : b + 1, :2], axis=0).T).max() * RATE for a, b in itertools.pairwise(ends)
    )
    assert 0.245 < fastest <= 0.25 + 1e-9
    assert (column(rows, "assist") == 1).all()
    for a, b in itertools.pairwise(ends):  # straight
        path, goal = rows[a + 1 : b + 1, :2], rows[b, 2:4]
        begin = np.zeros(2) if task == "centre_out" else rows[a, :2]
        u = (goal - begin) / np.linalg.norm(goal - begin)
        assert np.abs((path - begin) @ np.array([-u[1], u[0]])).max() < 1e-9


def test_centre_out_begins_each_trial_in_the_centre() -> None:
    rows = Driven(task="centre_out").steer(600)
    first = np.flatnonzero(column(rows, "outcome"))[:-1] + 1
    assert np.hypot(*rows[first, :2].T).max() <= 0.2 / RATE + 1e-12


def test_a_wrong_cell_of_the_grid_is_selected_too() -> None:
    driven = Driven(task="grid", hold=0.2)
    goal = driven.node.params.targets[0, :2]
    wrong = -goal  # the cell on the other side of the centre
    rows = driven.feed(np.vstack([[wrong * RATE], np.zeros((9, 2))]))
    assert column(rows, "outcome").tolist() == [0.0] * 9 + [3.0]
    assert driven.node.health == {"acquired": 0, "timeouts": 0, "wrong": 1}
    outside = driven.feed(np.vstack([[[5.0, 5.0]], np.zeros((49, 2))]))  # beyond the grid, on the screen
    assert not column(outside, "held").any()


@pytest.mark.parametrize(
    ("values", "channels", "rate", "says"),
    [
        ({}, ("a", "b"), 0, "needs a regular rate"),
        ({}, ("a",), 50, "control: the input must have two channels"),
        ({"hold": 6}, ("a", "b"), 50, "hold: 6 s is longer than the time-out of 5 s"),
        ({"reach": 0.2}, ("a", "b"), 50, r"screen: targets reach 0.212 m from the centre, the screen 0.16 m"),
        ({"task": "grid", "sizes": [0.1]}, ("a", "b"), 50, "sizes: the cells of a grid follow"),
        ({"sizes": []}, ("a", "b"), 50, "sizes: name at least one"),
        ({"task": "fitts", "sizes": [0.2]}, ("a", "b"), 50, "sizes: no room"),
        ({"assist": [{"second": 3, "attenuate": 1}]}, ("a", "b"), 50, "assist: unknown key 'second'; did you mean 'se"),
        ({"assist": [{"seconds": 3}]}, ("a", "b"), 50, "assist: each block needs 'attenuate'"),
        ({"assist": [{"seconds": 3, "attenuate": 80}]}, ("a", "b"), 50, "attenuate: must be from 0 to below 1, got 80"),
        ({"assist": [{"seconds": 3, "attenuate": 1}]}, ("a", "b"), 50, "attenuate: must be from 0 to below 1, got 1"),
        ({"assist": [{"seconds": 0, "attenuate": 1}]}, ("a", "b"), 50, "seconds: must be more than 0"),
    ],
)
def test_refuses_what_makes_no_task(values: dict[str, Any], channels: tuple[str, ...], rate: float, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Task.make(**values).start(Spec(rate=rate, channels=channels))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"assist": [{"secnds": 3, "attenuate": 0.5}]}, "assist: unknown key 'secnds'; did you mean 'seconds'"),
        ({"hold": 30}, "hold: 30 s is longer than the time-out"),
        ({"reach": 0.5}, "screen: targets reach"),
        ({"sizes": []}, "sizes: name at least one"),
    ],
)
def test_what_needs_no_stream_is_said_before_one_is_there(values: dict[str, Any], says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Task.make(**values).check()


def test_open_loop_takes_any_input() -> None:
    assert Task(control=False).start(Spec(rate=50, channels=("a",), unit="uV")).channels == TASK


def test_a_velocity_in_another_unit_is_refused() -> None:
    """In cm/s the cursor would go 100 times too fast."""
    Task().start(Spec(rate=50, channels=("vx", "vy"), unit="m/s"))
    with pytest.raises(StreamError, match="control: the input is in 'cm/s', not m/s: fit its decoder on a truth in"):
        Task().start(Spec(rate=50, channels=("vx", "vy"), unit="cm/s"))


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(StreamError, match="task: unknown value 'radial'; did you mean 'radial8'"):
        Task.make(task="radial")


def test_the_targets_are_those_of_the_papers() -> None:
    kinds = {k: sequence(k, v.reach, v.sizes, 5) for k, v in KINDS.items()}
    for k, x in kinds.items():
        assert x.shape == (DRAWN, 3)
        assert np.any(x != sequence(k, KINDS[k].reach, KINDS[k].sizes, 6))
        np.testing.assert_array_equal(x, sequence(k, KINDS[k].reach, KINDS[k].sizes, 5))
        assert (np.hypot(*np.diff(x[:, :2], axis=0).T) > 0).all() or k == "centre_out"
    radial = kinds["radial8"]
    assert not radial[1::2, :2].any()
    assert len({tuple(p) for p in radial[0:16:2, :2]}) == 8
    np.testing.assert_allclose(np.hypot(*radial[::2, :2].T), 0.121, atol=1e-8)
    assert set(radial[:, 2]) == {0.012}
    fitts = kinds["fitts"]
    assert sorted(set(fitts[:, 2])) == [0.008, 0.0175, 0.028]
    assert {len(set(fitts[k : k + 3, 2])) for k in range(0, 3000, 3)} == {3}
    assert (np.abs(fitts[:, :2]) + fitts[:, 2:] <= 0.121 + 1e-12).all()
    assert (np.hypot(*np.diff(fitts[:, :2], axis=0).T) > fitts[1:, 2] + fitts[:-1, 2]).all()
    grid = kinds["grid"]
    cells = {tuple(np.round(p, 6)) for p in grid[:, :2]}
    assert len(cells) == 36
    np.testing.assert_allclose(grid[:, 2], 0.242 / 12)
    np.testing.assert_allclose(np.abs(grid[:, :2]).max(), 0.121 - 0.242 / 12)
