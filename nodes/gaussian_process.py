"""Gaussian process regression: with one kernel of all channels, or the mean of a kernel of each."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._additive import additive, polynomials, shortest
from rheobase.nodes._decoder import Decoder, Training
from rheobase.nodes._distance import as_kept, in_blocks, in_room, squared_distances
from rheobase.nodes._likelihood import factor, square_distances, surprise
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, Positive, Seed, kernel

SEARCH = 1000
"""Most points that hyper-parameters are searched on."""
GRID = 400
"""Most of them for where that begins."""
BLOCK = 64
ROWS = 2000


class SquaredExponentialParams(NamedTuple):
    """X (blocks, n, lanes) and weight (d, blocks lanes) have room for `points`; m are there.

    weight = sigma_f^2 alpha, half (d,) = 1 / (2 ell^2)
    """

    X: NDArray[np.float64]
    weight: NDArray[np.float64]
    m: int
    half: NDArray[np.float64]
    z_mean: NDArray[np.float64]


class SquaredExponentialState(NamedTuple):
    distance: NDArray[np.float64]


class MultiParams(NamedTuple):
    """f is a sum over channels of polynomials: cells (n, cells, terms, d), low (n,), scale; see `additive`."""

    cells: NDArray[np.float64]
    low: NDArray[np.float64]
    scale: float
    z_mean: NDArray[np.float64]


class GaussianProcess(Decoder):
    """The mean of a Gaussian process, one for each output, over the same points x_i.

        f(x) = z_mean + sum_i alpha_i k(x_i, x),   alpha = (K + sigma_n^2 I)^-1 (z - z_mean),   K_ij = k(x_i, x_j)

        squared_exponential:  k(x, x') = sigma_f^2 exp(-|x - x'|^2 / 2 ell^2)
        multi:                k(x, x') = sigma_f^2 / n sum_j exp(-(x_j - x'_j)^2 / 2 ell^2)

    One ell for all channels: give it channels of like scale (`zscore`). Where one channel of n goes astray, `multi`
    loses at most 1/n of k, and the other may lose all: the MK-DKF of Brandman, Burkhart, Kelemen, Franco, Harrison,
    Hochberg, Neural Comput 30:2986, 2018. What is not given of sigma_f, ell and sigma_n is learnt for each output: the
    greatest marginal likelihood (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sec. 5.4) on
    at most 1000 of the points; alpha is of all points. But the ell of `multi` is one standard deviation of the
    channels: the likelihood likes it long, and then f is nearly linear, and an offset of 5 turns it as far as any
    other. A sample with a value that is not finite gives NaN.
    """

    kernel: Literal["squared_exponential", "multi"] = "squared_exponential"
    """Of all channels at once, or the mean over them of a kernel of each."""

    normalised: bool = True
    """Of `multi`. True: k(x, x) = sigma_f^2. False: normal densities in place of the exponentials, as the paper prints
    it; sigma_f^2 is then in units of z^2 x."""

    points: Count = 3000
    """Most training pairs kept."""

    choice: Literal["random", "even"] = "random"
    """Which: drawn, or spread evenly over the recording."""

    all_rows: bool = False
    """Learn alpha from all training rows, not from the points alone (subset of regressors, Rasmussen and Williams, sec.
    8.3.1). Fewer points do then: of rows 0-4999 of Flint run 1, 500 predicted the first and the last 1000, left out,
    better than 3000 did without (nRMSE 0.622 and 0.607; 0.634 and 0.608)."""

    directions: Count | None = None
    """Keep only the means of x and of z over so many equal sectors of the direction of z (8: those of a centre-out
    task)."""

    seed: Seed = 0
    """Of the draw."""

    sigma_f: Positive | None = None
    """Standard deviation of f, in units of z; none: learnt."""

    ell: Positive | None = None
    """Length scale, in units of x; none: learnt, or for `multi` the standard deviation of the channels."""

    sigma_n: Positive | None = None
    """Standard deviation of z about f; none: learnt."""

    shapes = {"X": "m n", "alpha": "m d", "sigma_f": "d", "ell": "d", "sigma_n": "d", "z_mean": "d"}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        X, Z = self._pairs(data)
        if self.kernel == "squared_exponential":
            X = as_kept(X, self.directions or self.points)
        z_mean = data.Z[data.rows].mean(axis=0)
        Z = Z - z_mean
        ell, least = self.ell, 0.0
        if self.kernel == "multi":
            least = shortest(X)
            if ell and ell < least:
                raise StreamError(f"ell: {ell:g} is too short for channels that range as far: {least:.3g} at least")
            ell = ell or max(math.sqrt(data.X[data.rows].var(axis=0).mean()), least) or 1.0
        if like:
            theta = np.stack([like["sigma_f"], np.maximum(like["ell"], least), like["sigma_n"]], axis=1)
        else:
            theta = self._search(X, Z, ell)
        alpha = np.empty_like(Z)
        rows = data.rows if self.all_rows and not self.directions and len(X) < data.rows.sum() else None
        for c, (sigma_f, ell, sigma_n) in enumerate(theta):
            if c == 0 or ell != theta[c - 1, 1]:
                K = self.gram(X, X, ell)
            if rows is None:
                L = factor(sigma_f**2 * K, sigma_n)
                alpha[:, c] = scipy.linalg.cho_solve((L, True), Z[:, c])
            else:
                alpha[:, c] = self._projected(X, K, data.X[rows], data.Z[rows, c] - z_mean[c], theta[c])
        return dict(X=X, alpha=alpha, sigma_f=theta[:, 0], ell=theta[:, 1], sigma_n=theta[:, 2], z_mean=z_mean)

    def _pairs(self, data: Training) -> tuple[Array, Array]:
        """The points: (m, n), (m, d)."""
        rows = np.flatnonzero(data.rows)
        if self.directions:
            return by_direction(data.X[rows], data.Z[rows], self.directions)
        if len(rows) > self.points and self.choice == "even":
            rows = rows[np.linspace(0, len(rows) - 1, self.points).round().astype(int)]
        elif len(rows) > self.points:
            rows = np.sort(np.random.default_rng(self.seed).choice(rows, self.points, replace=False))
        return data.X[rows], data.Z[rows]

    def gram(self, X: Array, Y: Array, ell: float) -> NDArray[np.float64]:
        """k(x_i, y_j) with sigma_f = 1 for the rows of X (m, n) and Y (k, n): (m, k)."""
        if self.kernel == "squared_exponential":
            return np.exp(square_distances(X, Y) / (-2 * ell**2))
        m, n = X.shape
        U, V = (np.ascontiguousarray(A.T) / (math.sqrt(2) * ell) for A in (X, Y))
        K = np.zeros((m, len(Y)))
        for a in range(0, m, BLOCK):  # so few rows stay in the cache while all channels are added
            b = min(a + BLOCK, m)
            end = b if Y is X else len(Y)
            for u, v in zip(U, V, strict=True):
                D = u[a:b, None] - v[:end]
                D *= -D
                K[a:b, :end] += np.exp(D, out=D)
            if Y is X:
                K[:b, a:b] = K[a:b, :b].T
        return K * self._unit(n, ell)

    def _projected(self, X: Array, K: Array, A: Array, z: Array, theta: Array) -> Array:
        """alpha of the points X (m, n), K = k(X, X), that is learnt from all rows A (N, n) and z (N,), in O(N m^2)."""
        sigma_f, ell, sigma_n = theta
        L = factor(K, 1e-4)
        G, r = np.eye(len(X)) * (sigma_n / sigma_f) ** 2, np.zeros(len(X))
        for a in range(0, len(A), ROWS):
            V = scipy.linalg.solve_triangular(L, self.gram(X, A[a : a + ROWS], ell), lower=True)
            G += V @ V.T
            r += V @ z[a : a + ROWS]
        found = scipy.linalg.solve_triangular(L, scipy.linalg.solve(G, r, assume_a="pos"), lower=True, trans="T")
        return np.asarray(found / sigma_f**2)

    def _unit(self, n: int, ell: float) -> float:
        """What `multi` weighs the exponential of each of n channels by, where sigma_f = 1."""
        return (1.0 if self.normalised else 1 / (math.sqrt(2 * math.pi) * ell)) / n

    def _search(self, X: Array, Z: Array, ell: float | None) -> Array:
        """sigma_f, ell, sigma_n of each output: (d, 3). From the best of a grid, up the marginal likelihood."""
        import scipy.optimize  # late: only a fit needs it

        drawn = np.random.default_rng(self.seed).permutation(len(X))[:SEARCH]
        X, few = X[drawn], slice(GRID)
        spread = math.sqrt(2 * X.var(axis=0).sum()) or 1.0  # rms distance of two points
        starts = []
        for start in [ell] if ell else [spread * by for by in (0.25, 0.5, 1.0, 2.0)]:
            K = self.gram(X[few], X[few], start)
            starts.append((start, K[0, 0], *scipy.linalg.eigh(K)))
        given = None if ell is None else self.gram(X, X, ell)
        D = square_distances(X, X) if ell is None else None
        found = []
        for z in Z[drawn].T:
            sd, best, begin = float(z.std()) or 1.0, math.inf, np.zeros(3)
            for start, one, values, V in starts:
                q = (V.T @ z[few]) ** 2
                sigma_fs = [self.sigma_f] if self.sigma_f else [by * sd / math.sqrt(one) for by in (0.5, 1.0, 2.0)]
                sigma_ns = [self.sigma_n] if self.sigma_n else [by * sd for by in (0.1, 0.2, 0.4, 0.8)]
                for sigma_f, sigma_n in itertools.product(sigma_fs, sigma_ns):
                    v = sigma_f**2 * np.maximum(values, 0.0) + sigma_n**2
                    if (cost := float((q / v + np.log(v)).sum())) < best:
                        best, begin = cost, np.array([sigma_f, start, sigma_n])
            limits = np.array([begin / 1e3, begin * 1e3])
            limits[:, 2] = sd / 1e3, sd * 10
            for k, held in enumerate((self.sigma_f, ell, self.sigma_n)):
                if held:
                    limits[:, k] = held
            done = scipy.optimize.minimize(
                surprise,
                np.log(begin),
                (z, D, given),
                "L-BFGS-B",
                True,
                bounds=np.log(limits.T),
                options={"maxiter": 30},
            )
            found.append(np.exp(done.x))
        return np.array(found)

    def ready(self, x: Spec, X: Array, alpha: Array, sigma_f: Array, ell: Array, sigma_n: Array, z_mean: Array) -> None:
        if self.kernel == "squared_exponential":
            points = self.directions or self.points
            weight = in_room(alpha * sigma_f**2, points)
            self.params = SquaredExponentialParams(in_blocks(X, points), weight, len(X), 0.5 / ell**2, z_mean)
            self.state = SquaredExponentialState(np.zeros(weight.shape[1]))
            self.step = squared_exponential  # type: ignore[method-assign, misc]
            return
        cells, low, width = polynomials(X, alpha * sigma_f**2 * self._unit(x.n, ell[0]), ell[0])  # one ell for all
        self.params = MultiParams(cells, low, 1 / width, z_mean)
        self.state = ()
        self.step = multi  # type: ignore[method-assign, misc]


@kernel
def squared_exponential(params, state, t, x, y):
    if not finite(x):
        for c in range(y.shape[0]):
            y[c] = np.nan
        return True
    distance, m = state.distance, params.m
    squared_distances(params.X, m, x, distance)
    for c in range(y.shape[0]):
        weight, half = params.weight[c], params.half[c]
        total = 0.0
        for i in range(m):
            total += weight[i] * math.exp(-half * distance[i])
        y[c] = params.z_mean[c] + total
    return True


@kernel
def multi(params, state, t, x, y):
    there = finite(x)
    for c in range(y.shape[0]):
        y[c] = params.z_mean[c] if there else np.nan
    if there:
        additive(params.cells, params.low, params.scale, x, y)
    return True


@kernel
def finite(x):
    whole = True
    for j in range(x.shape[0]):
        whole &= np.isfinite(x[j])
    return whole


def by_direction(X: Array, Z: Array, sectors: int) -> tuple[Array, Array]:
    """The means of x and of z over the rows whose z points into each of so many equal sectors, the first about +z0.

    Rows where z is 0 point nowhere and are left out, and so is a sector without rows. Raises StreamError where z is
    not two-dimensional or points one way only.
    """
    if Z.shape[1] != 2:
        raise StreamError(f"directions: z must have 2 channels, it has {Z.shape[1]}")
    moving = np.hypot(*Z.T) > 0
    sector = np.round(np.arctan2(Z[moving, 1], Z[moving, 0]) * sectors / (2 * np.pi)).astype(int) % sectors
    there = np.unique(sector)
    if len(there) < 2:
        raise StreamError(f"directions: z points into {len(there)} of {sectors} sectors, 2 are the least")
    means = np.array([np.hstack([X[moving], Z[moving]])[sector == k].mean(axis=0) for k in there])
    return means[:, : X.shape[1]], means[:, X.shape[1] :]
