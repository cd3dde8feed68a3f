"""ReFIT Kalman filter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training
from rheobase.nodes.kalman import Belief, belief, correct, dynamics, predict
from rheobase.stream.block import Array, Spec
from rheobase.stream.node import Count, kernel


class ReFITParams(NamedTuple):
    """K (n, d) = Lambda^-1 H_v, P (d, d) = H_v' K, c (n,) the rate at rest in the middle; keep = 1 - 1 / memory."""

    A: NDArray[np.float64]
    Gamma: NDArray[np.float64]
    K: NDArray[np.float64]
    P: NDArray[np.float64]
    H_p: NDArray[np.float64]
    c: NDArray[np.float64]
    keep: float


class ReFITState(NamedTuple):
    """p (d,): where the cursor has gone."""

    belief: Belief
    p: NDArray[np.float64]


class ReFIT(Decoder):
    """ReFIT Kalman filter: velocity, where the units also tell of the place, and the place is known.

        x(t) = c + H_p p(t) + H_v v(t) + N(0, Lambda)       state [p, v, 1], v (d,), x (n,)
        v(t) = A v(t-1) + N(0, Gamma),   p(t) = (1 - 1/memory) p(t-1) + v(t-1)

        m = A mu,  M = A Sigma A' + Gamma                                                  of v alone
        Sigma = (M^-1 + H_v' Lambda^-1 H_v)^-1
        mu = m + Sigma H_v' Lambda^-1 (x - c - H_p p - H_v m)

    The person sees the cursor, so p has no uncertainty: its rows and columns of the covariance are set to 0 after each
    prediction. What is left is this filter of v, with the effect of the place taken off the sample. p is what this
    decoder itself has moved, in samples times the unit of v, from 0 at the start.

    That is one half of ReFIT. The other is in the labels: fit it to intended velocity, which points at the target
    (`intended` of the node task), not to what was decoded. In training p is the sum of those labels, stretch by
    stretch, for a decoder is not told where the cursor was; hence `memory`, without which such a sum drifts away from
    any screen. Gilja et al., Nat Neurosci 15:1752, 2012.

    Where the loop is closed the cursor goes where p goes. On a recording it does not, and there a wrong p can make a
    wrong v that makes p worse. So H_p is scaled by a `share` that lets the decoder on its own forget its errors within
    2 memory.

    A sample with a value that is not finite is missing: mu = m, Sigma = M.
    """

    memory: Count = 100
    """Samples after which a movement has left the place to 1/e: those of a trial or so."""

    shapes = {"A": "d d", "Gamma": "d d", "H_p": "n d", "H_v": "n d", "Lambda": "n n", "S": "d d", "c": "n",
              "share": ""}  # fmt: skip

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        d = data.Z.shape[1]
        p = places(data.Z, data.segment, 1 - 1 / self.memory)[data.rows]
        X, V = data.X[data.rows], data.Z[data.rows]
        A, Gamma = dynamics(data, np.zeros(d))
        U = np.column_stack([np.ones(len(V)), p, V])
        W = np.linalg.lstsq(U, X)[0]
        R = X - U @ W
        H_p, H_v, Lambda, S = W[1 : d + 1].T, W[d + 1 :].T, R.T @ R / len(R), V.T @ V / len(V)
        share = stable(A, Gamma, H_p, H_v, Lambda, S, self.memory)
        return dict(A=A, Gamma=Gamma, c=W[0], H_p=share * H_p, H_v=H_v, Lambda=Lambda, S=S, share=np.array(share))

    def ready(
        self, x: Spec, A: Array, Gamma: Array, H_p: Array, H_v: Array, Lambda: Array, S: Array, c: Array, share: Array
    ) -> None:
        K = scipy.linalg.pinvh(Lambda) @ H_v  # silent channels tell nothing, as in kalman.py
        P = H_v.T @ K
        K, H_p = np.ascontiguousarray(K), np.ascontiguousarray(H_p)
        self.params = ReFITParams(A, Gamma, K, (P + P.T) / 2, H_p, c, 1 - 1 / self.memory)
        self.state = ReFITState(belief(S), np.zeros(len(A)))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        s, p, K, H_p, c = state.belief, state.p, params.K, params.H_p, params.c
        d = p.shape[0]
        predict(params.A, params.Gamma, s)
        b = s.b
        for i in range(d):
            b[i] = 0.0
        whole = True
        for j in range(x.shape[0]):
            whole &= np.isfinite(x[j])
        for j in range(x.shape[0]):
            e = x[j] - c[j]
            for i in range(d):
                e -= H_p[j, i] * p[i]
            for i in range(d):
                b[i] += e * K[j, i]
        if whole:
            correct(params.P, s)
        for i in range(d):
            y[i] = s.mu[i]
            p[i] = params.keep * p[i] + s.mu[i]
        return True


def places(V: Array, segment: NDArray[np.int64], keep: float) -> Array:
    """p (T, d): p(t) = keep p(t-1) + v(t-1), from 0 at each segment; a missing v stands still."""
    V, p = np.nan_to_num(V, nan=0.0, posinf=0.0, neginf=0.0), np.zeros(V.shape)
    for t in range(1, len(V)):
        if segment[t] == segment[t - 1]:
            p[t] = keep * p[t - 1] + V[t - 1]
    return p


def stable(A: Array, Gamma: Array, H_p: Array, H_v: Array, Lambda: Array, S: Array, memory: int) -> float:
    """The largest share of H_p, in steps of 0.01, with which [mu, p] on a given x forgets within 2 memory samples."""
    d, Sigma = len(A), S
    K = scipy.linalg.pinvh(Lambda) @ H_v
    P = H_v.T @ K
    for _ in range(200):  # Sigma settles
        M = A @ Sigma @ A.T + Gamma
        Sigma = np.linalg.solve(np.eye(d) + M @ P, M)
    F, G = (np.eye(d) - Sigma @ P) @ A, Sigma @ K.T @ H_p
    most = max(1 - 0.5 / memory, float(np.abs(np.linalg.eigvals(F)).max()))  # slower than that it may be without p too
    for share in np.arange(100, 0, -1) / 100:
        both = np.block([[F, -share * G], [F, (1 - 1 / memory) * np.eye(d) - share * G]])
        if np.abs(np.linalg.eigvals(both)).max() <= most:
            return float(share)
    return 0.0
