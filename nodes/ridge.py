"""Ridge regression on the present and the past: the Wiener decoder."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, affine, remember
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import Count, NotNegative, kernel

FOLDS = 5


class RidgeParams(NamedTuple):
    W: NDArray[np.float64]
    b: NDArray[np.float64]
    x_mean: NDArray[np.float64]


class RidgeState(NamedTuple):
    window: NDArray[np.float64]


class Ridge(Decoder):
    """Linear regression of z(t) on x(t), x(t-1), ..., x(t-lags+1) with a penalty on the weights.

        y = b + sum_k W_k' (x(t-k) - x_mean),   min sum |z - y|^2 + alpha |W|^2

    With lags > 1 this is the Wiener decoder of the motor cortex (Carmena et al., PLoS Biol 1:193, 2003). What lies
    before the start counts as its mean; a sample with a value that is not finite gives NaN.
    """

    lags: Count = 1
    """Samples looked at: this one and lags - 1 before it."""

    alpha: NotNegative | None = None
    """Penalty, in units of x^2; none: chosen by cross-validation over five stretches of the training rows."""

    shapes = {"W": "l d", "b": "d", "x_mean": "n", "alpha": ""}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        x_mean = data.X[data.rows].mean(axis=0)
        X, Z = data.windows(self.lags, x_mean)[data.rows], data.Z[data.rows]
        alpha = float(like["alpha"]) if like else self.alpha
        if alpha is None:
            alpha = penalty(X, Z)
        X_mean, b = X.mean(axis=0), Z.mean(axis=0)
        W = solve((X - X_mean).T @ (X - X_mean), (X - X_mean).T @ (Z - b), alpha)
        return dict(W=W, b=b - X_mean @ W, x_mean=x_mean, alpha=np.array(alpha))

    def ready(self, x: Spec, W: Array, b: Array, x_mean: Array, alpha: Array) -> None:
        self.params = RidgeParams(W, b, x_mean)
        self.state = RidgeState(np.zeros(len(W)))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        if not remember(x, params.x_mean, state.window):
            for i in range(y.shape[0]):
                y[i] = np.nan
            return True
        affine(params.W, params.b, state.window, y)
        return True


def solve(G: Array, c: Array, alpha: float) -> Array:
    """(G + alpha I)^-1 c, least in norm where that is singular."""
    w, V = np.linalg.eigh(G)
    w = np.maximum(w, 0.0) + alpha
    safe = w > w[-1] * 1e-13
    return np.asarray((V[:, safe] / w[safe]) @ (V[:, safe].T @ c))


def penalty(X: Array, Z: Array) -> float:
    """The alpha that predicts stretches of time left out best. Stretches, for neighbouring rows are alike."""
    X, Z = X - X.mean(axis=0), Z - Z.mean(axis=0)
    G, c = X.T @ X, X.T @ Z
    alphas = np.trace(G) / len(G) * np.logspace(-8, 2, 41)
    error = np.zeros(len(alphas))
    for out in np.array_split(np.arange(len(X)), FOLDS):
        w, V = np.linalg.eigh(G - X[out].T @ X[out])
        right, left = V.T @ (c - X[out].T @ Z[out]), X[out] @ V
        for k, alpha in enumerate(alphas):
            error[k] += ((left @ (right / (np.maximum(w, 0.0) + alpha)[:, None]) - Z[out]) ** 2).sum()
    return float(alphas[error.argmin()])
