"""The marginal likelihood of a Gaussian process, and its derivatives.

Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, sec. 5.4.1.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.stream.block import Array


def square_distances(X: Array, Y: Array) -> NDArray[np.float64]:
    """|x_i - y_j|^2 of the rows of X (m, n) and Y (k, n), (m, k)."""
    mean = X.mean(axis=0)  # far from 0 the squares have no digits left for a difference
    X, Y = X - mean, Y - mean
    return np.asarray(np.maximum((X * X).sum(axis=1)[:, None] + (Y * Y).sum(axis=1) - 2 * X @ Y.T, 0.0))


def factor(K: Array, sigma_n: float) -> NDArray[np.float64]:
    """The Cholesky factor of K + sigma_n^2 I, with 1e-8 of K's diagonal added where rounding leaves it indefinite."""
    noisy = K.copy()
    noisy.flat[:: len(K) + 1] += sigma_n**2
    try:
        return np.asarray(scipy.linalg.cholesky(noisy, lower=True))
    except np.linalg.LinAlgError:
        noisy.flat[:: len(K) + 1] += 1e-8 * K[0, 0]
        return np.asarray(scipy.linalg.cholesky(noisy, lower=True))


def surprise(log_theta: Array, z: Array, D: Array | None, K: Array | None = None) -> tuple[float, Array]:
    """-log p(z | sigma_f, ell, sigma_n), and its derivatives by the logarithms of the three.

    D  (m, m) squared distances of a squared exponential
    K  (m, m) instead: the Gram matrix for sigma_f = 1; ell does not count then
    """
    sigma_f, ell, sigma_n = np.exp(log_theta)
    K = sigma_f**2 * (np.exp(D / (-2 * ell**2)) if K is None else K)
    L = factor(K, sigma_n)
    alpha = scipy.linalg.cho_solve((L, True), z)
    inverse, _ = scipy.linalg.lapack.dpotri(L, lower=1)  # its lower half; above it is 0

    def derivative(dK: Array) -> float:  # 1/2 tr((K^-1 - alpha alpha') dK)
        return float(np.vdot(inverse, dK) - 0.5 * inverse.diagonal() @ dK.diagonal() - 0.5 * alpha @ (dK @ alpha))

    by_ell = 0.0 if D is None else derivative(K * D) / ell**2
    by_noise = float(sigma_n**2 * (inverse.trace() - alpha @ alpha))
    cost = 0.5 * z @ alpha + np.log(L.diagonal()).sum() + 0.5 * len(z) * math.log(2 * math.pi)
    return float(cost), np.array([2 * derivative(K), by_ell, by_noise])
