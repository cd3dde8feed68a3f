"""The study of orientation: its errors, how settings are chosen, and that its rival is a filter that works."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rheobase.tools import orientation
from rheobase.tools.orientation import DEGREE, Setting, chosen, errors

SETTING = Setting(0.3 * DEGREE, 0.002 * DEGREE, 1.0, 0.1, 5 * DEGREE, 5.0, 5 * DEGREE, 0.05 * DEGREE)


def quaternions(r: Rotation) -> np.ndarray:
    return r.as_quat()[:, [3, 0, 1, 2]]


def test_errors_are_those_of_the_turns_between() -> None:
    """A turn about the vertical is heading, one about a level axis inclination; the sign of q is of no account."""
    truth = Rotation.random(50, rng=np.random.default_rng(0))
    level = np.stack([np.cos(np.arange(50)), np.sin(np.arange(50)), np.zeros(50)], axis=1)
    for turn, expected in (
        (Rotation.from_rotvec(np.radians([[0, 0, 7.0]] * 50)), (7, 0, 7)),
        (Rotation.from_rotvec(np.radians(3.0) * level), (0, 3, 3)),
    ):
        q = quaternions(turn * truth)
        q[::2] *= -1
        np.testing.assert_allclose(errors(q, quaternions(truth)), expected, atol=1e-6)


def test_a_setting_is_chosen_on_the_other_trials() -> None:
    scores = np.zeros((2, 3, 3))
    scores[:, :, 2] = [[0, 5, 5], [9, 2, 2]]
    assert chosen(scores).tolist() == [1, 0, 0]


def test_the_rival_finds_attitude_and_bias(monkeypatch: pytest.MonkeyPatch) -> None:
    """6 s of rest and 14 s of tumbling with a biased rate, which alone would turn it by 19 degrees. Not compiled, which
    takes longer than it runs."""
    rng, rate, n = np.random.default_rng(0), 50.0, 1000
    t = np.arange(n) / rate
    w = np.stack([np.sin(t), 0.7 * np.cos(0.8 * t), 0.5 * np.sin(1.7 * t)], axis=1) * (t > 6)[:, None]
    q = [Rotation.from_euler("zyx", [30, 20, 10], degrees=True)]
    for k in range(1, n):
        q.append(q[-1] * Rotation.from_rotvec(w[k] / rate))
    true = Rotation.concatenate(q)
    a = rng.standard_normal((n, 3)) * (t > 6)[:, None]
    bias, up, north = np.array([0.01, -0.02, 0.01]), np.array([0, 0, 9.81]), [0, 20.0, -40.0]
    x = np.hstack([w + bias, true.inv().apply(a + up), true.inv().apply(north)])
    x += 0.002 * rng.standard_normal(x.shape)
    for name in ("rival", "_product", "_exp", "_matrix", "_upright"):
        made = getattr(orientation, name)
        monkeypatch.setattr(orientation, name, getattr(made, "py_func", made))
    q = orientation.rival(x, rate, SETTING)
    off = errors(q[300:], quaternions(true)[300:])
    assert off[2] < 1, off
