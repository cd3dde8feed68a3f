"""The simulated person without clock or streams: tuning, spikes, eye and aim, and how neurons change."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rheobase.devices._person import SEEN, Change, Neurons, World, changes
from rheobase.devices.cursor_user import CursorUser
from rheobase.nodes.task import TASK
from rheobase.stream.block import StreamError

AHEAD = (0.0, 0.0, 0.1, 0.0, 0.0)
"""The cursor in the centre, the target 10 cm to the right, no help."""


def world(**more: Any) -> World:
    """A person who looks once a bin."""
    return World(CursorUser.make(**{"step": 0.02, "rate": 50.0} | more))


def test_it_looks_at_channels_that_a_task_has() -> None:
    assert set(SEEN) <= set(TASK)


def test_neurons_are_cosine_tuned() -> None:
    n = Neurons(50, untuned=0.0, top=0.2, brain=3)
    np.testing.assert_array_equal(n.rates(0.0, 0.0), n.baseline)
    depth, push = np.hypot(n.x, n.y) * 0.2, n.push * 0.2
    assert (depth <= 14.0).all() and (depth >= 2.0).all()
    for k in range(50):
        px, py = n.x[k] / np.hypot(n.x[k], n.y[k]), n.y[k] / np.hypot(n.x[k], n.y[k])
        still = n.baseline[k] + push[k]
        assert n.rates(0.2 * px, 0.2 * py)[k] == pytest.approx(still + depth[k])
        assert n.rates(-0.2 * px, -0.2 * py)[k] == pytest.approx(max(0.0, still - depth[k]))
        assert n.rates(-0.2 * py, 0.2 * px)[k] == pytest.approx(still)


def test_the_untuned_know_nothing() -> None:
    n = Neurons(50, untuned=0.2, top=0.2, brain=3)
    assert (n.rates(0.2, 0.0) == n.rates(-0.1, 0.1)).sum() == 10
    assert n.informative()[-10:].tolist() == sorted(np.flatnonzero(n.x == 0).tolist())


def test_spikes_come_at_the_rate_of_the_neurons() -> None:
    w = world(step=0.005, rate=1000.0, neurons=20)
    total, expected = np.zeros(20), np.zeros(20)
    for _ in range(2000):
        counts = w.step(AHEAD)
        total += counts.sum(axis=0)
        expected += w.neurons.rates(*w.wanted) * 0.005
    assert counts.shape == (5, 20)
    assert math.hypot(*w.wanted) > 0.1
    assert (np.abs(total - expected) < 5 * np.sqrt(expected)).all()


def test_a_seed_gives_the_same_person_again() -> None:
    def played(**more: Any) -> np.ndarray:
        w = world(neurons=10, drift=20.0, changes=[{"at": 2, "drop": 0.5}], **more)
        return np.array([w.step(AHEAD) for _ in range(200)])

    np.testing.assert_array_equal(played(seed=4), played(seed=4))
    assert (played(seed=4) != played(seed=5)).any()
    assert (world(brain=1).neurons.x != world(brain=2).neurons.x).any()
    np.testing.assert_array_equal(world(brain=1).neurons.x, world(brain=1, seed=9).neurons.x)


def test_with_nothing_to_see_it_rests() -> None:
    w = world()
    for _ in range(20):
        counts = w.step(None)
        assert w.wanted == (0.0, 0.0)
    assert counts.shape == (1, 96)


def test_it_sees_the_cursor_late() -> None:
    """A cursor that jumps beyond the target is noticed after `delay`, not before."""
    w = world(noise=0.0, delay=0.1)
    for _ in range(20):
        w.step(AHEAD)
    aims = []
    for _ in range(6):
        w.step((0.3, *AHEAD[1:]))
        aims.append(w.wanted[0])
    assert min(aims[:5]) > 0 > aims[5]


def test_it_counts_on_what_it_sent() -> None:
    """A cursor that obeys is where the person thinks it is: it stops in the target without going past it."""
    w = world(noise=0.0, delay=0.12)
    x, far = 0.0, 0.0
    for _ in range(200):
        w.step((x, *AHEAD[1:]))
        x += w.wanted[0] * 0.02
        far = max(far, x)
    assert x == pytest.approx(0.1, abs=1e-3)
    assert far < 0.1 * 1.02


def test_watching_it_follows_what_it_sees() -> None:
    """The cursor's own velocity over the last 40 ms, and nothing else, `delay` later; never above its highest speed."""
    w = world(noise=0.0, delay=0.1)
    x = 0.0002 * np.arange(20.0) ** 2
    wanted = []
    for k in range(20):
        w.step((x[k], -2 * x[k], 0.1, 0.0, 1.0))
        wanted.append(w.wanted)
    assert wanted[:5] == [(0.0, 0.0)] * 5
    seen = (x[2:15] - x[:13]) / 0.04
    slower = np.minimum(1.0, 0.2 / (np.sqrt(5) * seen))
    np.testing.assert_allclose(wanted[7:], np.stack([seen * slower, -2 * seen * slower], axis=1))
    assert (slower < 1).any() and (slower == 1).any()


