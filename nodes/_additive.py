"""A sum of functions of one channel each, f(x) = sum_j g_j(x_j), where every g_j is a sum of Gaussians.

Summed one by one, m Gaussians of n channels take m n exponentials a sample: 2 ms for 3000 points and 192 channels.
g_j is as smooth as its Gaussians, so it is laid down beforehand as a polynomial in each of `CELLS` cells, and a sample
takes n polynomials whatever m is. On a cell of width w, interpolation at p = `TERMS` Chebyshev points is off by at most

    2 (w / 4 ell)^p / p!  max |d^p k|,   max |d^p k| <= 1.09 sqrt(p!) / ell^p   (Cramer's bound of Hermite functions)

times sum_i |w_i|: for w <= 1.5 ell (`shortest`) by 7e-14, and for the usual w < ell by 1e-16 and less. Beyond
`REACH` ell from all x_i, where k < 3e-18, g_j is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from rheobase.stream.block import Array
from rheobase.stream.node import kernel

CELLS = 64
TERMS = 16
REACH = 9.0
WIDEST = 1.5
"""Of a cell, in ell."""


def shortest(X: Array) -> float:
    """The least ell that the cells are fine enough for."""
    return float(np.ptp(X, axis=0).max()) / (WIDEST * CELLS - 2 * REACH)


def polynomials(X: Array, W: Array, ell: float) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """g_j(x) = sum_i w_i exp(-(x - x_ij)^2 / 2 ell^2), X (m, n), w_i (d,), as polynomials in u = -1 ... 1 of each cell.

    Returns their coefficients (n, CELLS, TERMS, d), where the first cell of each channel begins (n,), and the width
    of a cell. The x_i, too, enter by interpolation between the Chebyshev points of their cell, so that all channels
    share one matrix of Gaussians.
    """
    n, d = X.shape[1], W.shape[1]
    span = np.ptp(X, axis=0)
    width = float(span.max() + 2 * REACH * ell) / CELLS
    low = X.min(axis=0) - (CELLS * width - span) / 2
    nodes = chebyshev.chebpts1(TERMS)
    transform = np.linalg.inv(chebyshev.chebvander(nodes, TERMS - 1))  # values at the nodes -> Chebyshev coefficients
    at = np.empty((CELLS * TERMS, n, d))
    for j in range(n):
        s = (X[:, j] - low[j]) / width
        cell = np.minimum(s.astype(np.int64), CELLS - 1)
        share = chebyshev.chebvander(2 * (s - cell) - 1, TERMS - 1) @ transform
        slots = (cell[:, None] * TERMS + np.arange(TERMS)).ravel()
        for c in range(d):
            at[:, j, c] = np.bincount(slots, (share * W[:, c, None]).ravel(), CELLS * TERMS)
    grid = (np.arange(CELLS)[:, None] + (nodes + 1) / 2).ravel() * (width / ell)
    values = np.exp(-0.5 * (grid[:, None] - grid) ** 2) @ at.reshape(CELLS * TERMS, n * d)
    powers = np.zeros((TERMS, TERMS))
    for k in range(TERMS):
        powers[: k + 1, k] = chebyshev.cheb2poly(np.eye(TERMS)[k, : k + 1])
    cells = powers @ (transform @ values.reshape(CELLS, TERMS, n * d))  # each product by itself is well-conditioned
    return np.ascontiguousarray(cells.reshape(CELLS, TERMS, n, d).transpose(2, 0, 1, 3)), low, width


@kernel
def additive(cells, low, scale, x, y):
    """y += sum_j g_j(x_j); cells (n, CELLS, TERMS, d), low (n,), scale = 1 / width."""
    last = cells.shape[2] - 1
    for j in range(x.shape[0]):
        s = (x[j] - low[j]) * scale
        if 0.0 <= s < cells.shape[1]:
            k = int(s)
            u = 2.0 * (s - k) - 1.0
            terms = cells[j, k]
            for c in range(y.shape[0]):
                g = terms[last, c]
                for q in range(last - 1, -1, -1):
                    g = g * u + terms[q, c]
                y[c] += g
