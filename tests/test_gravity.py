"""Gravity: taken out at any attitude, in both frames; and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rheobase.nodes.gravity import Gravity
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

SPEC = Spec(rate=100, channels=("ax", "ay", "az", "qw", "qx", "qy", "qz"), delay=0.1)


@pytest.mark.parametrize("frame", ["body", "world"])
def test_what_moves_a_body_is_left(frame: str) -> None:
    rng = np.random.default_rng(0)
    q = Rotation.random(40, rng=rng)
    a = rng.standard_normal((40, 3))
    f = q.inv().apply(a + np.array([0, 0, 9.82]))
    x = np.hstack([f, q.as_quat()[:, [3, 0, 1, 2]] * rng.uniform(0.5, 2, (40, 1))])
    node = Gravity.make(frame=frame, g=9.82)
    out = node.start(SPEC)
    assert (out.channels, out.unit, out.delay) == (("a_x", "a_y", "a_z"), "m/s^2", 0.1)
    y = apply(node, x, SPEC).data
    np.testing.assert_allclose(y, a if frame == "world" else q.inv().apply(a), atol=1e-13)
    for hole in range(7):
        for value in (np.nan, np.inf):
            broken = x.copy()
            broken[5, hole] = value
            assert np.isnan(apply(node, broken, SPEC).data).all(axis=1).tolist() == [k == 5 for k in range(40)]


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="got 3 channels"):
        Gravity().start(SPEC.replace(channels=("a", "b", "c")))
    with pytest.raises(StreamError, match="frame: unknown value 'earth'"):
        Gravity.make(frame="earth")
