"""Sequence models of one level: what is not in `test_layers.py` and `test_hiss.py`."""

from pathlib import Path

import numpy as np
import pytest
from levels import batch, held, small

from rheobase.nodes.sequence import Sequence
from rheobase.stream.block import Spec


def test_an_estimate_with_every_kth_sample() -> None:
    X = np.random.default_rng(0).standard_normal((23, 3))
    every, third = (held(Sequence(net=small("lstm"), k=k, chunks=8)) for k in (1, 3))
    Y = third.predict(X)
    assert np.array_equal(Y[2::3], every.predict(X)[2::3])
    assert np.isnan(np.delete(Y, np.s_[2::3], axis=0)).all()
    assert np.abs(Y[2:21:3] - batch(third, X[:21])).max() < 1e-12
    assert third.start(Spec(rate=50, channels=("a", "b", "c"))).rate == 50 / 3


def test_a_sample_without_a_value_is_missing() -> None:
    X = np.random.default_rng(1).standard_normal((12, 3))
    node = held(Sequence(net=small("lstm"), chunks=8))
    holed, filled = X.copy(), X.copy()
    holed[4], filled[4] = np.nan, node.arrays["x_mean"]
    Y = node.predict(holed)
    assert np.isnan(Y[4]).all()
    assert np.array_equal(np.delete(Y, 4, axis=0), np.delete(node.predict(filled), 4, axis=0))


def test_learns_and_is_saved(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    X = np.random.default_rng(2).standard_normal((600, 3))
    Z = np.cumsum(X, axis=0)[:, :2] * 0.1
    node = Sequence(net=small("lstm"), chunks=20, epochs=2).fit(X, Z)
    path = node.save(tmp_path / "model.npz")
    again = Sequence(net=small("lstm"), chunks=20, epochs=2, model=str(path))
    assert np.array_equal(again.predict(X), node.predict(X))
