"""Running z-score."""

from __future__ import annotations

from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rheobase.nodes.zscore import Zscore, write_moments
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.files import save_model
from rheobase.stream.fuse import Loop, apply


def signal(seed: int, n: int = 120) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3)) * [1, 5, 1e-3] + [0, -20, 1]
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


@given(st.integers(0, 2**32), st.sampled_from([2.0, 17.3, 1000.0]))
def test_equals_its_naive_twin(seed: int, window: float) -> None:
    x = signal(seed)
    y = apply(Zscore(window=window / 100), x, rate=100).data
    np.testing.assert_allclose(y, naive.by_channel(naive.zscore, x, window), rtol=1e-9, atol=1e-12)


def test_a_full_window_is_the_plain_z_score_of_all_the_past() -> None:
    x = np.random.default_rng(9).standard_normal((120, 3))
    y = apply(Zscore(window=10), x, rate=100).data
    np.testing.assert_allclose(y[-1], (x[-1] - x.mean(axis=0)) / x.std(axis=0), rtol=1e-12)


def test_a_large_offset_costs_no_digits() -> None:
    """The textbook's mean of squares less square of mean has none left here."""
    x = np.random.default_rng(10).integers(-8, 8, (120, 3)).astype(float)
    near, far = (apply(Zscore(window=10), x + offset, rate=100).data for offset in (0, 2.0**33))
    np.testing.assert_allclose(far, near, atol=1e-5)


