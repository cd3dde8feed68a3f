"""Drop missing: samples with a hole do not come out, and nothing else changes."""

from __future__ import annotations

import numpy as np

from rheobase.nodes.drop_missing import DropMissing
from rheobase.stream.block import Block, Spec
from rheobase.stream.check import Alone


def test_only_what_is_there() -> None:
    x = np.random.default_rng(0).standard_normal((20, 2))
    x[3, 0] = x[5] = np.nan
    x[8, 1] = np.inf
    alone = Alone(DropMissing(), [Spec(rate=10, channels=("a", "b"), unit="N", delay=0.1)])
    assert alone.out == Spec(rate=0, channels=("a", "b"), unit="N", delay=0.1)
    [y] = alone.feed([Block(x, np.arange(20.0), 0, 3)])
    kept = [k for k in range(20) if k not in (3, 5, 8)]
    np.testing.assert_array_equal(y.data, x[kept])
    assert y.times.tolist() == kept and (y.seq, y.segment) == (0, 3)
