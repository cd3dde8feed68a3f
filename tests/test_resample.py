"""Resample: equal to slow twins, on one grid for all streams, with holes where there is nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.devices.replay import Replay
from rheobase.nodes.lowpass import Lowpass
from rheobase.nodes.merge import Merge
from rheobase.nodes.resample import Resample
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.check import Alone
from rheobase.stream.engine import collect
from rheobase.stream.graph import Graph

SPEC = Spec(rate=100, channels=("a", "b"), unit="V", delay=0.2)


def run(node: Resample, spec: Spec, blocks: list[Block]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    alone = Alone(node, [spec])
    given = [y for x in blocks for y in alone.feed([x])]
    return (
        np.concatenate([y.times for y in given]),
        np.concatenate([y.data for y in given]),
        [y.segment for y in given for _ in range(len(y))],
    )


def twin(how: str, t: float, s: np.ndarray, u: np.ndarray, rate: float, gap: float) -> np.ndarray:
    """One sample of the grid from the samples that had come by then."""
    u, s = u[s <= t + 1e-9], s[s <= t + 1e-9]
    missing = np.full(u.shape[1], np.nan)
    if how == "hold":
        return u[-1] if t - s[-1] <= gap + 1e-9 else missing
    if how == "mean":
        inside = np.where(np.isfinite(u), u, np.nan)[s > t - 1 / rate + 1e-9]
        return np.array([np.mean(c[~np.isnan(c)]) if (~np.isnan(c)).any() else np.nan for c in inside.T])
    at = t - gap
    before, after = np.flatnonzero(s <= at), np.flatnonzero(s >= at)
    if not len(before) or not len(after) or s[after[0]] - s[before[-1]] > gap + 1e-9:
        return missing
    a, b = before[-1], after[0]
    return u[a] + (u[b] - u[a]) * ((at - s[a]) / (s[b] - s[a]) if b > a else 0.0)


@given(st.integers(0, 2**32), st.sampled_from(["hold", "linear", "mean"]), st.sampled_from([7.0, 40.0, 100.0, 333.0]))
def test_equals_its_slow_twin_on_a_stream_that_jitters_and_has_holes(seed: int, how: str, rate: float) -> None:
    rng = np.random.default_rng(seed)
    s = 5.003 + np.cumsum(rng.exponential(0.01, 80) + 0.1 * (rng.random(80) < 0.05))
    u = rng.standard_normal((80, 2))
    u[rng.random(u.shape) < 0.1] = np.nan
    node = Resample.make(rate=rate, how=how, gap=0.03)
    t, y, _ = run(node, SPEC.replace(rate=0), [Block(u, s)])
    k = np.arange(np.ceil(s[0] * rate), np.floor(s[-1] * rate) + 1)
    np.testing.assert_array_equal(t, k / rate)
    expected = np.array([twin(how, x, s, u, rate, 0.03) for x in t]).reshape(y.shape)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-9)


def test_streams_of_different_rates_meet_on_one_grid() -> None:
    """Whatever their rates, phases and jitter: times equal to the bit, a ramp late by the declared delay."""
    rng = np.random.default_rng(0)
    ends = []
    for rate, how in ((285.714, "linear"), (29.3, "linear"), (1000.0, "mean")):
        s = rng.uniform(0, 0.1) + np.arange(int(3 * rate)) / rate
        s += rng.uniform(0, 0.2 / rate, len(s)) * (how == "linear")
        node = Resample.make(rate=50, how=how)
        out = node.start(SPEC.replace(rate=rate, delay=0))
        t, y, _ = run(node, SPEC.replace(rate=rate), [Block(np.stack([s, -s], axis=1), s)])
        there = np.isfinite(y[:, 0])
        there[0] &= how != "mean"  # of a part of its time
        assert there[8:].all() and out.rate == 50
        atol = 1e-9 if how == "linear" else 0.5 / rate  # a mean is exact where the grid meets the samples
        np.testing.assert_allclose(y[there, 0], t[there] - out.delay, atol=atol)
        ends.append(t[(t > 0.5) & (t < 2.5)])
    assert ends[0].tobytes() == ends[1].tobytes() == ends[2].tobytes()


def test_a_rate_on_the_grid_is_itself() -> None:
    s = np.arange(300, 350) / 100
    u = np.random.default_rng(1).standard_normal((50, 2))
    t, y, _ = run(Resample(rate=100), SPEC, [Block(u, s)])
    np.testing.assert_array_equal(t, s)
    np.testing.assert_array_equal(y, u)
    t, y, _ = run(Resample(rate=50, how="mean"), SPEC, [Block(u, s)])
    np.testing.assert_allclose(y[1:], (u[1:-1:2] + u[2::2]) / 2)


def test_a_new_segment_breaks_the_grid_off() -> None:
    """No sample between the segments, nothing held over from the one before."""
    s, u = np.arange(20) / 100, np.ones((20, 2))
    for how in ("hold", "linear", "mean"):
        node = Resample.make(rate=100, how=how, gap=0.05)
        t, y, segment = run(node, SPEC, [Block(u, s), Block(2 * u, s + 3.001, 20, 1)])
        assert segment == [0] * 20 + [1] * 19
        np.testing.assert_allclose(t[20:], np.arange(301, 320) / 100)
        assert np.isnan(y).any() == (how == "linear") and set(y[20:][np.isfinite(y[20:])]) == {2.0}


@pytest.mark.parametrize("how", ["hold", "linear", "mean"])
def test_a_long_silence_is_not_filled_for_ever(how: str) -> None:
    """An hour without an event, then a clock that jumps by years: 60 s of missing ones each, however it was cut."""
    s = np.array([0.0, 0.004, 3600.0005, 3600.004, 3660.0, 1e9, 1e9 + 0.003])
    u = np.arange(14.0).reshape(7, 2)
    spec = SPEC.replace(rate=0)
    whole = run(Resample.make(rate=1000, how=how, gap=0.005), spec, [Block(u, s)])
    single = [Block(u[k : k + 1], s[k : k + 1], k) for k in range(7)]
    cut = run(Resample.make(rate=1000, how=how, gap=0.005), spec, single)
    t, y, _ = whole
    for a, b in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(a, b)
    k = [np.arange(60005), np.arange(3600001, 3720001), np.arange(10**12, 10**12 + 4)]
    np.testing.assert_array_equal(t, np.concatenate(k) / 1000)
    near = np.flatnonzero(np.abs(t[:, None] - s).min(axis=1) < 0.02)
    expected = np.array([twin(how, x, s, u, 1000, 0.005) for x in t[near]])
    atol = 1e-3 if how == "linear" else 1e-9  # at 1e9 s a time is known to 1e-7 s, of 3e-3 s between samples
    np.testing.assert_allclose(y[near], expected, rtol=0, atol=atol)
    assert np.isnan(np.delete(y, near, axis=0)).all()


def test_a_low_pass_before_it_keeps_aliases_out() -> None:
    """45 Hz at 100 Hz is 5 Hz at 50 Hz: with the low-pass before, a hundredth of it."""
    s = np.arange(1000) / 100
    u = np.sin(2 * np.pi * 45 * s)[:, None]
    low = Alone(Lowpass(corner=10), [SPEC.replace(channels=("a",))])
    [filtered] = low.feed([Block(u, s)])
    worst = []
    for x in (Block(u, s), filtered):
        node = Resample(rate=50)
        _, y, _ = run(node, low.out, [x])
        worst.append(np.abs(y[100:]).max())
    assert worst[0] > 0.9 and worst[1] < 0.01
    assert Resample(rate=50).start(low.out).delay == low.out.delay > 0.2


def test_what_the_delay_is() -> None:
    for how, gap, rate, expected in (
        ("hold", 0.0, 100, 0.2),
        ("linear", 0.0, 100, 0.215),
        ("linear", 0.05, 0, 0.25),
        ("mean", 0.0, 100, 0.22),
        ("mean", 0.0, 0, 0.225),
    ):
        out = Resample.make(rate=20, how=how, gap=gap).start(SPEC.replace(rate=rate))
        assert out.delay == pytest.approx(expected), (how, gap, rate)


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="gap: the input is irregular"):
        Resample(rate=10).start(SPEC.replace(rate=0))
    with pytest.raises(StreamError, match="its input is text"):
        Resample(rate=10).start(SPEC.replace(dtype="str"))
    with pytest.raises(StreamError, match="rate: expected"):
        Resample.make(rate=0)


def test_resampled_recordings_meet_in_a_graph(tmp_path: Path) -> None:
    """Two streams of other rates, merged: at each time of the grid what both gave for it, however blocks were cut."""
    rng = np.random.default_rng(0)
    for name, rate in ("a", 90.0), ("b", 37.0):
        s = np.arange(int(5 * rate)) / rate + rng.uniform(0, 0.3 / rate, int(5 * rate))
        np.savez(tmp_path / f"{name}.npz", x=s, t=s)
    seen = []
    for chunks in ((1024, 1024), (1, 7), (13, 1), (5, 30)):
        graph = Graph("g")
        for name, rate, chunk in zip("ab", (90.0, 37.0), chunks, strict=True):
            file = str(tmp_path / f"{name}.npz")
            graph.add(name, Replay(file=file, stream="x", times="t", rate=rate, chunk=chunk))
            graph.add(f"{name}_grid", Resample(rate=50, how="linear", gap=0.05), name)
        graph.add("both", Merge(), ["a_grid", "b_grid"])
        got = collect(graph, ["both"])["both"]
        np.testing.assert_array_equal(got.times, np.arange(1, len(got) + 1) / 50)
        assert len(got) == 249
        middle = slice(5, -3)  # where both are there
        np.testing.assert_allclose(got.data[middle], np.tile(got.times[middle, None] - 0.05, 2), atol=1e-9)
        seen.append(got.data.tobytes())
    assert len(set(seen)) == 1
