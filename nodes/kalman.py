"""Kalman filter, and the recursion that it shares with the discriminative one (`dkf.py`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import kernel


class Belief(NamedTuple):
    """What is known of z (d,): N(mu, Sigma), before it N(m, M), and room to work in."""

    mu: NDArray[np.float64]
    Sigma: NDArray[np.float64]
    m: NDArray[np.float64]
    M: NDArray[np.float64]
    L: NDArray[np.float64]
    C: NDArray[np.float64]
    U: NDArray[np.float64]
    b: NDArray[np.float64]
    begun: NDArray[np.int64]


class KalmanParams(NamedTuple):
    A: NDArray[np.float64]
    Gamma: NDArray[np.float64]
    K: NDArray[np.float64]
    P: NDArray[np.float64]
    x_mean: NDArray[np.float64]
    z_mean: NDArray[np.float64]


class KalmanState(NamedTuple):
    belief: Belief


class Kalman(Decoder):
    """Kalman filter: z(t) from all x up to t, both linear and Gaussian.

        z(t) = A z(t-1) + N(0, Gamma)        z (d,), less its training mean
        x(t) = H z(t) + N(0, Lambda)         x (n,), less its training mean where `centre`
        z(0) ~ N(0, S)                       S = covariance of z in training

    Learnt by least squares; Gamma and Lambda are the mean outer products of the residuals (Wu et al., Neural
    Comput 18:80, 2006). The step is in information form, O(n d + d^3):

        m = A mu,  M = A Sigma A' + Gamma
        Sigma = (M^-1 + H' Lambda^-1 H)^-1
        mu = m + Sigma (H' Lambda^-1 x - H' Lambda^-1 H m)

    A sample with a value that is not finite is missing: mu = m, Sigma = M. Directions of x that never varied in
    training (silent channels) carry no information and are left out.
    """

    centre: bool = True
    """Subtract the training means, and add that of z to what comes out. False: both means are known to be 0."""

    shapes = {"A": "d d", "Gamma": "d d", "H": "n d", "Lambda": "n n", "S": "d d", "x_mean": "n", "z_mean": "d"}

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        X, Z = data.X[data.rows], data.Z[data.rows]
        x_mean, z_mean = X.mean(axis=0) * self.centre, Z.mean(axis=0) * self.centre
        X, Z = X - x_mean, Z - z_mean
        A, Gamma = dynamics(data, z_mean)
        H = np.linalg.lstsq(Z, X)[0].T
        R = X - Z @ H.T
        S = np.atleast_2d(np.cov(Z.T))
        return dict(A=A, Gamma=Gamma, H=H, Lambda=R.T @ R / len(R), S=S, x_mean=x_mean, z_mean=z_mean)

    def ready(
        self, x: Spec, A: Array, Gamma: Array, H: Array, Lambda: Array, S: Array, x_mean: Array, z_mean: Array
    ) -> None:
        K = scipy.linalg.pinvh(Lambda) @ H  # (n, d): the inner loop of the step runs along d
        P = H.T @ K
        self.params = KalmanParams(A, Gamma, np.ascontiguousarray(K), (P + P.T) / 2, x_mean, z_mean)
        self.state = KalmanState(belief(S))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        s, K, x_mean, z_mean = state.belief, params.K, params.x_mean, params.z_mean
        predict(params.A, params.Gamma, s)
        b = s.b
        for i in range(b.shape[0]):
            b[i] = 0.0
        whole = True
        for j in range(x.shape[0]):
            whole &= np.isfinite(x[j])
        for j in range(x.shape[0]):
            xj = x[j] - x_mean[j]
            row = K[j]
            for i in range(b.shape[0]):
                b[i] += xj * row[i]
        if whole:
            correct(params.P, s)
        for i in range(y.shape[0]):
            y[i] = s.mu[i] + z_mean[i]
        return True


def dynamics(data: Training, z_mean: Array) -> tuple[Array, Array]:
    """A, Gamma of z(t) = A z(t-1) + N(0, Gamma) by least squares.

    Gamma divides by one more than the number of pairs: in an unbroken stretch that of rows, as the DKF's authors do.
    """
    t = data.pairs()
    before, after = data.Z[t - 1] - z_mean, data.Z[t] - z_mean
    if len(t) <= before.shape[1]:
        raise StreamError(f"{len(t)} pairs of neighbouring rows are too few to learn how z moves")
    A = np.linalg.lstsq(before, after)[0].T
    R = after - before @ A.T
    return A, R.T @ R / (len(t) + 1)


def belief(S: Array) -> Belief:
    """N(0, S), before the first sample."""
    d = len(S)
    v, w = (lambda: np.zeros(d)), (lambda: np.zeros((d, d)))
    return Belief(v(), S.copy(), v(), w(), w(), w(), w(), v(), np.zeros(1, np.int64))


@kernel
def predict(A, Gamma, s):
    """m = A mu, M = A Sigma A' + Gamma, and (mu, Sigma) = (m, M) until `correct` is called.

    The first sample is met with the prior itself.
    """
    mu, Sigma, m, M, W = s.mu, s.Sigma, s.m, s.M, s.U
    d = mu.shape[0]
    if s.begun[0] == 0:
        s.begun[0] = 1
        for i in range(d):
            m[i] = mu[i]
            for j in range(d):
                M[i, j] = Sigma[i, j]
        return
    for i in range(d):
        m[i] = 0.0
        for j in range(d):
            W[i, j] = 0.0
        for k in range(d):
            a = A[i, k]
            m[i] += a * mu[k]
            for j in range(d):
                W[i, j] += a * Sigma[k, j]
    for i in range(d):
        mu[i] = m[i]
        for j in range(i + 1):
            a = Gamma[i, j]
            for k in range(d):
                a += W[i, k] * A[j, k]
            M[i, j] = a
            M[j, i] = a
            Sigma[i, j] = a
            Sigma[j, i] = a


@kernel
def correct(P, s):
    """Sigma = (M^-1 + P)^-1, mu = m + Sigma (b - P m), for b of s.b and an observation of precision P >= 0.

    By M = L L', I + L' P L = C C', C U = L': Sigma = U' U. This inverts nothing that could be singular, and
    Sigma is symmetric and not negative whatever is rounded. Returns False, and leaves m, M and b as they are, where
    I + L' P L is not positive definite: only a P that is not >= 0 makes it so.
    """
    mu, Sigma, m, M, L, C, U, b = s.mu, s.Sigma, s.m, s.M, s.L, s.C, s.U, s.b
    d = mu.shape[0]
    cholesky(M, L)
    for i in range(d):
        for j in range(d):
            a = 0.0
            for k in range(j, d):
                a += P[i, k] * L[k, j]
            U[i, j] = a
    for i in range(d):
        for j in range(i + 1):
            a = 1.0 if i == j else 0.0
            for k in range(i, d):
                a += L[k, i] * U[k, j]
            Sigma[i, j] = a
    if not cholesky(Sigma, C):
        return False
    for i in range(d):
        for j in range(d):
            a = L[j, i]
            for k in range(i):
                a -= C[i, k] * U[k, j]
            U[i, j] = a / C[i, i]
    for i in range(d):
        for j in range(i + 1):
            a = 0.0
            for k in range(d):
                a += U[k, i] * U[k, j]
            Sigma[i, j] = a
            Sigma[j, i] = a
    for i in range(d):
        a = b[i]
        for k in range(d):
            a -= P[i, k] * m[k]
        b[i] = a
    for i in range(d):
        a = m[i]
        for k in range(d):
            a += Sigma[i, k] * b[k]
        mu[i] = a
    return True


@kernel
def cholesky(M, L):
    """Lower L with L L' = M, from the lower half of M. Returns whether M is positive definite.

    A pivot that is not positive makes its column 0, which is right where M is only semidefinite.
    """
    d = M.shape[0]
    positive = True
    for j in range(d):
        a = M[j, j]
        for k in range(j):
            a -= L[j, k] * L[j, k]
        for i in range(j):
            L[i, j] = 0.0
        if a > 0.0:
            p = np.sqrt(a)
            L[j, j] = p
            for i in range(j + 1, d):
                c = M[i, j]
                for k in range(j):
                    c -= L[i, k] * L[j, k]
                L[i, j] = c / p
        else:
            positive = False
            for i in range(j, d):
                L[i, j] = 0.0
    return positive
