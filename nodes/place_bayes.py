"""Bayesian decoder of place from spike counts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, NotNegative, Positive, kernel

FOLDS = 5
WIDTHS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""Widths of smoothing tried, in sides of a cell."""
PSEUDO = 0.1
"""Samples at a unit's mean count that each cell is thought to have seen besides its own: no rate is 0."""


class PlaceBayesParams(NamedTuple):
    """For m of `points` cells: place (d, points), log_rate (n, points), rate (points,) summed over units, log_prior
    (points,); move (points, points) from row to column, with a walk only; give: 0 mode, 1 mean, 2 covariance.
    """

    place: NDArray[np.float64]
    log_rate: NDArray[np.float64]
    rate: NDArray[np.float64]
    log_prior: NDArray[np.float64]
    move: NDArray[np.float64]
    m: NDArray[np.int64]
    within: float
    walk: bool
    give: int


class PlaceBayesState(NamedTuple):
    """ring (lags, n) of samples, `whole` (lags,) of them, at (1,) the next row; p (points,) the posterior over the
    cells `of` (d, points), begun (1,); log_p (points,), fired (n,), mean (d,): room.
    """

    ring: NDArray[np.float64]
    whole: NDArray[np.int64]
    at: NDArray[np.int64]
    p: NDArray[np.float64]
    of: NDArray[np.float64]
    begun: NDArray[np.int64]
    log_p: NDArray[np.float64]
    fired: NDArray[np.float64]
    mean: NDArray[np.float64]


