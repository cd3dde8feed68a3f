"""Whether a decoder knows how far it is off: the share of the truth that its ellipses cover."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

F = NDArray[np.float64]
LEVELS = (0.5, 0.9, 0.95)


def coverage(Z: F, mu: F, Sigma: F, levels: Sequence[float] = LEVELS) -> dict[float, float]:
    """Share of the truth Z (T, d) within the ellipse of each level about mu (T, d), for covariances Sigma (T, d, d).

        share of t with (z - mu)' Sigma^-1 (z - mu) <= q,   q: quantile of chi^2 with d degrees of freedom

    A Gaussian posterior that is right covers 0.5 at the level 0.5. Rows with a value that is not finite are left out;
    NaN where none is left. Raises ValueError where the shapes do not suit.
    """
    import scipy.stats

    square = distance(Z, mu, Sigma)
    square = square[np.isfinite(square)]
    d = Z.shape[1]
    return {p: float(np.mean(square <= scipy.stats.chi2.ppf(p, d))) if len(square) else np.nan for p in levels}


def nees(Z: F, mu: F, Sigma: F) -> float:
    """Mean of (z - mu)' Sigma^-1 (z - mu) / d: 1 where Sigma is right, more where it is too small."""
    return float(np.nanmean(distance(Z, mu, Sigma)) / Z.shape[1])


def distance(Z: F, mu: F, Sigma: F) -> F:
    """(z - mu)' Sigma^-1 (z - mu), (T,); NaN where a value is not finite."""
    Z, mu, Sigma = (np.asarray(a, np.float64) for a in (Z, mu, Sigma))
    T, d = Z.shape
    if mu.shape != (T, d) or Sigma.shape != (T, d, d):
        raise ValueError(f"Z {Z.shape}, mu {mu.shape} and Sigma {Sigma.shape} are not (T, d), (T, d) and (T, d, d)")
    e = (Z - mu)[:, :, None]
    there = np.isfinite(e).all(axis=(1, 2)) & np.isfinite(Sigma).all(axis=(1, 2))
    square = np.full(T, np.nan)
    square[there] = (e[there] * np.linalg.solve(Sigma[there], e[there])).sum(axis=(1, 2))
    return square
