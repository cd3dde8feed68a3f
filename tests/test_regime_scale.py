"""Channels less what the regime makes of them."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes.regime_scale import RegimeScale
from rheobase.stream.block import Spec, StreamError

F = NDArray[np.float64]
SPEC = Spec(rate=0, channels=("altitude", "fixed", "wears", "noise", "dead"))


def flights(T: int = 600, seed: int = 0) -> tuple[F, F, NDArray[np.int64]]:
    """X (T, 5) at three altitudes, where one sensor falls with life; life (T, 1), and the altitude's number."""
    rng = np.random.default_rng(seed)
    r, life = rng.integers(3, size=T), np.arange(T)[::-1] * 1.0
    altitude = np.array([0.0, 10.0, 35.0])[r] + 0.01 * rng.standard_normal(T)
    wears = np.array([5.0, -3.0, 100.0])[r] + np.array([1.0, 2.0, 0.1])[r] * (life / T + 0.2 * rng.standard_normal(T))
    dead = np.array([1.0, 2.0, 3.0])[r]
    return np.column_stack([altitude, np.full(T, 0.84), wears, rng.standard_normal(T), dead]), life[:, None], r


def test_equals_the_moments_of_each_regime() -> None:
    X, life, r = flights()
    node = RegimeScale(conditions=2, regimes=3, least=0.2).fit(X, life, inputs=SPEC)
    expected = np.empty(len(X))
    for k in range(3):
        x = X[r == k, 2]
        expected[r == k] = (x - x.mean()) / x.std()
    np.testing.assert_allclose(node.predict(X)[:, 0], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.sort(node.arrays["centre"][:, 0]), np.sort([X[r == k, 0].mean() for k in range(3)])
                               / X[:, 0].std(), atol=1e-9)  # fmt: skip
    assert (node.arrays["centre"][:, 1] == 0).all(), "a setting that never varies does not count"


def test_keeps_what_wears() -> None:
    X, life, _ = flights()
    node = RegimeScale(conditions=2, regimes=3, least=0.2).fit(X, life, inputs=SPEC)
    assert node.start(SPEC).channels == ("wears",)
    assert RegimeScale(conditions=2, regimes=3, least=0).fit(X, life, inputs=SPEC).start(SPEC).channels == (
        "wears",
        "noise",
    )


def test_a_missing_sensor_is_missing_a_missing_setting_is_all() -> None:
    X, life, _ = flights()
    node = RegimeScale(conditions=2, regimes=3, least=0).fit(X, life)
    X = X[:4].copy()
    X[1, 2], X[2, 1] = np.nan, np.inf
    assert np.isfinite(node.predict(X)).tolist() == [[True, True], [False, True], [False, False], [True, True]]


@pytest.mark.parametrize(
    "given, words",
    [
        ({"conditions": 5}, "leave no sensor"),
        ({"conditions": 2, "regimes": 4}, "regimes: the settings have only 3 different values"),
        ({"conditions": 2, "least": 1.0}, "no sensor goes with z"),
    ],
)
def test_what_is_refused(given: dict[str, float], words: str) -> None:
    X, life, _ = flights()
    X[:, 0] = X[:, 0].round()
    with pytest.raises(StreamError, match=words):
        RegimeScale.make(**given).fit(X, life)