class PlaceBayes(Decoder):
    """Where an animal is, from what its place cells fire: units that fire as Poisson at a rate that the place sets.

        log p(c_i | n) = log p(c_i) + sum_j n_j log lambda_j(c_i) - lambda_j(c_i) + const

    over the cells c_i of a grid that training visited; n (n,) counts of the last `lags` samples, lambda_j(c) what unit
    j fires in such a window at c: the mean of the training windows, weighted by exp(-|z - c|^2 / 2 smooth^2). p(c) is
    the share of time spent there: memoryless. With `walk` it is what the last sample left, after a random walk,
    which is the filter that knows most of all here. Zhang, Ginzburg, McNaughton, Sejnowski, J Neurophysiol 79:1017,
    1998; the walk after Brown et al., J Neurosci 18:7411, 1998.

    Samples that are missing, or before the start, shorten the window. Where the present one is missing, NaN; with a
    walk what is known without it. Errors: counts below 0.
    """

    cell: Positive | None = None
    """Side of a cell, in the unit of z; none: 1/30 of the widest range of z."""

    smooth: Positive | None = None
    """Standard deviation of the smoothing of rates, in the unit of z; none: the one of most likelihood of the counts in
    five stretches of the training rows left out in turn."""

    lags: Count = 1
    """Samples counted together: this one and lags - 1 before it. With a walk each would be counted so many times."""

    walk: NotNegative = 0.0
    """Standard deviation of the random walk between two samples, in the unit of z; 0: memoryless."""

    directional: bool = False
    """Each cell counts twice, for the way along the axis of most variance of z and for the way back: on a track a place
    cell fires on one of them. Which way it was, training sees from the last movement."""

    give: Literal["mode", "mean", "covariance"] = "mode"
    """The most likely cell; the mean of the posterior, which errs least in the square; or its covariance (d d,)."""

    points: Count = 1000
    """Most cells."""

    shapes = {"place": "m k", "way": "m", "lambda": "m n", "occupied": "m", "smooth": "", "side": "", "turn": ""}
    adjustable = ("model", "give", "walk", "points")

    def noise(self) -> Self:
        """The same decoder, that gives the covariance: what a DKF takes for Q(x)."""
        return dataclasses.replace(self, give="covariance")

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        there = np.asarray(np.isfinite(data.X).all(axis=1))
        if (data.X[there] < 0).any():
            raise StreamError("takes counts, and its input goes below 0")
        # the sum and the number of the whole samples of each window
        some = np.column_stack([np.where(there[:, None], data.X, 0.0), there])
        whole = Training(some, data.Z, data.rows, data.segment)
        W = whole.windows(self.lags, np.zeros(some.shape[1])).reshape(len(some), self.lags, -1).sum(axis=1)
        way, turn = _ways(data) if self.directional else (np.zeros(len(data.Z)), 0.5)
        rows = data.rows & np.isfinite(way)
        if not rows.any():
            raise StreamError("directional: no two neighbouring rows to see a direction from")
        N, Z = W[rows, :-1] * (self.lags / W[rows, -1:]), np.column_stack([data.Z, way])[rows]
        side = self.cell or float(np.ptp(Z[:, :-1], axis=0).max()) / 30 or 1.0
        cells = np.unique(np.column_stack([np.round(Z[:, :-1] / side) * side, Z[:, -1]]), axis=0)
        if len(cells) > self.points:
            raise StreamError(f"cell: {side:g} makes {len(cells)} cells, more than points = {self.points}")
        place, way = cells[:, :-1], cells[:, -1]
        D = ((place[:, None] - Z[:, :-1]) ** 2).sum(axis=2)
        D[way[:, None] != Z[:, -1]] = np.inf
        smooth = float(like["smooth"]) if like else self.smooth or _smoothing(D, N, side)
        rate, occupied = _rates(D, N, smooth)
        return {"place": place, "way": way, "lambda": rate, "occupied": occupied / occupied.sum(),
                "smooth": np.array(smooth), "side": np.array(side), "turn": np.array(turn)}  # fmt: skip

    def ready(
        self, x: Spec, place: Array, way: Array, occupied: Array, smooth: Array, side: Array, turn: Array,
        **more: Array,
    ) -> None:  # fmt: skip
        rate = more["lambda"]
        (m, d), p = place.shape, self.points
        if m > p:
            raise StreamError(f"points: {p} are fewer than the {m} cells of the model")

        def padded(a: Array, *shape: int) -> Array:
            b = np.zeros(shape)
            b[tuple(slice(k) for k in a.shape)] = a
            return b

        size = p if self.walk else 0
        move = np.zeros((size, size))
        if self.walk:
            K = np.exp(-((place[:, None] - place) ** 2).sum(axis=2) / (2 * self.walk**2))
            K *= np.where(way[:, None] == way, 1 - turn, turn)
            move[:m, :m] = K / K.sum(axis=1, keepdims=True)
        cells = padded(place.T, d, p)
        self.params = PlaceBayesParams(
            cells, padded(np.log(rate).T, x.n, p), padded(rate.sum(axis=1), p),
            padded(np.log(occupied), p), move, np.array([m]), float(side) ** 2 / 12, bool(self.walk),
            ("mode", "mean", "covariance").index(self.give),
        )  # fmt: skip
        self.state = PlaceBayesState(
            np.zeros((self.lags, x.n)), np.zeros(self.lags, np.int64), np.zeros(1, np.int64), np.zeros(p),
            cells.copy(), np.zeros(1, np.int64), np.zeros(p), np.zeros(x.n), np.zeros(d),
        )  # fmt: skip

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        if params.walk:
            _same_cells(params, state)
        there = _window(state, x)
        if there == 0 and not (params.walk and state.begun[0]):
            for c in range(y.shape[0]):
                y[c] = np.nan
            return True
        _posterior(params, state, there)
        m, place, p, log_p, mean = params.m[0], params.place, state.p, state.log_p, state.mean
        d = mean.shape[0]
        if params.give == 0:
            best = 0
            for i in range(m):
                if log_p[i] > log_p[best]:
                    best = i
            for c in range(d):
                y[c] = place[c, best]
            return True
        for c in range(d):
            mean[c] = 0.0
            for i in range(m):
                mean[c] += p[i] * place[c, i]
        if params.give == 1:
            for c in range(d):
                y[c] = mean[c]
            return True
        for a in range(d):
            for b in range(d):
                v = params.within if a == b else 0.0  # a cell is a place only to its side
                for i in range(m):
                    v += p[i] * (place[a, i] - mean[a]) * (place[b, i] - mean[b])
                y[a * d + b] = v
        return True


@kernel
def _same_cells(params, s):
    """Begin anew where p is of other cells than those of the model, which was swapped in meanwhile."""
    d, points = s.of.shape
    for c in range(d):
        for i in range(points):
            if s.of[c, i] != params.place[c, i]:
                s.begun[0] = 0
                s.of[c, i] = params.place[c, i]


