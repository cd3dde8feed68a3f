"""Threshold crossings."""

from __future__ import annotations

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.nodes.threshold import Threshold
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.fuse import Loop, apply

RATE = 1000.0


def noise(seed: int, n: int = 300, missing: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) * [1, 10, 0.1]
    x[rng.random(x.shape) < missing] = np.nan
    return x


@given(st.integers(0, 2**32), st.sampled_from([-2.0, -0.5, 0.1, 1.5]), st.integers(1, 5))
def test_equals_its_naive_twin(seed: int, rms: float, dead: int) -> None:
    x = noise(seed)
    node = Threshold(rms=rms, learn=0.1, refractory=dead / RATE)
    np.testing.assert_array_equal(apply(node, x, rate=RATE).data, naive.crossings(x, rms, 100, dead))


def column(node: Threshold, *values: float) -> list[float]:
    return list(apply(node, np.array(values), rate=RATE).data[:, 0])


def test_a_given_level_needs_no_learning() -> None:
    assert column(Threshold(level=-2), 0, -3, -3, 0, -2, -2.1) == [0, 1, 0, 0, 0, 1]
    assert column(Threshold(level=2), 0, 3, 3, 0, 2, 2.1) == [0, 1, 0, 0, 0, 1]
    assert column(Threshold(level=2, direction="down"), 3, 1, 1, 3, 1, 3) == [0, 1, 0, 0, 1, 0]


def test_what_lies_beyond_from_the_start_has_not_crossed() -> None:
    assert column(Threshold(level=-2), -3, -3, 0, -3) == [0, 0, 0, 1]


def test_none_counts_in_the_refractory_period() -> None:
    assert column(Threshold(level=1, refractory=0.004), *([0, 2] * 5)) == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_a_flat_or_missing_channel_never_crosses() -> None:
    x = noise(7)
    x[:100, 0], x[:100, 1] = 0, np.nan
    y = apply(Threshold(rms=-0.5, learn=0.1), x, rate=RATE).data
    assert not np.nansum(y[:, :2]) and np.nansum(y[:, 2])


def test_what_was_learnt_outlasts_a_gap() -> None:
    x, spec = noise(8), Spec(rate=RATE, channels=numbered("c", 3))
    loop = Loop([Threshold(rms=-2, learn=0.1)], [-1], [0])
    loop.start(spec)
    t = np.arange(300) / RATE
    parts = [Block(x[:150], t[:150]), Block(x[150:], t[150:] + 10, seq=150, segment=1)]
    got = np.concatenate([b.data for part in parts for _, b in loop.process(part)])
    np.testing.assert_array_equal(got, naive.crossings(x, -2, 100, 1))


@pytest.mark.parametrize(
    "values, rate, words",
    [
        ({}, 0, "needs a regular rate"),
        ({"rms": 0}, RATE, "rms: must be a finite number that is not 0"),
        ({"level": float("nan")}, RATE, "level: must be finite"),
        ({"direction": "dwn"}, RATE, "direction: unknown value 'dwn'; did you mean 'down'"),
        ({"learn": 0}, RATE, "learn: expected"),
    ],
)
def test_says_what_is_wrong(values: dict[str, float], rate: float, words: str) -> None:
    with pytest.raises(StreamError, match=words):
        Threshold.make(**values).start(Spec(rate=rate, channels=("a",)))
