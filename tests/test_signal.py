"""The test signal: what it says it is, whatever the chunks, and on time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rheobase.devices.signal import Signal
from rheobase.stream.block import StreamError
from rheobase.stream.clock import now


def run(**parameters: Any) -> tuple[Any, Any]:
    node = Signal.make(paced=False, **parameters)
    node.start()
    blocks = list(node.blocks())
    assert [b.seq for b in blocks if b] == [0, *itertools.accumulate(len(b) for b in blocks if b)][:-1]
    return np.concatenate([b.data for b in blocks if b]), np.concatenate([b.times for b in blocks if b])


@given(chunk=st.integers(1, 700), channels=st.integers(1, 9), first=st.integers(0, 2**40), seed=st.integers(-5, 2**70))
def test_any_chunks_give_the_same_bits(chunk: int, channels: int, first: int, seed: int) -> None:
    parameters = {"channels": channels, "seconds": 0.5, "seed": seed}
    whole, times = run(chunk=500, **parameters)
    cut, cut_times = run(chunk=chunk, **parameters)
    assert cut.tobytes() == whole.tobytes() and cut_times.tobytes() == times.tobytes()
    node = Signal.make(**parameters)
    parts = [node.samples(first, first + chunk), node.samples(first + chunk, first + chunk + 3)]
    assert np.concatenate(parts).tobytes() == node.samples(first, first + chunk + 3).tobytes()


def test_it_is_the_formula() -> None:
    x, t = run(channels=3, rate=250, frequency=7, amplitude=2, noise=0, seconds=2)
    assert np.array_equal(t, np.arange(500) / 250)
    for i in range(3):
        assert np.abs(x[:, i] - 2 * np.sin(2 * np.pi * (7 * t + i / 3))).max() < 1e-12


def test_the_noise_is_white_and_normal() -> None:
    x, _ = run(channels=4, amplitude=0, noise=3, seconds=50)
    assert stats.kstest(x.ravel() / 3, "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.02
    assert np.abs([np.corrcoef(c[:-1], c[1:])[0, 1] for c in x.T]).max() < 0.02
    other, _ = run(channels=4, amplitude=0, noise=3, seconds=50, seed=1)
    assert abs(np.corrcoef(x.ravel(), other.ravel())[0, 1]) < 0.02


def test_paced_no_sample_comes_before_its_time_and_a_long_wait_gives_signs_of_life() -> None:
    node = Signal.make(rate=20, chunk=5, seconds=0.75)
    node.start()
    assert node.live and not Signal.make(paced=False).live
    begin, signs, got = now(), 0, []
    for b in node.blocks():
        if b is None:
            signs += 1
            continue
        assert b.times[-1] <= now()
        got.append(b)
    assert [len(b) for b in got] == [5, 5, 5]
    assert signs >= 4
    assert got[0].times[0] >= begin
    times = np.concatenate([b.times for b in got])
    assert np.array_equal(times, times[0] + np.arange(15) / 20)


def test_without_an_end_it_goes_on() -> None:
    node = Signal.make(paced=False, chunk=100_000)
    node.start()
    assert sum(len(b) for b in itertools.islice(node.blocks(), 20) if b) == 2_000_000


@pytest.mark.parametrize("key", ["rate", "channels", "chunk"])
def test_what_cannot_be(key: str) -> None:
    with pytest.raises(StreamError, match=f"{key}: "):
        Signal.make(**{key: 0})
