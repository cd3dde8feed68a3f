"""Rotate: scipy's rotations, there and back, and what is missing."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rheobase.nodes.rotate import Rotate
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply

SPEC = Spec(rate=100, channels=("vx", "vy", "vz", "qw", "qx", "qy", "qz"), delay=0.1)


@pytest.mark.parametrize("to", ["body", "world"])
def test_turns_as_scipy_does(to: str) -> None:
    rng = np.random.default_rng(0)
    q = Rotation.random(40, rng=rng)
    v = rng.standard_normal((40, 3))
    x = np.hstack([v, q.as_quat()[:, [3, 0, 1, 2]] * rng.uniform(-2, -0.5, (40, 1))])
    node = Rotate.make(to=to, unit="m/s")
    assert node.start(SPEC) == SPEC.replace(channels=SPEC.channels[:3], unit="m/s")
    np.testing.assert_allclose(apply(node, x, SPEC).data, (q if to == "world" else q.inv()).apply(v), atol=1e-13)
    for hole in range(7):
        broken = x.copy()
        broken[5, hole] = np.nan if hole % 2 else np.inf
        assert np.isnan(apply(node, broken, SPEC).data).all(axis=1).tolist() == [k == 5 for k in range(40)]
    x[:, 3:] = 0.0
    assert np.isnan(apply(node, x, SPEC).data).all()


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="got 3 channels"):
        Rotate(to="body").start(SPEC.replace(channels=("a", "b", "c")))
    with pytest.raises(StreamError, match="needs 'to'"):
        Rotate.make()
