"""Health indicator: near 1 while a unit is new, near 0 when it fails."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Positive, kernel

TUNING = 4.685
"""Of Tukey's bisquare: 95 % as efficient as least squares where errors are normal."""


class HealthParams(NamedTuple):
    theta: NDArray[np.float64]
    bias: float
    smooth: float


class HealthState(NamedTuple):
    h: NDArray[np.float64]
    n: NDArray[np.int64]


class Health(Decoder):
    """h from the sensors x, by a linear regression that outliers do not move, and a causal smoothing of it:

        u = theta_0 + theta' x          h <- h + a (u - h),   a = max(1/n, 1/smooth)

    The target of a unit that lived for T samples, with y = life / (T - 1) of them still to come, is

        h* = 1 - exp(-y (-log 0.05) / (0.95 T / (T - 1)))

    and 1 and 0 at its first and last 5 % (Ramasso, IJPHM 5(2), 2014, sec. 3.5, where each training unit gets a
    regression of its own: here all share one, which a stream can use). theta by iterated weighted least squares with
    Tukey's bisquare (Holland and Welsch, Commun Stat A6:813, 1977). z is the remaining life in samples; a segment is
    a unit's life, from its first sample on.

    A sample with a missing sensor leaves h as it is (NaN before the first). Errors: a unit whose life does not end.
    """

    smooth: Positive = 10.0
    """Span of the smoothing, samples; 1: none."""

    shapes = {"theta": "n", "bias": ""}
    adjustable = ("model", "smooth")

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        life = data.Z[:, 0]
        target = np.full(len(life), np.nan)
        for k in np.unique(data.segment):
            rows = np.flatnonzero(data.segment == k)
            if life[rows[-1]] != 0:
                raise StreamError("z must be the remaining life, down to 0 at the end of each segment")
            target[rows] = wear(life[rows])
        X = np.column_stack([np.ones(data.rows.sum()), data.X[data.rows]])
        theta = bisquare(X, target[data.rows])
        return dict(theta=theta[1:], bias=np.array(theta[0]))

    @property
    def judged(self) -> bool:
        return False

    def start(self, x: Spec) -> Spec:
        return super().start(x).replace(channels=("health",), unit="")

    def ready(self, x: Spec, theta: Array, bias: Array) -> None:
        self.params = HealthParams(theta, float(bias), float(max(self.smooth, 1.0)))
        self.state = HealthState(np.full(1, np.nan), np.zeros(1, np.int64))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        u = params.bias
        for j in range(x.shape[0]):
            u += params.theta[j] * x[j]
        if np.isfinite(u):
            state.n[0] += 1
            if state.n[0] == 1:
                state.h[0] = 0.0
            state.h[0] += max(1.0 / state.n[0], 1.0 / params.smooth) * (u - state.h[0])
        y[0] = state.h[0]
        return True


def wear(life: Array) -> NDArray[np.float64]:
    """h* of a unit from its remaining life (T,)."""
    T = len(life)
    h = 1 - np.exp(life / max(T - 1, 1) * math.log(0.05) / (0.95 * T / max(T - 1, 1)))
    ends = round(0.05 * T)
    h[:ends], h[T - ends :] = 1.0, 0.0
    return np.asarray(h)


def bisquare(X: Array, y: Array, most: int = 50) -> NDArray[np.float64]:
    """theta of y = X theta, robustly."""
    theta = np.linalg.lstsq(X, y)[0]
    leverage = np.minimum((X * np.linalg.lstsq(X.T @ X, X.T)[0].T).sum(axis=1), 0.9999)
    for _ in range(most):
        e = (y - X @ theta) / np.sqrt(1 - leverage)
        s = np.median(np.abs(e)) / 0.6745
        if s <= 1e-12 * max(float(np.abs(y).max()), 1e-300):
            break
        w = np.maximum(1 - (e / (TUNING * s)) ** 2, 0.0)  # the root of the weight
        new = np.linalg.lstsq(X * w[:, None], y * w)[0]
        done = np.allclose(new, theta, rtol=1e-8, atol=1e-12)
        theta = new
        if done:
            break
    return np.asarray(theta)
