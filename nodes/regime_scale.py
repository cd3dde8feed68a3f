"""Channels as they are for the regime that a machine is run in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, Fraction, Seed, kernel

TRIES = 10
"""First centres drawn for the regimes; the tightest ones are taken."""


class RegimeScaleParams(NamedTuple):
    """centre (r, k) of the regimes in `per` (k,) of each setting, 1 / sd; mean and gain, 1 / sd, there (r, m) of the
    channels chosen (m,). Where nothing varies, 0."""

    centre: NDArray[np.float64]
    per: NDArray[np.float64]
    mean: NDArray[np.float64]
    gain: NDArray[np.float64]
    chosen: NDArray[np.int64]


class RegimeScale(Decoder):
    """y_c = (x_c - mean_rc) / sd_rc for the regime r whose centre is nearest to the settings.

    The first `conditions` channels, the settings, say how a machine is run (altitude, speed, throttle), the others are
    sensors. The regimes are clusters of the settings in training (k-means, distances in sd of each setting); mean and
    sd are those of all training samples of a regime. Of the sensors are kept those that vary, and whose y goes with z
    by a correlation of at least `least` in training: what wears should show there.

    A missing sensor is missing in y; with a missing setting all are. Errors: more regimes than samples.
    """

    conditions: Count = 3
    """How many of the channels, from the first on, are settings."""

    regimes: Count = 1
    """Clusters of the settings."""

    least: Fraction = 0.05
    """Least correlation with z, in absolute value, of a sensor that is kept."""

    seed: Seed = 0
    """Of the first centres."""

    shapes = {"centre": "r k", "per": "k", "mean": "r m", "gain": "r m", "chosen": "m"}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        X, k = data.X[data.rows], self.conditions
        if k >= X.shape[1]:
            raise StreamError(f"conditions: {k} of {X.shape[1]} channels leave no sensor")
        U, S = X[:, :k], X[:, k:]
        per = _inverse(U.std(axis=0), np.abs(U).max(axis=0))
        centre = clusters(U * per, self.regimes, np.random.default_rng(self.seed))
        r = _nearest(U * per, centre)
        mean = np.stack([S[r == i].mean(axis=0) for i in range(self.regimes)])
        gain = np.stack([_inverse(S[r == i].std(axis=0), np.abs(m)) for i, m in enumerate(mean)])
        Y = (S - mean[r]) * gain[r]
        z = data.Z[data.rows, 0]
        spread = Y.std(axis=0) * z.std()
        with np.errstate(invalid="ignore", divide="ignore"):
            correlation = np.abs((Y * (z - z.mean())[:, None]).mean(axis=0)) / spread
        chosen = np.flatnonzero((Y.std(axis=0) > 0.5) & (correlation >= self.least))
        if not len(chosen):
            raise StreamError(f"least: no sensor goes with z by a correlation of {self.least:g}")
        return dict(centre=centre, per=per, mean=mean[:, chosen], gain=gain[:, chosen], chosen=chosen.astype(float))

    @property
    def judged(self) -> bool:
        return False

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        return out.replace(channels=tuple(x.channels[c] for c in self.params.chosen), unit="")

    def ready(self, x: Spec, centre: Array, per: Array, mean: Array, gain: Array, chosen: Array) -> None:
        self.params = RegimeScaleParams(centre, per, mean, gain, chosen.astype(np.int64) + self.conditions)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        best, least = 0, np.inf
        whole = True
        for r in range(params.centre.shape[0]):
            far = 0.0
            for k in range(params.per.shape[0]):
                whole &= np.isfinite(x[k])
                e = x[k] * params.per[k] - params.centre[r, k]
                far += e * e
            if far < least:
                best, least = r, far
        for j in range(y.shape[0]):
            y[j] = (x[params.chosen[j]] - params.mean[best, j]) * params.gain[best, j] if whole else np.nan
        return True


def clusters(U: Array, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Centres (k, n) of k clusters of the rows of U: the tightest of several tries (Lloyd; first centres drawn far from
    each other: Arthur and Vassilvitskii, SODA 2007:1027).

    Raises StreamError where there are fewer different rows.
    """
    best, least = np.empty(0), np.inf
    for _ in range(TRIES if k > 1 else 1):
        centre = U[rng.integers(len(U))][None]
        while len(centre) < k:
            far = ((U[:, None] - centre) ** 2).sum(axis=2).min(axis=1)
            if not far.any():
                raise StreamError(f"regimes: the settings have only {len(centre)} different values")
            centre = np.vstack([centre, U[rng.choice(len(U), p=far / far.sum())]])
        for _ in range(100):
            r = _nearest(U, centre)
            moved = np.stack([U[r == i].mean(axis=0) if (r == i).any() else centre[i] for i in range(k)])
            if np.allclose(moved, centre, rtol=0, atol=1e-12):
                break
            centre = moved
        r = _nearest(U, centre)
        wide = float(((U - centre[r]) ** 2).sum())
        if wide < least and len(np.unique(r)) == k:
            best, least = centre[np.lexsort(centre.T[::-1])], wide
    if not len(best):
        raise StreamError(f"regimes: the settings do not make {k} clusters")
    return np.asarray(best)


def _nearest(U: Array, centre: Array) -> NDArray[np.int64]:
    return np.asarray(((U[:, None] - centre) ** 2).sum(axis=2).argmin(axis=1))


def _inverse(sd: Array, size: Array) -> NDArray[np.float64]:
    """1 / sd, 0 where that is nothing beside the size of the numbers."""
    moves = sd > 1e-8 * size
    return np.where(moves, 1 / np.where(moves, sd, 1.0), 0.0)
