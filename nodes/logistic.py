"""Logistic regression on the present and the past: how likely it is that something is so."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, affine, remember, spread
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, NotNegative, kernel

FOLDS = 5
STEPS = 50
"""Newton's, at most: it takes 5 to 15."""


class LogisticParams(NamedTuple):
    W: NDArray[np.float64]
    b: NDArray[np.float64]
    x_mean: NDArray[np.float64]


class LogisticState(NamedTuple):
    window: NDArray[np.float64]


class Logistic(Decoder):
    """P(z_i = 1 | x(t), ..., x(t-lags+1)) for truths z_i of 0 or 1, each for itself.

        y = 1 / (1 + exp(-(b + sum_k W_k' (x(t-k) - x_mean))))
        max sum z log y + (1 - z) log (1 - y) - alpha/2 |S W|^2, S the standard deviations of x

    by Newton's method (iteratively reweighted least squares). What lies before the start counts as its mean; a sample
    with a value that is not finite gives NaN.

    Errors: a truth that is neither 0 nor 1, or all the same.

    Cox, J R Stat Soc B 20:215, 1958; le Cessie & van Houwelingen, Appl Stat 41:191, 1992 (the penalty).
    """

    lags: Count = 1
    """Samples looked at: this one and lags - 1 before it."""

    alpha: NotNegative | None = None
    """Penalty a training row; none: chosen by cross-validation, each fifth of the segments left out in turn."""

    shapes = {"W": "l d", "b": "d", "x_mean": "n", "alpha": "d"}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        x_mean = data.X[data.rows].mean(axis=0)
        X, Z = data.windows(self.lags, x_mean)[data.rows], data.Z[data.rows]
        if not ((Z == 0) | (Z == 1)).all():
            raise StreamError("a truth must be 0 or 1 to tell how likely it is")
        if (Z.min(axis=0) == Z.max(axis=0)).any():
            raise StreamError("a truth that is always the same tells nothing")
        scale = spread(X)
        scale[scale == 0] = 1.0
        X = X / scale
        d = Z.shape[1]
        alpha = np.full(d, np.nan if self.alpha is None else self.alpha)
        W, b = np.empty((X.shape[1], d)), np.empty(d)
        for i in range(d):
            if like:
                alpha[i] = np.atleast_1d(like["alpha"])[i]
            elif self.alpha is None:
                alpha[i] = penalty(X, Z[:, i], data.segment[data.rows])
            w = newton(X, Z[:, i], alpha[i] * len(X))
            W[:, i], b[i] = w[:-1] / scale, w[-1]
        return dict(W=W, b=b, x_mean=x_mean, alpha=alpha)

    def ready(self, x: Spec, W: Array, b: Array, x_mean: Array, alpha: Array) -> None:
        self.params = LogisticParams(W, b, x_mean)
        self.state = LogisticState(np.zeros(len(W)))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        if not remember(x, params.x_mean, state.window):
            for i in range(y.shape[0]):
                y[i] = np.nan
            return True
        affine(params.W, params.b, state.window, y)
        for i in range(y.shape[0]):
            e = math.exp(-abs(y[i]))
            y[i] = 1.0 / (1.0 + e) if y[i] > 0.0 else e / (1.0 + e)
        return True


def newton(X: Array, z: Array, alpha: float, w: Array | None = None) -> NDArray[np.float64]:
    """Weights (n + 1,), that of 1 last and free, which make loss(X, z, w) + alpha/2 |w[:-1]|^2 least."""
    X = np.column_stack([X, np.ones(len(X))])
    free = np.append(np.full(X.shape[1] - 1, alpha), 0.0)
    mean = np.clip(z.mean(), 1e-6, 1 - 1e-6)
    w = np.append(np.zeros(len(free) - 1), np.log(mean / (1 - mean))) if w is None else w
    value = _loss(X @ w, z) + 0.5 * free @ w**2
    for _ in range(STEPS):
        p = 0.5 * (1 + np.tanh(0.5 * (X @ w)))
        H = (X * (p * (1 - p))[:, None]).T @ X + np.diag(free + 1e-10 * len(X))
        step = np.linalg.solve(H, X.T @ (p - z) + free * w)
        size = 1.0
        while size > 1e-3:  # the full step may go too far where classes are apart
            new = w - size * step
            at = _loss(X @ new, z) + 0.5 * free @ new**2
            if at <= value:
                break
            size /= 2
        else:
            return w
        done = value - at <= 1e-10 * len(X)
        w, value = new, at
        if done:
            break
    return w


def penalty(X: Array, z: Array, segment: Array) -> float:
    """The alpha a row that tells best what was left out: every fifth segment, for a label often holds for all of one;
    where there are fewer than ten, stretches of time, for neighbouring rows are alike."""
    alphas = np.logspace(0, -6, 7)
    loss = np.zeros(len(alphas))
    number = np.unique(segment, return_inverse=True)[1]
    fold = number % FOLDS if number.max() + 1 >= 2 * FOLDS else np.arange(len(X)) * FOLDS // len(X)
    for k in range(FOLDS):
        rest, out = fold != k, fold == k
        w = None
        for j, alpha in enumerate(alphas):
            w = newton(X[rest], z[rest], alpha * int(rest.sum()), w)
            loss[j] += _loss(X[out] @ w[:-1] + w[-1], z[out])
    return float(alphas[loss.argmin()])


def _loss(u: Array, z: Array) -> float:
    """- sum z log y + (1 - z) log (1 - y), y = 1 / (1 + exp(-u)), nats."""
    return float(np.sum(np.logaddexp(0, u) - z * u))