@kernel
def _window(s, x):
    """The count of the window with x in it. Returns how many whole samples it has: 0 where x itself is none."""
    lags, n = s.ring.shape
    at = s.at[0]
    s.at[0] = at + 1 if at + 1 < lags else 0
    whole = True
    for j in range(n):
        whole &= np.isfinite(x[j])
    s.whole[at] = whole
    for j in range(n):
        s.ring[at, j] = x[j] if whole else 0.0
    there = 0
    for j in range(n):
        s.fired[j] = 0.0
    for k in range(lags):
        there += s.whole[k]
        for j in range(n):
            s.fired[j] += s.ring[k, j]
    return there if whole else 0


@kernel
def _posterior(params, s, there):
    """p (m,) and, up to a constant, its logarithm, by a window of so many whole samples."""
    m, p, log_p = params.m[0], s.p, s.log_p
    if params.walk and s.begun[0]:
        for i in range(m):
            log_p[i] = 0.0
        for k in range(m):
            pk = p[k]
            row = params.move[k]
            for i in range(m):
                log_p[i] += pk * row[i]
        for i in range(m):
            log_p[i] = math.log(log_p[i]) if log_p[i] > 1e-300 else -690.0  # never quite impossible
    else:
        for i in range(m):
            log_p[i] = params.log_prior[i]
    s.begun[0] = 1
    if there > 0:
        share = there / s.ring.shape[0]
        for i in range(m):
            log_p[i] -= share * params.rate[i]
        for j in range(s.fired.shape[0]):
            k = s.fired[j]
            if k != 0.0:
                row = params.log_rate[j]
                for i in range(m):
                    log_p[i] += k * row[i]
    most = -np.inf
    for i in range(m):
        most = max(most, log_p[i])
    total = 0.0
    for i in range(m):
        p[i] = math.exp(log_p[i] - most)
        total += p[i]
    for i in range(m):
        p[i] /= total


def _ways(data: Training) -> tuple[Array, float]:
    """+1 or -1 (T,) for the way along the first principal axis of z or back, NaN where no row was before; who stands
    still keeps the last of the segment, or has the first that comes; and the share of neighbours where it turns.
    """
    Z, t = data.Z, data.pairs()
    axis = np.linalg.svd(Z[data.rows] - Z[data.rows].mean(axis=0), full_matrices=False)[2][0]
    way = np.full(len(Z), np.nan)
    for one in np.split(t, np.flatnonzero(np.diff(data.segment[t])) + 1):
        moved = (Z[one] - Z[one - 1]) @ axis
        if moved.any():
            last = np.maximum.accumulate(np.where(moved, np.arange(len(one)), np.flatnonzero(moved)[0]))
            way[one] = np.sign(moved[last])
    both = t[np.isfinite(way[t - 1])]
    turned = (way[both] != way[both - 1]).sum()
    return way, float((turned + 1) / (len(both) + 2))


def _rates(D: Array, N: Array, smooth: float) -> tuple[Array, Array]:
    """lambda (m, n) at cells of squared distances D (m, T) to the samples, and the weight (m,) of the samples there."""
    K = np.exp(D / (-2 * smooth**2))
    weight = K.sum(axis=1)
    least = 1e-3 / len(N)  # a unit silent in training may fire once
    rate = (K @ N + PSEUDO * N.mean(axis=0)) / (weight + PSEUDO)[:, None]
    return np.maximum(rate, least), np.maximum(weight, 1e-300)


def _smoothing(D: Array, N: Array, side: float) -> float:
    """The width under which stretches of time left out have the most likely counts, each at its nearest cell."""
    at, score = D.argmin(axis=0), np.zeros(len(WIDTHS))
    for out in np.array_split(np.arange(len(N)), FOLDS):
        rest = np.setdiff1d(np.arange(len(N)), out)
        for k, width in enumerate(WIDTHS):
            rate = _rates(D[:, rest], N[rest], width * side)[0][at[out]]
            score[k] += (N[out] * np.log(rate) - rate).sum()
    return WIDTHS[int(score.argmax())] * side
