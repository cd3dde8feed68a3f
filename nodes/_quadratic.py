"""Quadratic tuning: what units fire at a velocity, for filters that go from z to x."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import kernel


class QuadraticParams(NamedTuple):
    """W (q, n): its rows belong to 1, u, and the products u_i u_j with i <= j; middle (d,): that of z."""

    W: NDArray[np.float64]
    middle: NDArray[np.float64]


class Quadratic(Decoder):
    """x = W' [1, u, u_i u_j], u = z - its mean in training, by least squares. A sample that is not finite gives NaN.

    After Li, O'Doherty, Hanson, Lebedev, Henriquez, Nicolelis, PLoS ONE 4:e6243, 2009.
    """

    shapes = {"W": "q d", "middle": "n"}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        middle = data.X[data.rows].mean(axis=0)
        U = data.X[data.rows] - middle
        i, j = np.triu_indices(U.shape[1])
        terms = np.column_stack([np.ones(len(U)), U, U[:, i] * U[:, j]])
        return dict(W=np.linalg.lstsq(terms, data.Z[data.rows])[0], middle=middle)

    def ready(self, x: Spec, W: Array, middle: Array) -> None:
        self.params = QuadraticParams(W, middle)

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        W, o = params.W, params.middle
        n, row = y.shape[0], 1
        for c in range(n):
            y[c] = W[0, c]
        for i in range(x.shape[0]):
            u = x[i] - o[i]
            for c in range(n):
                y[c] += u * W[row, c]
            row += 1
        for i in range(x.shape[0]):
            for j in range(i, x.shape[0]):
                u = (x[i] - o[i]) * (x[j] - o[j])
                for c in range(n):
                    y[c] += u * W[row, c]
                row += 1
        return True
