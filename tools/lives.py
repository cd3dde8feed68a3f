"""How well remaining lives are told: the metrics of the C-MAPSS literature, coverage and CRPS.

d = told - true, in the unit of life; late (d > 0) is worse than early.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

F = NDArray[np.float64]
EARLY, LATE = 13.0, 10.0
"""Of the score: how fast it grows on each side; and the bounds between which one counts as right."""
LEVELS = (np.arange(10) + 0.5) / 10
"""Of the quantiles that `crps` looks at."""


def score(d: ArrayLike) -> float:
    """sum of exp(-d / 13) - 1 where early, exp(d / 10) - 1 where late (Saxena et al., PHM 2008)."""
    return float(scores(d).sum())


def scores(d: ArrayLike) -> F:
    """That of each unit."""
    d = np.asarray(d, float)
    return np.asarray(np.where(d < 0, np.exp(-d / EARLY), np.exp(d / LATE)) - 1)


def metrics(told: ArrayLike, true: ArrayLike) -> dict[str, float]:
    """rmse, mae, S (score), accuracy: % with -13 <= d <= 10, early and late: %; mape: % of the true life."""
    true = np.asarray(true, float)
    d = np.asarray(told, float) - true
    with np.errstate(divide="ignore"):
        mape = 100 * float(np.mean(np.abs(d) / true))
    return {
        "rmse": float(np.sqrt(np.mean(d**2))),
        "S": score(d),
        "mae": float(np.mean(np.abs(d))),
        "accuracy": 100 * float(np.mean((d >= -EARLY) & (d <= LATE))),
        "early": 100 * float(np.mean(d < 0)),
        "late": 100 * float(np.mean(d >= 0)),
        "mape": mape,
    }


def covered(low: F, high: F, true: F) -> tuple[float, float]:
    """Share of true lives in [low, high], and its mean width."""
    return float(np.mean((low <= true) & (true <= high))), float(np.mean(high - low))


def crps(quantiles: F, true: F) -> float:
    """Continuous ranked probability score, twice the mean pinball loss of the quantiles (n, 10) at `LEVELS`: in the
    unit of life, and for a point forecast the mean absolute error (Gneiting, Raftery, J Am Stat Assoc 102:359, 2007).
    """
    e = true[:, None] - quantiles
    return float(2 * np.mean(np.maximum(LEVELS * e, (LEVELS - 1) * e)))


def quantiles(G: F, alpha: F, levels: F = LEVELS) -> F:
    """(n, k) smallest r with P(life <= r) >= each of k levels, from survival G (N, R) and beliefs alpha (n, N)."""
    cdf = 1 - alpha @ G
    return (
        np.stack([np.argmax(np.column_stack([cdf[:, :-1], np.ones(len(cdf))]) >= u, axis=1) for u in levels], 1) * 1.0
    )
