"""Unscented prediction: what becomes of N(mu, Sigma) under a z(t) = g(z(t-1)) + N(0, Gamma) that is not linear."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes.kalman import cholesky
from rheobase.stream.node import kernel


class Points(NamedTuple):
    """Room for a sigma point (d,) and what g makes of each (2 d, d); the state of g."""

    point: NDArray[np.float64]
    images: NDArray[np.float64]
    g: Any


def points(d: int, g: Any) -> Points:
    """Room for them, where the state of the regressor is g."""
    return Points(np.zeros(d), np.zeros((2 * d, d)), g)


@functools.cache
def unscented(g: Callable[..., bool]) -> Callable[..., None]:
    """The prediction of a filter whose z moves by the regressor with the step g.

        z_k = mu +- sqrt(d) L_k,   Sigma = L L',   k = 1 .. d
        m = mean of g(z_k),   M = mean of (g(z_k) - m)(g(z_k) - m)' + Gamma

    The points are those of alpha 1, beta 0, kappa 0, where the centre has no weight and all others the same. For a
    linear g it is A mu and A Sigma A' + Gamma. Julier, Uhlmann, Proc IEEE 92:401, 2004.
    """

    @kernel
    def move(params, state, t):
        s, u, Gamma = state.belief, state.points, params.Gamma
        mu, Sigma, m, M, L = s.mu, s.Sigma, s.m, s.M, s.L
        d = mu.shape[0]
        cholesky(Sigma, L)
        root = np.sqrt(float(d))
        for i in range(d):
            m[i] = 0.0
        for k in range(2 * d):
            way = root if k < d else -root
            for i in range(d):
                u.point[i] = mu[i] + way * L[i, k % d]
            image = u.images[k]
            g(params.g, u.g, t, u.point, image)
            for i in range(d):
                m[i] += image[i]
        for i in range(d):
            m[i] /= 2 * d
        for i in range(d):
            mu[i] = m[i]
            for j in range(i + 1):
                a = 0.0
                for k in range(2 * d):
                    a += (u.images[k, i] - m[i]) * (u.images[k, j] - m[j])
                a = Gamma[i, j] + a / (2 * d)
                M[i, j] = a
                M[j, i] = a
                Sigma[i, j] = a
                Sigma[j, i] = a

    return move
