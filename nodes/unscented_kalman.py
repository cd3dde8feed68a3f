"""Unscented Kalman filter."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, spec_header
from rheobase.nodes._quadratic import Quadratic
from rheobase.nodes.kalman import Belief, belief, cholesky, dynamics, predict
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Fraction, NotNegative, Positive, Seed, kernel, load


class UKFParams(NamedTuple):
    """precision (n, n): R^-1; root: sqrt(alpha^2 (d + kappa)); bend: sqrt(beta - alpha^2)."""

    A: NDArray[np.float64]
    Gamma: NDArray[np.float64]
    precision: NDArray[np.float64]
    z_mean: NDArray[np.float64]
    root: float
    bend: float
    h: Any


class UKFState(NamedTuple):
    """Room: point (d,), x0, up, down, e (n,), D and RD (2 d + 1, n), G and C (r, r), g (r,)."""

    belief: Belief
    point: NDArray[np.float64]
    x0: NDArray[np.float64]
    up: NDArray[np.float64]
    down: NDArray[np.float64]
    e: NDArray[np.float64]
    D: NDArray[np.float64]
    RD: NDArray[np.float64]
    G: NDArray[np.float64]
    C: NDArray[np.float64]
    g: NDArray[np.float64]
    h: Any


class UnscentedKalman(Decoder):
    """Unscented Kalman filter: units whose tuning h is not linear.

        z(t) = A z(t-1) + N(0, Gamma)        z (d,), less its training mean
        x(t) = h(z(t)) + N(0, R)             x (n,)

    h is any regressor, learnt from z to x; R the mean of r r' over residuals r of rows that h had not seen. Prediction
    is that of the Kalman filter, N(m, M). With M = L L' and c = alpha^2 (d + kappa), the sigma points are m and
    m +- sqrt(c) L_k; from what h makes of them, x0 and x_k+-,

        delta_k = (x_k+ - x_k-) / 2,   sigma_k = (x_k+ + x_k-) / 2 - x0,   bend = sum_k sigma_k / c

    their weighted mean is x0 + bend, and their weighted covariance is R + D D' with the 2 d + 1 columns

        D = [delta_k / sqrt(c),  sigma_k / sqrt(c),  sqrt(beta - alpha^2) bend]

    which is the usual transform, without its weights of -10^6. So the update needs no n by n inverse but that of R:
    with G = D' R^-1 D, of (I + G)^-1 the upper left (d, d) as B, and e = x - x0 - bend,

        mu = m + L [(I + G)^-1 D' R^-1 e]_1..d,   Sigma = L B L'

    in O(d n^2), or O(d^2 n) for a diagonal R. For a linear h it is the Kalman filter. A sample with a value that is not
    finite is missing: mu = m, Sigma = M. Wan, van der Merwe, IEEE AS-SPCC, 2000; for the motor cortex Li et al., PLoS
    ONE 4:e6243, 2009.
    """

    h: str | dict[str, Any] = "quadratic"
    """Tuning: quadratic in z, or a regressor's type; {type: mlp, hidden: 10, layers: 1, activation: tanh}
    is that of the DKF's paper."""

    R: Literal["full", "diagonal"] = "full"
    """Covariance of x about h(z), or its diagonal alone."""

    alpha: Positive = 1e-3
    """Spread of the sigma points."""

    beta: NotNegative = 2.0
    """What is known of how z is distributed: 2 for a Gaussian. At least alpha^2."""

    kappa: NotNegative = 0.0
    """A second spread."""

    held_out: Fraction = 0.3
    """Share of the training rows, drawn at random, that R is learnt from."""

    seed: Seed = 0
    """Of that draw, and of h where it draws too."""

    shapes = {"A": "d d", "Gamma": "d d", "S": "d d", "R": "n n", "z_mean": "d"}
    adjustable = ("model", "alpha", "beta", "kappa")

    def tuning(self) -> Decoder:
        """A fresh h. Raises StreamError where it cannot be made."""
        words = {"type": self.h} if isinstance(self.h, str) else dict(self.h)
        kind = words.pop("type", None)
        if not isinstance(kind, str):
            raise StreamError("h: needs a type, as in {type: mlp, hidden: 10}")
        try:
            cls = Quadratic if kind == "quadratic" else load(kind)
            made = cls.make(**({"seed": self.seed} if "seed" in cls.parameters() else {}) | words)
        except StreamError as e:
            raise StreamError(f"h: {e}") from None
        if not isinstance(made, Decoder):
            raise StreamError(f"h: {kind!r} is no regressor")
        return made

    def check(self) -> None:
        if self.beta < self.alpha**2:
            raise StreamError(f"beta: {self.beta:g} is less than alpha^2 = {self.alpha**2:g}")
        super().check()

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        rows = np.flatnonzero(data.rows)
        cut = round(len(rows) * self.held_out)
        if not data.X.shape[1] < cut < len(rows):
            raise StreamError(f"held_out: {cut} of {len(rows)} rows are no basis for both h and R")
        seen = np.zeros(len(data.rows), bool)
        seen[np.random.default_rng(self.seed).permutation(rows)[cut:]] = True
        known = {k.removeprefix("h."): v for k, v in (like or {}).items() if k.startswith("h.")}
        Z = np.where(data.rows[:, None], data.Z, np.nan)
        try:
            first = self.tuning().fit(Z, data.X, rows=seen, like=known or None)
            some = data.Z[rows[:20]]
            if not np.array_equal(first.predict(some), first.predict(some, np.arange(len(some)))):
                raise StreamError(f"{self.settings()['h']!r} looks back, and the filter knows z(t) only")
            r = (data.X - first.predict(Z))[data.rows & ~seen]
            h = self.tuning().fit(Z, data.X, rows=data.rows, like=first.arrays)
        except StreamError as e:
            raise StreamError(f"h: {str(e).removeprefix('h: ')}") from None
        z_mean = data.Z[data.rows].mean(axis=0)
        A, Gamma = dynamics(data, z_mean)
        S = np.atleast_2d(np.cov(data.Z[data.rows].T))
        return dict(A=A, Gamma=Gamma, S=S, R=r.T @ r / len(r), z_mean=z_mean,
                    **{f"h.{k}": v for k, v in h.arrays.items()})  # fmt: skip

    def ready(self, x: Spec, A: Array, Gamma: Array, S: Array, R: Array, z_mean: Array, **given: Array) -> None:
        n, d = x.n, len(z_mean)
        z, r = Spec(rate=x.rate, channels=numbered("z", d)), 2 * d + 1
        h = self.tuning()
        arrays = {k.removeprefix("h."): v for k, v in given.items()}
        h.hold(arrays, spec_header(z), {"channels": numbered("x", n), "unit": ""}).start(z)
        if self.R == "diagonal":
            v = np.diag(R)
            precision = np.divide(1.0, v, out=np.zeros(n), where=v > 1e-12 * v.max())[:, None]
        else:
            precision = scipy.linalg.pinvh(R)  # silent channels tell nothing, as in kalman.py
        root, bend = self.alpha * math.sqrt(d + self.kappa), math.sqrt(self.beta - self.alpha**2)
        self.params = UKFParams(A, Gamma, np.ascontiguousarray(precision), z_mean, root, bend, h.params)
        (x0, up, down, e), (D, RD), (G, C) = np.zeros((4, n)), np.zeros((2, r, n)), np.zeros((2, r, r))
        self.state = UKFState(belief(S), np.zeros(d), x0, up, down, e, D, RD, G, C, np.zeros(r), h.state)
        self.step = filtered(h.step, self.R == "full")  # type: ignore[method-assign, misc]


@functools.cache
def filtered(h: Callable[..., bool], full: bool) -> Callable[..., bool]:
    """The step of a UKF whose tuning's step is h."""

    @kernel
    def step(params, state, t, x, y):
        s, z_mean = state.belief, params.z_mean
        predict(params.A, params.Gamma, s)
        whole = True
        for j in range(x.shape[0]):
            whole &= np.isfinite(x[j])
        if whole:
            cholesky(s.M, s.L)
            _images(params, state, t, h)
            for j in range(x.shape[0]):
                state.e[j] = x[j] - state.e[j]
            _weigh(params, state, full)
            _correct(state)
        for i in range(y.shape[0]):
            y[i] = s.mu[i] + z_mean[i]
        return True

    return step


@kernel
def _images(params, s, t, h):
    """D (r, n), column by column, and in e the mean of what h makes of the sigma points."""
    m, L, point, x0, up, down, e, D = s.belief.m, s.belief.L, s.point, s.x0, s.up, s.down, s.e, s.D
    d, n, root = m.shape[0], x0.shape[0], params.root
    for i in range(d):
        point[i] = m[i] + params.z_mean[i]
    h(params.h, s.h, t, point, x0)
    bend = D[2 * d]
    for j in range(n):
        bend[j] = 0.0
    for k in range(d):
        for i in range(d):
            point[i] = m[i] + params.z_mean[i] + root * L[i, k]
        h(params.h, s.h, t, point, up)
        for i in range(d):
            point[i] = m[i] + params.z_mean[i] - root * L[i, k]
        h(params.h, s.h, t, point, down)
        delta, sigma = D[k], D[d + k]
        for j in range(n):
            delta[j] = 0.5 * (up[j] - down[j]) / root
            sigma[j] = (0.5 * (up[j] + down[j]) - x0[j]) / root
            bend[j] += sigma[j] / root
    for j in range(n):
        e[j] = x0[j] + bend[j]
        bend[j] *= params.bend


@kernel
def _weigh(params, s, full):
    """g = D' R^-1 e and G = I + D' R^-1 D."""
    D, RD, G, g, e = s.D, s.RD, s.G, s.g, s.e
    r, n = D.shape
    for a in range(r):
        row, out = D[a], RD[a]
        if full:
            for j in range(n):
                out[j] = 0.0
            for i in range(n):
                v = row[i]
                line = params.precision[i]
                for j in range(n):
                    out[j] += v * line[j]
        else:
            for j in range(n):
                out[j] = row[j] * params.precision[j, 0]
        v = 0.0
        for j in range(n):
            v += out[j] * e[j]
        g[a] = v
        for b in range(a + 1):
            v = 1.0 if a == b else 0.0
            for j in range(n):
                v += out[j] * D[b, j]
            G[a, b] = v
            G[b, a] = v


@kernel
def _correct(s):
    """mu = m + L [G^-1 g], Sigma = L [G^-1] L', both of the first d only, by G = C C'."""
    mu, Sigma, m, L, U, T = s.belief.mu, s.belief.Sigma, s.belief.m, s.belief.L, s.belief.U, s.belief.C
    G, C, g, d = s.G, s.C, s.g, s.belief.mu.shape[0]
    r = g.shape[0]
    cholesky(G, C)
    solve(C, g)
    for i in range(d):
        a = m[i]
        for k in range(d):
            a += L[i, k] * g[k]
        mu[i] = a
    for k in range(d):  # the columns of G^-1
        for i in range(r):
            g[i] = 1.0 if i == k else 0.0
        solve(C, g)
        for i in range(d):
            U[i, k] = g[i]
    for i in range(d):
        for k in range(d):
            a = 0.0
            for j in range(d):
                a += L[i, j] * U[j, k]
            T[i, k] = a
    for i in range(d):
        for j in range(i + 1):
            a = 0.0
            for k in range(d):
                a += T[i, k] * L[j, k]
            Sigma[i, j] = a
            Sigma[j, i] = a


@kernel
def solve(C, g):
    """g becomes (C C')^-1 g, C lower triangular."""
    r = g.shape[0]
    for i in range(r):
        a = g[i]
        for k in range(i):
            a -= C[i, k] * g[k]
        g[i] = a / C[i, i]
    for i in range(r - 1, -1, -1):
        a = g[i]
        for k in range(i + 1, r):
            a -= C[k, i] * g[k]
        g[i] = a / C[i, i]
