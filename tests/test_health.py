"""Health indicator by robust regression."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.health import Health, bisquare, wear
from rheobase.stream.block import StreamError

F = NDArray[np.float64]


def worn(seed: int = 0) -> tuple[F, F, NDArray[np.int64]]:
    """Sensors (T, 3) that say how worn 6 units are, life (T, 1), unit (T,)."""
    rng = np.random.default_rng(seed)
    lives = [np.arange(T)[::-1] * 1.0 for T in rng.integers(60, 120, 6)]
    h = np.concatenate([wear(r) for r in lives])
    X = np.column_stack([2 * h + 1, -h, 0 * h]) + 0.1 * rng.standard_normal((len(h), 3))
    return X, np.concatenate(lives)[:, None], np.repeat(np.arange(6), [len(r) for r in lives])


def test_the_target_falls_from_one_to_nought() -> None:
    h = wear(np.arange(100)[::-1] * 1.0)
    assert (h[:5] == 1).all() and (h[95:] == 0).all() and (np.diff(h) <= 0).all()
    y = 49 / 99  # of life still to come, at the 51st sample
    assert h[50] == pytest.approx(1 - np.exp(-y * -np.log(0.05) / (0.95 * 100 / 99)), abs=1e-12)


def test_outliers_do_not_move_the_regression() -> None:
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(300), rng.standard_normal((300, 2))])
    y = X @ [1.0, 2.0, -3.0] + 0.1 * rng.standard_normal(300)
    clean = bisquare(X, y)
    np.testing.assert_allclose(clean, np.linalg.lstsq(X, y)[0], atol=0.01)
    y[:40] += 50
    np.testing.assert_allclose(bisquare(X, y), clean, atol=0.03)
    assert np.abs(np.linalg.lstsq(X, y)[0] - clean).max() > 1
    np.testing.assert_allclose(bisquare(X, X @ [1.0, 2.0, -3.0]), [1, 2, -3], atol=1e-9)


def test_tells_how_worn_a_unit_is_and_smooths_what_it_says() -> None:
    X, life, unit = worn()
    other, r, u = worn(1)
    target = np.concatenate([wear(r[u == k, 0]) for k in range(6)])
    rough = Health(smooth=1).fit(X, life, segment=unit)
    smooth = Health(smooth=8).hold(rough.arrays, rough.header["in"], rough.header["out"])
    raw, slow = rough.predict(other, u)[:, 0], smooth.predict(other, u)[:, 0]
    assert np.corrcoef(raw, target)[0, 1] > 0.95
    assert np.std(np.diff(slow[u == 0])) < 0.4 * np.std(np.diff(raw[u == 0]))
    h = 0.0
    for t in range(30):  # the first unit begins at the mean of what it has said
        h += max(1 / (t + 1), 1 / 8) * (raw[t] - h)
        assert slow[t] == pytest.approx(h, abs=1e-12)


def test_a_unit_that_lives_on_cannot_teach_it() -> None:
    X, life, unit = worn()
    with pytest.raises(StreamError, match="down to 0 at the end of each segment"):
        Health().fit(X, life + 1, segment=unit)


def test_a_missing_sensor_leaves_it_as_it_is() -> None:
    X, life, unit = worn()
    node = Health().fit(X, life, segment=unit)
    X = X[:10].copy()
    X[0, 1], X[5, 2] = np.nan, np.nan
    y = node.predict(X)[:, 0]
    assert np.isnan(y[0]) and y[5] == y[4] and np.isfinite(y[1:]).all()