def test_frozen_after_its_time() -> None:
    x = np.random.default_rng(11).standard_normal((120, 3))
    y = apply(Zscore(window=10, freeze=0.5), x, rate=100).data
    np.testing.assert_allclose(y[50:], (x[50:] - x[:50].mean(axis=0)) / x[:50].std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(y[:50], apply(Zscore(window=10), x, rate=100).data[:50])


def test_clip_bounds_the_output_and_nothing_else() -> None:
    x = signal(12)
    y, bounded = (apply(Zscore(window=10, clip=clip), x, rate=100).data for clip in (0, 1.5))
    np.testing.assert_array_equal(bounded, np.clip(y, -1.5, 1.5))
    assert np.nanmax(y) > 1.5


def test_a_constant_channel_gives_0() -> None:
    assert not apply(Zscore(), np.full((20, 1), 3.3), rate=100).data.any()


def test_what_was_learnt_outlasts_a_gap() -> None:
    x = signal(13)
    loop = Loop([Zscore(window=0.2)], [-1], [0])
    loop.start(Spec(rate=100, channels=numbered("c", 3)))
    t = np.arange(120) / 100
    parts = [Block(x[:70], t[:70]), Block(x[70:], t[70:] + 9, seq=70, segment=1)]
    got = np.concatenate([b.data for part in parts for _, b in loop.process(part)])
    np.testing.assert_array_equal(got, apply(Zscore(window=0.2), x, rate=100).data)


def test_has_no_unit() -> None:
    assert Zscore().start(Spec(rate=100, channels=("a",), unit="V")).unit == ""


def test_says_what_is_wrong() -> None:
    with pytest.raises(StreamError, match="regular rate"):
        Zscore().start(Spec(rate=0, channels=("a",)))
    with pytest.raises(StreamError, match=r"window: 0\.01 s are less than two samples at 100 Hz"):
        Zscore(window=0.01).start(Spec(rate=100, channels=("a",)))


def test_in_blocks_it_goes_by_the_block_before() -> None:
    x = signal(14)
    y = apply(Zscore(block=0.4, clip=2), x, rate=100).data
    for a in (40, 80):
        before = x[a - 40 : a]
        expected = (x[a : a + 40] - np.nanmean(before, axis=0)) / np.nanstd(before, axis=0)
        np.testing.assert_allclose(y[a : a + 40], np.clip(expected, -2, 2), rtol=1e-9)
    np.testing.assert_array_equal(y[:40], apply(Zscore(window=100, clip=2), x[:40], rate=100).data)


def test_a_channel_silent_for_a_block_keeps_the_one_before() -> None:
    x = np.random.default_rng(15).standard_normal((90, 2))
    x[30:60, 1] = np.nan
    y = apply(Zscore(block=0.3), x, rate=100).data
    np.testing.assert_allclose(y[60:, 0], (x[60:, 0] - x[30:60, 0].mean()) / x[30:60, 0].std(), rtol=1e-12)
    np.testing.assert_allclose(y[60:, 1], (x[60:, 1] - x[:30, 1].mean()) / x[:30, 1].std(), rtol=1e-12)


def test_a_model_is_mean_and_sd_in_every_run(tmp_path: Path) -> None:
    x, past = signal(16), signal(17)
    spec = Spec(rate=100, channels=numbered("x", 3))
    path = str(write_moments(tmp_path / "z.npz", spec, past))
    mean, sd = np.nanmean(past, axis=0), np.nanstd(past, axis=0)
    node = Zscore(model=path)
    node.check()
    np.testing.assert_allclose(apply(node, x, rate=100).data, (x - mean) / sd, rtol=1e-12)
    # and for the first of the blocks
    y = apply(Zscore(model=path, block=0.5), x, rate=100).data
    np.testing.assert_allclose(y[:50], ((x - mean) / sd)[:50], rtol=1e-12)
    np.testing.assert_allclose(y[50:100], ((x - np.nanmean(x[:50], axis=0)) / np.nanstd(x[:50], axis=0))[50:100])


def test_a_channel_that_does_not_vary_gives_0_by_a_model(tmp_path: Path) -> None:
    """The sd of 0.1, 0.1, ... is 0 and not what rounding leaves."""
    path = str(write_moments(tmp_path / "z.npz", Spec(rate=100, channels=("x0",)), np.full((1000, 1), 0.1)))
    assert not apply(Zscore(model=path), np.array([[0.1], [0.2]]), rate=100).data.any()


def test_a_channel_silent_for_the_first_block_goes_by_the_model(tmp_path: Path) -> None:
    x, past = (np.random.default_rng(k).standard_normal((60, 1)) for k in (21, 22))
    x[:30] = np.nan
    path = str(write_moments(tmp_path / "z.npz", Spec(rate=100, channels=("x0",)), past))
    y = apply(Zscore(model=path, block=0.3), x, rate=100).data
    np.testing.assert_allclose(y, (x - past.mean()) / past.std(), rtol=1e-12)


def test_a_model_can_be_swapped(tmp_path: Path) -> None:
    x, spec = signal(18), Spec(rate=100, channels=numbered("x", 3))
    one, two = (str(write_moments(tmp_path / f"{k}.npz", spec, signal(k))) for k in (19, 20))
    loop, fresh = Loop([Zscore(model=one)], [-1], [0]), Zscore(model=two)
    loop.start(spec)
    fresh.start(spec)
    t = np.arange(120) / 100
    got = [loop.process(Block(x[:70], t[:70]))[0][1].data]
    loop.swap(0, fresh.params, fresh.state)
    got.append(loop.process(Block(x[70:], t[70:], seq=70))[0][1].data)
    expected = [apply(Zscore(model=m), x, rate=100).data for m in (one, two)]
    np.testing.assert_array_equal(np.concatenate(got), np.concatenate([expected[0][:70], expected[1][70:]]))


def test_says_what_is_wrong_with_a_model_or_a_block(tmp_path: Path) -> None:
    spec = Spec(rate=100, channels=("a", "b"))
    path = str(write_moments(tmp_path / "z.npz", spec, np.ones((3, 2))))
    with pytest.raises(StreamError, match=r"z\.npz: was fitted on other channels: channel 1 was 'b', here it is 'c'"):
        Zscore(model=path).start(spec.replace(channels=("a", "c")))
    other = str(save_model(tmp_path / "o.npz", {}, {"node": "ridge", "in": {}, "out": {}}))
    with pytest.raises(StreamError, match=r"o\.npz: is of a 'ridge', this node is a 'zscore'"):
        Zscore(model=other).check()
    with pytest.raises(StreamError, match=r"no file 'gone\.npz'"):
        Zscore(model="gone.npz").check()
    with pytest.raises(StreamError, match=r"block: 0\.01 s are less than two samples"):
        Zscore(block=0.01).start(spec)
    with pytest.raises(StreamError, match="block, freeze: "):
        Zscore(block=1, freeze=1).start(spec)
    with pytest.raises(StreamError, match="channel 'b' has no sample that is finite"):
        write_moments(tmp_path / "z.npz", spec, [[1.0, np.nan]])