def test_noise_grows_with_the_command() -> None:
    w = world(noise=0.3, delay=0.0, gain=1000.0, neurons=1)
    wanted = np.array([(w.step(AHEAD), w.wanted)[1] for _ in range(20_000)])[10:]
    np.testing.assert_allclose(wanted.std(axis=0), 0.3 * 0.2, rtol=0.1)
    np.testing.assert_allclose(wanted.mean(axis=0), [0.2, 0.0], atol=0.01)


def test_an_offset_adds_so_many_deviations_to_a_bin() -> None:
    def run(**more: Any) -> np.ndarray:
        w = world(step=0.005, rate=1000.0, neurons=6, **more)
        counts = np.concatenate([w.step(AHEAD) for _ in range(2000)]).reshape(500, 20, 6).sum(axis=1)
        return np.asarray(counts)

    plain, off = run(), run(changes=[{"at": 5.0, "offset": 5.0, "channels": [1, 4]}])
    np.testing.assert_array_equal(plain[:250], off[:250])
    added = off[250:] - plain[250:]
    assert not added[:, [0, 2, 3, 5]].any()
    assert (off >= 0).all() and (off == np.round(off)).all()
    for c in (1, 4):
        assert added[:, c].mean() == pytest.approx(5 * plain[:250, c].std(), rel=0.15)
        assert np.ptp(added[:, c]) <= 1  # always there, as even as whole counts can be


def test_a_negative_offset_takes_away_what_is_there() -> None:
    w = world(neurons=3, changes=[{"at": 0, "offset": -100, "channels": [2]}])
    counts = np.concatenate([w.step(AHEAD) for _ in range(200)])
    assert counts[:, :2].any() and not counts[:, 2].any()


def test_a_rotation_turns_every_preferred_direction() -> None:
    w = world(noise=0.0)
    before = w.neurons.rates(0.1, 0.05)
    w.change(Change(0.0, "rotate", 60.0))
    c, s = math.cos(math.radians(60)), math.sin(math.radians(60))
    after = w.neurons.rates(0.1 * c - 0.05 * s, 0.1 * s + 0.05 * c)
    np.testing.assert_allclose(after, before)
    w.change(Change(0.0, "rotate", 90.0, (3,)))
    assert (w.neurons.rates(0.1, 0.2) != before).any()


def test_drop_and_gain() -> None:
    w = world(neurons=10)
    before = w.neurons.rates(0.1, 0.0)
    w.change(Change(0.0, "gain", 0.5, (0, 1)))
    w.change(Change(0.0, "drop", 0.3))
    w.change(Change(0.0, "drop", 1.0, (0,)))
    after = w.neurons.rates(0.1, 0.0)
    assert 3 <= (after == 0).sum() <= 4 and after[0] == 0
    assert after[1] in (0.0, before[1] / 2)
    assert w.made == 3


def test_changes_come_when_they_are_due() -> None:
    w = world(changes=[{"at": 1.0, "gain": 0.0, "channels": [1]}, {"at": 0.5, "gain": 0.0, "channels": [0]}])
    made = []
    for _ in range(60):
        w.step(AHEAD)
        made.append(w.made)
    assert made.index(1) == 25 and made.index(2) == 50  # the step that begins then


def test_drift_wanders_with_the_root_of_time() -> None:
    w = world(neurons=400, untuned=0.0, drift=10.0)
    first = np.arctan2(w.neurons.y, w.neurons.x)
    turned = []
    for _ in range(4):
        for _ in range(50 * 60):
            w.step(None)
        turn = np.arctan2(w.neurons.y, w.neurons.x) - first
        turned.append(np.degrees((turn + math.pi) % (2 * math.pi) - math.pi).std())
    assert turned[0] == pytest.approx(10.0, rel=0.1)
    assert turned[3] == pytest.approx(20.0, rel=0.1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"at": 1, "ofset": 5}, r"changes\[0\]: unknown key 'ofset'; did you mean 'offset'\?"),
        ({"at": 1}, r"changes\[0\]: needs exactly one of offset, rotate, drop, gain, got none"),
        ({"at": 1, "drop": 0.1, "gain": 2}, r"changes\[0\]: needs exactly one of .* got drop, gain"),
        ({"rotate": 60}, r"changes\[0\]: needs 'at', s"),
        ({"at": -1, "rotate": 60}, r"changes\[0\]: at: must not be negative, got -1"),
        ({"at": 1, "gain": -0.5}, r"changes\[0\]: gain: must not be negative, got -0.5"),
        ({"at": "noon", "rotate": 60}, r"changes\[0\]: at: must be a finite number, got 'noon'"),
        ({"at": 1, "rotate": math.nan}, r"changes\[0\]: rotate: must be a finite number"),
        ({"at": 1, "drop": 1.5}, r"changes\[0\]: drop: must be a share from 0 to 1, got 1.5"),
        ({"at": 1, "offset": 5, "channels": [3, 96]}, r"channels: 96 is not one of the 96 neurons \(0 to 95\)"),
        ({"at": 1, "offset": 5, "channels": [1.5]}, r"channels: 1.5 is not one of the 96 neurons"),
        ({"at": 1, "offset": 5, "channels": 3}, r"channels: must be a list of numbers, or a share from 0 to 1, got 3"),
        ([60, 60], r"changes\[0\]: must be a table such as"),
    ],
)
def test_a_wrong_change_is_refused(words: Any, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        changes([words], 96)
