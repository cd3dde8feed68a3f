"""How far f(x) is off: the precisions that a bin of covariance Q adds to a discriminative Kalman filter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes.kalman import cholesky
from rheobase.stream.block import Array, StreamError
from rheobase.stream.node import kernel

TREATMENTS = ("fallback_code", "fallback_text", "clip", "robust")
"""What is done where Q^-1 - S^-1 is not positive definite; a kernel knows each by its place here."""

SWEEPS = 30
"""Most sweeps of Jacobi's rotations: they converge quadratically, so that 10 are many."""


class NoiseParams(NamedTuple):
    """white (d, d): the inverse of the lower triangular root of S; q: parameters of the regression of Q on x."""

    S: NDArray[np.float64]
    S_inv: NDArray[np.float64]
    white: NDArray[np.float64]
    scale: float
    jitter: float
    nonpd: int
    q: Any


class Weights(NamedTuple):
    """Q of a bin (d, d), and with it Sigma = (M^-1 + P)^-1, mu = Sigma (M^-1 m + B f); q (d d,), L, V, T: room."""

    Q: NDArray[np.float64]
    B: NDArray[np.float64]
    P: NDArray[np.float64]
    Q_inv: NDArray[np.float64]
    violated: NDArray[np.int64]
    q: NDArray[np.float64]
    L: NDArray[np.float64]
    V: NDArray[np.float64]
    T: NDArray[np.float64]


def noise_params(S: Array, scale: float, nonpd: str, q: Any = (), jitter: float = 0.0) -> NoiseParams:
    """Of Q(x) = scale (what q says + jitter I). Raises StreamError where S is not positive definite."""
    white = np.tril(np.linalg.inv(np.linalg.cholesky(definite("S", S))))
    return NoiseParams(S, white.T @ white, white, scale, jitter, TREATMENTS.index(nonpd), q)


def jitter(S: Array) -> float:
    """What keeps a mean of products r r' positive definite where all r are collinear."""
    return 1e-12 * float(np.trace(S)) / len(S)


def weights(d: int) -> Weights:
    """Room for those of one bin."""
    Q, B, P, Q_inv, L, V, T = np.zeros((7, d, d))
    return Weights(Q, B, P, Q_inv, np.zeros(1, np.int64), np.zeros(d * d), L, V, T)


def definite(letter: str, M: Array) -> Array:
    """M itself. Raises StreamError where it is not positive definite."""
    why = {"Q": "f is exact on rows held out", "S": "a channel of z does not vary, or is a mix of others"}
    if not np.linalg.eigvalsh(M).min() > 0:
        raise StreamError(f"{letter} is not positive definite: {why[letter]}")
    return M


def precision(Q: Array, S: Array, nonpd: str) -> tuple[Array, Array, Array, bool]:
    """B, P and Q^-1 of Sigma = (M^-1 + P)^-1, mu = Sigma (M^-1 m + B f), and whether Q^-1 - S^-1 is not positive
    definite (which it is where S - Q is).

    B = Q^-1 and P = Q^-1 - S^-1, but for the treatments of `DKF.nonpd`. Raises StreamError where Q or S is not
    positive definite. `weighed` is the same in a kernel.
    """
    S_inv, Q_inv = np.linalg.inv(definite("S", S)), np.linalg.inv(definite("Q", Q))  # a constant z is in both
    Q_inv, S_inv = (Q_inv + Q_inv.T) / 2, (S_inv + S_inv.T) / 2
    violated = bool(np.linalg.eigvalsh(S - Q).min() <= 0)
    if nonpd == "robust" or (violated and nonpd == "fallback_text"):
        return Q_inv, Q_inv, Q_inv, violated
    if violated and nonpd == "fallback_code":
        return Q_inv + S_inv, Q_inv, Q_inv, violated
    if violated:
        share, U = scipy.linalg.eigh(Q, S)  # U' S U = I, U' Q U = diag(share)
        share = np.minimum(share, 1.0)
        return U / share @ U.T, U * (1 / share - 1) @ U.T, Q_inv, violated
    return Q_inv, Q_inv - S_inv, Q_inv, violated


@kernel
def constant(params, state, t, x):
    """The weights of a Q that does not depend on x: known since the start."""
    return params


