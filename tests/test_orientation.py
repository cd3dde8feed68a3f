"""Orientation: the numbers of its authors' own package, known attitudes, what is missing, and recorded trials."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from scipy.spatial.transform import Rotation

from rheobase.nodes.orientation import Orientation
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.check import Alone
from rheobase.stream.fuse import apply

IMU = Spec(rate=60, channels=tuple("abcdefghi"), delay=0.1)
BARE = IMU.replace(channels=IMU.channels[:6])


def angle(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Angle between orientations (T, 4), rad."""
    return 2 * np.arccos(np.minimum(1, np.abs((p * q).sum(axis=1))))


@pytest.mark.parametrize(
    ("parameters", "key"),
    [({}, "q9"), ({}, "q6"), ({"tau_acc": 1, "tau_mag": 3}, "short"), ({"bias": False, "reject": False}, "plain")],
)
def test_equals_the_package_of_its_authors(golden: Path, parameters: dict[str, Any], key: str) -> None:
    """vqf 2.1.2 over 50 s with rest, a disturbed field, and another field for good; each tenth sample is kept."""
    g = np.load(golden / "vqf.npz")
    spec = BARE if key == "q6" else IMU
    y = apply(Orientation.make(**parameters), g["x"][:, : spec.n], spec).data[::10]
    np.testing.assert_allclose(y, g[key], rtol=0, atol=1e-11)
    if key == "q9":
        late = slice(30, 150)  # from rest on, until the field is disturbed
        assert np.degrees(angle(y, g["truth"])[late]).max() < 3


def test_the_bias_is_the_one_of_its_authors(golden: Path) -> None:
    g = np.load(golden / "vqf.npz")
    alone = Alone(Orientation(), [IMU])
    for a in range(0, 3000, 300):
        alone.feed([Block(g["x"][a : a + 300], np.arange(a, a + 300) / 60, a)])
        done = alone.node.state.bias if a == 2700 else None  # type: ignore[attr-defined]
    np.testing.assert_allclose(done, [0.008, -0.012, 0.005], atol=1e-3)
    again = Alone(Orientation(), [IMU])
    again.feed([Block(g["x"][:2991], np.arange(2991) / 60)])
    np.testing.assert_allclose(again.node.state.bias, g["bias"][-1], atol=1e-12)  # type: ignore[attr-defined]


def test_any_attitude_at_rest_is_known_at_once() -> None:
    """Up from the first sample, north from the first sample, whatever the rate and the strength of the field."""
    for k, q in enumerate(Rotation.random(20, rng=np.random.default_rng(0))):
        up, field = q.inv().apply([0, 0, 9.81]), q.inv().apply([0, 20, -40]) * 10.0**k
        x = np.tile(np.concatenate([np.zeros(3), up, field]), (5, 1))
        spec = IMU.replace(rate=2.0**k)
        off = angle(apply(Orientation(), x, spec).data, q.as_quat()[[3, 0, 1, 2]])
        assert off[0] < 1e-6 and off.max() < 0.006, "the first correction passes for a bias, and for no more"
        bare = apply(Orientation(bias=False), x[:, :6], spec.replace(channels=BARE.channels)).data
        there = Rotation.from_quat(bare[:, [1, 2, 3, 0]])
        np.testing.assert_allclose(there.apply(up), np.tile([0, 0, 9.81], (5, 1)), atol=1e-6)


def test_it_turns_as_the_rate_says() -> None:
    """A quarter turn about the vertical in one second, without a magnetometer."""
    x = np.tile([0, 0, np.pi / 2, 0, 0, 9.81], (61, 1))
    x[0, 2] = 0.0
    y = apply(Orientation(bias=False), x, BARE).data
    np.testing.assert_allclose(y[-1], [np.sqrt(0.5), 0, 0, np.sqrt(0.5)], atol=1e-9)


def test_what_is_missing() -> None:
    """Without a rate there is no orientation; without the others it goes on by what there is, and comes back."""
    rng = np.random.default_rng(0)
    x = np.hstack([0.01 * rng.standard_normal((600, 3)), np.tile([0, 0, 9.81, 0, 20, -40.0], (600, 1))])
    whole = apply(Orientation(), x, IMU).data
    for column in range(9):
        for hole in (np.nan, np.inf):
            broken = x.copy()
            broken[100:130, column] = hole
            y = apply(Orientation(), broken, IMU).data
            lost = np.isnan(y).all(axis=1)
            assert np.flatnonzero(lost).tolist() == (list(range(100, 130)) if column < 3 else [])
            assert np.isfinite(y[~lost]).all() and angle(y[~lost], whole[~lost]).max() < 0.01
    x[100:130, 3:] = 0.0  # nothing points nowhere
    assert angle(apply(Orientation(), x, IMU).data, whole).max() < 0.01


def test_a_segment_forgets_the_one_before() -> None:
    alone = Alone(Orientation(), [BARE])
    tilted = np.tile([0, 0, 0, 0, 6.0, 8.0], (30, 1))
    t = np.arange(30) / 60
    [first] = alone.feed([Block(tilted, t)])
    alone.feed([Block(np.tile([0.3, 0, 0, 9.0, 0, 1.0], (30, 1)), t + 9, 30, 1)])
    [again] = alone.feed([Block(tilted, t + 19, 60, 2)])
    np.testing.assert_array_equal(first.data, again.data)


def test_says_what_is_wrong() -> None:
    out = Orientation().start(IMU)
    assert (out.channels, out.unit, out.rate, out.delay) == (("q_w", "q_x", "q_y", "q_z"), "", 60, 0.1)
    with pytest.raises(StreamError, match="got 3 channels"):
        Orientation().start(IMU.replace(channels=("a", "b", "c")))
    with pytest.raises(StreamError, match="needs a regular rate"):
        Orientation().start(IMU.replace(rate=0))


def test_recorded_trials(data: Callable[[str], Path]) -> None:
    """Fast translation, the hardest of the six for what is up."""
    m = scipy.io.loadmat(data("broad/15_undisturbed_fast_translation_A.mat"))
    x = np.hstack([m["imu_gyr"], m["imu_acc"], m["imu_mag"]])
    y = apply(Orientation(), x, IMU.replace(rate=float(m["sampling_rate"][0, 0]))).data
    there = (m["movement"].ravel() > 0) & np.isfinite(m["opt_quat"]).all(axis=1)
    up = [Rotation.from_quat(q[there][:, [1, 2, 3, 0]]).inv().apply([0, 0, 1]) for q in (y, m["opt_quat"])]
    tilt = np.degrees(np.arccos(np.minimum(1, (up[0] * up[1]).sum(axis=1))))
    assert 0.4 < np.sqrt(np.mean(tilt**2)) < 0.5
    assert np.sqrt(np.mean(np.degrees(angle(y, m["opt_quat"])[there]) ** 2)) < 2.4
