"""Velocity: a known trajectory, its declared delay, and what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.spatial.transform import Rotation

from rheobase.nodes.velocity import Velocity
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.check import Alone
from rheobase.stream.fuse import apply

POSE = Spec(rate=200, channels=("x", "y", "z", "qw", "qx", "qy", "qz"), unit="m", delay=0.1)


def path(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, Rotation]:
    """Position, velocity and orientation of a body that circles, bobs and tumbles."""
    p = np.stack([np.sin(2 * t), np.cos(2 * t), 0.3 * np.sin(5 * t)], axis=1)
    v = np.stack([2 * np.cos(2 * t), -2 * np.sin(2 * t), 1.5 * np.cos(5 * t)], axis=1)
    return p, v, Rotation.from_euler("zyx", np.stack([1.3 * t, np.sin(t), 0.5 * t], axis=1))


def pose(t: np.ndarray) -> np.ndarray:
    p, _, q = path(t)
    return np.hstack([p, q.as_quat()[:, [3, 0, 1, 2]]])


@pytest.mark.parametrize("body", [True, False])
def test_a_known_trajectory(body: bool) -> None:
    """The error of a centred difference is h^2/6 of the third derivative, and nothing else."""
    t = np.arange(600) / 200
    spec = POSE if body else POSE.replace(channels=POSE.channels[:3])
    node = Velocity(over=0.04)
    out = node.start(spec)
    assert out.channels == ("v_x", "v_y", "v_z") and out.unit == "m/s" and out.delay == pytest.approx(0.12)
    y = apply(node, pose(t)[:, : spec.n], spec).data
    assert np.isnan(y[:8]).all() and np.isfinite(y[8:]).all()
    _, v, q = path(t - 0.02)
    expected = q.inv().apply(v) if body else v
    bound = 0.02**2 / 6 * np.linalg.norm([8, 8, 0.3 * 125])
    assert 0.3 * bound < np.abs(y[8:] - expected[8:]).max() < bound
    for over, smaller in ((0.02, 3.9), (0.01, 15.0)):
        less = apply(Velocity(over=over), pose(t)[:, : spec.n], spec).data
        k = round(over * 100)
        _, v, q = path(t - over / 2)
        error = np.abs(less - (q.inv().apply(v) if body else v))[2 * k :].max()
        assert error < bound / smaller


def test_equals_its_slow_twin_where_tracking_was_lost() -> None:
    t = np.arange(200) / 200
    x = pose(t)
    x[:, 3:] *= np.random.default_rng(0).uniform(0.5, 2, (200, 1))  # length is of no account
    x[50:55, :3] = x[80:82, 3:] = x[120] = np.nan
    x[150, 4] = np.inf
    y = apply(Velocity(over=0.03), x, POSE).data
    h = 3
    for k in range(200):
        expected = np.full(3, np.nan)
        if k >= 2 * h and np.isfinite(x[k - h, 3:]).all():
            v = (x[k, :3] - x[k - 2 * h, :3]) / (2 * h / 200)
            expected = Rotation.from_quat(x[k - h, [4, 5, 6, 3]]).inv().apply(v)
        np.testing.assert_allclose(y[k], expected, rtol=1e-9, atol=1e-12)


def test_never_over_a_gap() -> None:
    """A gap in the times that opens no segment, and one that does."""
    t = np.arange(60) / 200
    t[30:] += 0.02
    alone = Alone(Velocity(over=0.02), [POSE])
    y = np.concatenate([b.data for s in (0, 1) for b in alone.feed([Block(pose(t), t + s, 60 * s, s)])])
    missing = np.isnan(y).all(axis=1)
    assert np.flatnonzero(missing).tolist() == [*range(4), *range(30, 34), *range(60, 64), *range(90, 94)]


@pytest.mark.parametrize(
    ("spec", "over", "says"),
    [
        (POSE.replace(channels=tuple("abcd")), 0.1, "got 4 channels"),
        (POSE.replace(rate=0), 0.1, "needs a regular rate"),
        (POSE, 0.001, "over: 0.001 s are less than two samples at 200 Hz"),
    ],
)
def test_says_what_is_wrong(spec: Spec, over: float, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        Velocity(over=over).start(spec)


def test_recorded_trials_add_up(data: Callable[[str], Path]) -> None:
    """The velocity of a moved box, summed up, is the way from where it lay to where it lies again."""
    m = scipy.io.loadmat(data("broad/15_undisturbed_fast_translation_A.mat"))
    rate = float(m["sampling_rate"][0, 0])
    spec = POSE.replace(rate=rate, channels=POSE.channels[:3])
    y = apply(Velocity(over=10 / rate), m["opt_pos"], spec).data
    assert 0.001 < np.isnan(y).any(axis=1).mean() < 0.01, "tracking was lost now and then"
    a, b = 28000, 32000
    assert np.isfinite(y[a - 5 : b + 15]).all() and np.isfinite(m["opt_pos"][a - 5 : b + 15]).all()
    way = y[a + 5 : b + 5].sum(axis=0) / rate
    ends = [m["opt_pos"][k - 5 : k + 5].mean(axis=0) for k in (a, b)]
    np.testing.assert_allclose(way, ends[1] - ends[0], atol=1e-3)
    assert np.linalg.norm(y[a:b], axis=1).max() > 0.5