@functools.cache
def varying(q: Callable[..., bool]) -> Callable[..., Any]:
    """The weights of Q(x), for the step q of a regression of r r' (d d,) on x. Where it gives no positive definite
    matrix the bin is missing: its f becomes NaN.
    """

    @kernel
    def weigh(params, state, t, x):
        w = state.weights
        q(params.noise.q, state.q, t, x, w.q)
        if not weighed(params.noise, w):
            state.y[0] = np.nan
        return w

    return weigh


@kernel
def weighed(p, w):
    """Q, B, P and Q^-1 of one bin from w.q: see `precision`. Returns whether Q is positive definite."""
    Q, B, P, Q_inv, L, V, T = w.Q, w.B, w.P, w.Q_inv, w.L, w.V, w.T
    S, S_inv, white = p.S, p.S_inv, p.white
    d = Q.shape[0]
    for i in range(d):
        for j in range(d):
            Q[i, j] = p.scale * w.q[i * d + j]
        Q[i, i] += p.scale * p.jitter
    for i in range(d):
        for j in range(d):
            T[i, j] = S[i, j] - Q[i, j]
    violated = not cholesky(T, L)
    w.violated[0] = violated
    if not cholesky(Q, L):
        return False
    for j in range(d):  # V = L^-1
        for i in range(d):
            a = 1.0 if i == j else 0.0
            for k in range(j, i):
                a -= L[i, k] * V[k, j]
            V[i, j] = a / L[i, i] if i >= j else 0.0
    for i in range(d):
        for j in range(i + 1):
            a = 0.0
            for k in range(i, d):
                a += V[k, i] * V[k, j]
            Q_inv[i, j] = a
            Q_inv[j, i] = a
    code = violated and p.nonpd == 0
    plain = p.nonpd == 3 or (violated and p.nonpd < 2)
    for i in range(d):
        for j in range(d):
            B[i, j] = Q_inv[i, j] + S_inv[i, j] if code else Q_inv[i, j]
            P[i, j] = Q_inv[i, j] if plain else Q_inv[i, j] - S_inv[i, j]
    if violated and p.nonpd == 2:
        for i in range(d):
            for j in range(d):
                a = 0.0
                for k in range(d):
                    a += white[i, k] * Q[k, j]
                V[i, j] = a
        for i in range(d):
            for j in range(i + 1):
                a = 0.0
                for k in range(d):
                    a += V[i, k] * white[j, k]
                T[i, j] = a
                T[j, i] = a
        jacobi(T, V)
        for i in range(d):  # U = white' V: U' S U = I, U' Q U = diag(share)
            for j in range(d):
                a = 0.0
                for k in range(d):
                    a += white[k, i] * V[k, j]
                L[i, j] = a
        for i in range(d):
            for j in range(i + 1):
                a, b = 0.0, 0.0
                for k in range(d):
                    share = min(T[k, k], 1.0)
                    c = L[i, k] * L[j, k]
                    a += c / share
                    b += c * (1.0 / share - 1.0)
                B[i, j] = a
                B[j, i] = a
                P[i, j] = b
                P[j, i] = b
    return True


@kernel
def jacobi(T, V):
    """T (d, d), symmetric, becomes V' T V, diagonal, for V orthonormal: Jacobi's rotations, sweep after sweep."""
    d = T.shape[0]
    for i in range(d):
        for j in range(d):
            V[i, j] = 1.0 if i == j else 0.0
    for _ in range(SWEEPS):
        off, whole = 0.0, 0.0
        for i in range(d):
            whole += T[i, i] * T[i, i]
            for j in range(i):
                off += T[i, j] * T[i, j]
        if off <= 1e-32 * whole:
            return
        for i in range(d):
            for j in range(i):
                b = T[i, j]
                if b == 0.0:
                    continue
                theta = (T[j, j] - T[i, i]) / (2.0 * b)
                tan = 1.0 / (abs(theta) + np.sqrt(theta * theta + 1.0))
                if theta < 0.0:
                    tan = -tan
                cos = 1.0 / np.sqrt(tan * tan + 1.0)
                sin = tan * cos
                for k in range(d):
                    a, c = T[k, i], T[k, j]
                    T[k, i] = cos * a - sin * c
                    T[k, j] = sin * a + cos * c
                    a, c = V[k, i], V[k, j]
                    V[k, i] = cos * a - sin * c
                    V[k, j] = sin * a + cos * c
                for k in range(d):
                    a, c = T[i, k], T[j, k]
                    T[i, k] = cos * a - sin * c
                    T[j, k] = sin * a + cos * c
