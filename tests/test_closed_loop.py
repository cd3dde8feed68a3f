"""The closed loop in virtual time: it repeats itself, closes, adapts, and its numbers mean what they say."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.devices._labelled import rotation
from rheobase.devices._person import Change
from rheobase.devices.cursor_user import CursorUser
from rheobase.nodes._decoder import Decoder
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.task import TASK, Task
from rheobase.stream.block import StreamError
from rheobase.tools import closed_loop
from rheobase.tools.closed_loop import (
    Arm,
    Pair,
    Record,
    Session,
    calibrate,
    fit,
    kept,
    markdown,
    mean,
    recalibration,
    turn,
)


def session(**more: Any) -> Session:
    return Session(
        CursorUser(**{"step": 0.02, "rate": 50.0, "neurons": 40, "untuned": 0.0, "seed": 2} | more), settle=15
    )


@pytest.fixture(scope="module")
def day() -> tuple[Session, Decoder, list[Pair]]:
    """A person who has calibrated a Kalman filter for half a minute, the filter, and what it learnt from."""
    s = session()
    return s, *calibrate(s, Kalman(), watch=15.0, assist=((15.0, 0.5),))


def same(a: Record, b: Record) -> None:
    for f in dataclasses.fields(Record):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name))


def test_the_same_seeds_give_the_same_session(day: tuple[Session, Decoder, list[Pair]]) -> None:
    s = session()
    again, _ = calibrate(s, Kalman(), watch=15.0, assist=((15.0, 0.5),))
    for key, value in day[1].arrays.items():
        np.testing.assert_array_equal(value, again.arrays[key])
    same(day[0].copy().run(5.0, Task(), day[1]), s.run(5.0, Task(), again))


def test_a_copy_has_the_same_future_and_leaves_the_other_its_own(day: tuple[Session, Decoder, list[Pair]]) -> None:
    s = day[0].copy()
    twin = s.copy()
    twin.world.change(Change(0.0, "gain", 0.0))
    assert not twin.run(1.0, Task(), day[1]).counts.any()
    other = s.copy()
    same(other.run(5.0, Task(), day[1]), s.run(5.0, Task(), day[1]))


def test_open_loop_goes_by_itself_and_the_person_follows() -> None:
    r = session(noise=0.0, delay=0.0).run(10.0, Task(control=False))
    assert r.times[0] == pytest.approx(0.02) and r.times[-1] == pytest.approx(10.0)
    assert np.isnan(r.decoded).all()
    v = np.diff(r.rows[:, :2], axis=0) / 0.02
    assert np.hypot(*v.T).max() > 0.1
    # after a bin the person has seen the cursor of the bin before: its mean velocity over the last 40 ms
    np.testing.assert_allclose(r.wanted[3:], (v[:-2] + v[1:-1])[: len(r.wanted) - 3] / 2, atol=1e-12)


def test_the_decoder_moves_the_cursor(day: tuple[Session, Decoder, list[Pair]]) -> None:
    r = day[0].copy().run(10.0, Task(screen=10.0), day[1])
    cursor = r.rows[:, :2]
    np.testing.assert_allclose(np.diff(cursor, axis=0), r.decoded[1:] * 0.02, atol=1e-12)
    assert abs(turn(r)) < 15
    assert r.rows[:, TASK.index("outcome")].max() == 1  # a target was acquired


def test_features_are_counts_by_the_mean_and_sd_of_the_open_loop() -> None:
    s = session()
    watched = s.run(15.0, Task(control=False))
    X = s.scaled(watched.counts)
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(X.std(axis=0), 1.0, atol=1e-9)
    later = s.run(2.0, Task(control=False))
    of = (later.counts - watched.counts.mean(axis=0)) / watched.counts.std(axis=0)
    np.testing.assert_allclose(later.features, of, atol=1e-9)


def test_smoothing_goes_on_from_one_run_to_the_next() -> None:
    user = CursorUser(step=0.02, rate=50.0, neurons=5)
    s = Session(user, smooth=0.1, settle=2.0)
    parts = [s.run(2.0, Task(control=False)) for _ in range(3)]
    X = s.scaled(np.concatenate([p.counts for p in parts]))
    np.testing.assert_allclose(np.concatenate([p.features for p in parts[1:]]), X[100:], atol=1e-9)


def test_a_refit_takes_over_between_two_samples(day: tuple[Session, Decoder, list[Pair]]) -> None:
    s, decoder, _ = day
    asked: list[int] = []

    def adapt(record: Record) -> Decoder | None:
        asked.append(len(record.times))
        other = dataclasses.replace(decoder).hold({**decoder.arrays}, decoder.header["in"], decoder.header["out"])
        if len(asked) == 2:
            other.arrays["z_mean"] = decoder.arrays["z_mean"] + 10.0
        return other if len(asked) < 3 else None

    plain = s.copy().run(4.0, Task(), decoder)
    swapped = s.copy().run(4.0, Task(), decoder, every=1.0, adapt=adapt)
    assert asked == [50, 100, 150, 200]
    np.testing.assert_array_equal(swapped.decoded[:100], plain.decoded[:100])  # the same again changes nothing
    np.testing.assert_allclose(swapped.decoded[100], plain.decoded[100] + 10.0, atol=1e-9)


def test_recalibration_turns_back_what_a_rotation_turned(day: tuple[Session, Decoder, list[Pair]]) -> None:
    s = day[0].copy()
    s.world.change(Change(0.0, "rotate", 60.0))
    lost = s.copy().run(30.0, Task(), day[1])
    assert turn(lost, 15.0) < -45
    recent = recalibration(day[1], window=15.0, realign=0.0)  # forgets what was before
    turned = recalibration(day[1], day[2])  # turns it
    for adapt in (recent, turned):
        assert abs(turn(s.copy().run(30.0, Task(), day[1], every=5.0, adapt=adapt), 20.0)) < 20


def test_recalibration_goes_on_from_the_calibration(day: tuple[Session, Decoder, list[Pair]]) -> None:
    """As `recalibrate` with a file of what came before: the older rows turned by what its first refit finds."""
    used = day[0].copy().run(5.0, Task(), day[1])
    with_it = recalibration(day[1], day[2], realign=3.0)(used)
    (X0, Z0), (X1, Z1), (X2, Z2) = *day[2], (used.features, used.labels)
    segment = np.repeat([0, 1, 2], [len(X0), len(X1), len(X2)])
    X, Z = np.concatenate([X0, X1, X2]), np.concatenate([Z0, Z1, Z2])
    R = rotation(day[1].predict(X[-150:], segment[-150:]), Z[-150:])
    Z[:-150] = Z[:-150] @ R.T
    expected = Kalman().fit(X, Z, segment=segment)
    assert with_it and recalibration(day[1], realign=3.0)(used) is None  # 5 s alone are too few
    np.testing.assert_allclose(with_it.arrays["H"], expected.arrays["H"], atol=1e-12)


def test_turn_is_the_angle_from_wanted_to_decoded() -> None:
    w = np.random.default_rng(0).standard_normal((100, 2))
    c, s = math.cos(0.5), math.sin(0.5)
    v = 0.3 * w @ np.array([[c, s], [-s, c]])
    v[50:] = w[50:]
    times = 0.02 * np.arange(1, 101)
    r = Record(times, times, times, v, np.zeros((100, len(TASK))), w)
    assert turn(r, 0.0, 1.0) == pytest.approx(math.degrees(0.5))
    assert turn(r, 1.0) == pytest.approx(0.0, abs=1e-12)


def test_intervals() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    m, low, high = mean(x)
    half = 3.182446 * math.sqrt(5 / 3) / 2  # t of 3 degrees of freedom
    assert (m, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-6)
    assert kept(0.9 * x, x) == pytest.approx((0.9, 0.9, 0.9))
    share, low, high = kept(x[::-1].copy(), x)
    assert low < share == 1.0 < high
    assert kept(0 * x, 0 * x) == (0.0, 0.0, 0.0)


def test_a_step_that_does_not_divide_a_bin_is_refused() -> None:
    with pytest.raises(StreamError, match=r"step: 0.015 s does not divide a bin of 0.02 s"):
        Session(CursorUser(step=0.015, rate=200.0))


def test_fit_does_not_learn_across_two_stretches() -> None:
    """What leads from the end of one stretch to the beginning of the next is no movement."""
    rng = np.random.default_rng(0)
    X, Z = rng.standard_normal((200, 3)), np.repeat([[1.0, 0.0], [-1.0, 0.0]], 100, axis=0)
    Z = Z + 0.01 * rng.standard_normal(Z.shape)
    apart = fit(Kalman(), [(X[:100], Z[:100]), (X[100:], Z[100:])]).arrays["Gamma"]
    whole = fit(Kalman(), [(X, Z)]).arrays["Gamma"]
    assert apart[0, 0] < 0.1 * whole[0, 0]


def test_the_study_writes_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    people = [dict.fromkeys((*closed_loop.CONDITIONS, *closed_loop.TURNS), v) for v in (1.0, 2.0)]
    monkeypatch.setattr(closed_loop, "study", lambda seeds, among, jobs, told: dict.fromkeys(among, people))
    argv = ["--seeds", "2", "--decoders", "kalman", "mk-dkf", "--folder", str(tmp_path)]
    assert closed_loop.main(argv) == 0
    written = json.loads((tmp_path / "closed_loop.json").read_text())
    assert written == {"seeds": [0, 1], "decoders": {"kalman": people, "mk-dkf": people}}
    assert "mk-dkf" in (tmp_path / "closed_loop.html").read_text()
    said = capsys.readouterr().out
    lines = markdown({"kalman": people})
    assert all(line in said for line in lines)
    assert len({line.count("|") for line in lines}) == 1  # a head for each column
    assert closed_loop.main([*argv[:3], "kalmann", "--folder", str(tmp_path)]) == 1
    assert "no decoder 'kalmann'; did you mean 'kalman'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_multi_kernel_dkf_bears_an_offset_that_stops_a_kalman_filter() -> None:
    """Of three persons, for that of one is known to a tenth or so after a minute."""
    for name, least, most in (("kalman", 0.0, 0.5), ("mk-dkf", 0.8, 2.0)):
        arm: Arm = closed_loop.arms()[name]
        kept = []
        for person in (100, 101, 102):
            s = Session(CursorUser(step=0.02, rate=50.0, brain=person, seed=person), arm.smooth, settle=20.0)
            decoder, _ = calibrate(s, arm.decoder, watch=20.0, assist=((40.0, 0.5), (40.0, 0.2)))
            best = tuple(s.world.neurons.informative()[:2].tolist())
            off = s.copy()
            off.world.change(Change(0.0, "offset", 5.0, best))
            plain, off_rate = (closed_loop.bits(x.run(60.0, Task(task="grid"), decoder)) for x in (s, off))
            assert plain > 1.0
            kept.append(off_rate / plain)
        assert least <= sum(kept) / len(kept) <= most
