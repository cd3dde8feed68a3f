"""The recursion of the discriminative Kalman filter, put together at the start from what a decoder is made of.

filtered(f, weigh, advance)    f: the step of a regressor       weigh: `constant` or `varying(q)` (`_noise.py`)
                               advance: `recursion(move)`, or `settling(...)` where Sigma has a limit
                               move: `linear` or `unscented(g)` (`_unscented.py`)
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._noise import noise_params, varying, weights
from rheobase.nodes.kalman import Belief, belief, correct, predict
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Kernel, kernel


class DKFParams(NamedTuple):
    """Q, B, P, Q_inv (d, d) and violated (1,): the weights of a constant Q, as in `Weights`. spread, gain: as
    `filtered` gives it out. f, noise, g: of the regressor, of Q(x), of the dynamics; limit: `Limit`.
    """

    A: NDArray[np.float64]
    Gamma: NDArray[np.float64]
    Q: NDArray[np.float64]
    B: NDArray[np.float64]
    P: NDArray[np.float64]
    Q_inv: NDArray[np.float64]
    violated: NDArray[np.int64]
    z_mean: NDArray[np.float64]
    spread: float
    gain: float
    f: Any
    noise: Any = ()
    g: Any = ()
    limit: Any = ()


class DKFState(NamedTuple):
    """For its health: `bins` decoded since the start, `nonpd` of them where Q^-1 - S^-1 was not positive definite (or
    Sigma was not), `missing` those without an f. `settled`: Sigma has reached its limit. excess (d, d): what the
    spread added to the covariance of the last bin that was not missing.
    """

    belief: Belief
    y: NDArray[np.float64]
    bins: NDArray[np.int64]
    nonpd: NDArray[np.int64]
    missing: NDArray[np.int64]
    settled: NDArray[np.int64]
    excess: NDArray[np.float64]
    f: Any
    weights: Any = ()
    q: Any = ()
    points: Any = ()


class Limit(NamedTuple):
    """Where Sigma has settled: mu(t) = G f + H mu(t-1), all (d, d)."""

    G: NDArray[np.float64]
    H: NDArray[np.float64]
    Sigma: NDArray[np.float64]


def state(S: Array, f: Any, **more: Any) -> DKFState:
    """That before the first bin."""
    bins, nonpd, missing, settled = np.zeros((4, 1), np.int64)
    return DKFState(belief(S), np.zeros(len(S)), bins, nonpd, missing, settled, np.zeros(S.shape), f, **more)


def limit(A: Array, Gamma: Array, B: Array, P: Array) -> Limit:
    """The gain that the filter settles at: M = A (M^-1 + P)^-1 A' + Gamma, a discrete Riccati equation.

    Raises StreamError where there is none.
    """
    w, V = np.linalg.eigh(P)
    C = (V * np.sqrt(np.maximum(w, 0.0))).T  # P = C' C: as if C z were seen with noise I
    try:
        M = scipy.linalg.solve_discrete_are(A.T, C.T, Gamma, np.eye(len(A)))
        Sigma = np.linalg.inv(np.linalg.inv(M) + P)
    except np.linalg.LinAlgError:
        raise StreamError("steady: the covariance of z as learnt never settles") from None
    Sigma = (Sigma + Sigma.T) / 2
    return Limit(Sigma @ B, A - Sigma @ P @ A, Sigma)


@functools.cache
def filtered(f: Callable[..., bool], weigh: Callable[..., Any], advance: Callable[..., bool]) -> Callable[..., bool]:
    """The step of a DKF: y = z_mean + gain mu and, where y has room, the upper triangle of its covariance, row by row.

    That is gain^2 spread Sigma. While bins are missing it is gain^2 times Sigma and what a spread over 1 added last:
    Sigma then grows by Gamma, which needs no spread.
    """

    @kernel
    def step(params, state, t, x, y):
        if not f(params.f, state.f, t, x, state.y):
            return False
        s, z_mean, gain = state.belief, params.z_mean, params.gain
        d = z_mean.shape[0]
        state.bins[0] += 1
        for i in range(d):
            state.y[i] -= z_mean[i]
        w = weigh(params, state, t, x)
        there = True
        for i in range(d):
            there &= np.isfinite(state.y[i])
        if not there:
            state.missing[0] += 1
        if advance(params, state, t, w, there):
            state.nonpd[0] += 1
        for i in range(d):
            y[i] = gain * s.mu[i] + z_mean[i]
        k = d
        if y.shape[0] > d:
            less, more = min(params.spread, 1.0), max(params.spread - 1.0, 0.0)
            for i in range(d):
                for j in range(i, d):
                    if there:
                        state.excess[i, j] = more * s.Sigma[i, j]
                    y[k] = gain * gain * (less * s.Sigma[i, j] + state.excess[i, j])
                    k += 1
        return True

    return step


@functools.cache
def recursion(move: Callable[..., None]) -> Callable[..., bool]:
    """One bin, where f (of state.y) is there or not. Returns whether Q^-1 - S^-1 or Sigma was not positive definite.

    The first f is taken as it is, N(f, Q): so do the authors, and so it follows from z(0) ~ N(0, S). Bins without
    an f before it change nothing.
    """

    @kernel
    def advance(params, state, t, w, there):
        s, f, Q, B, P = state.belief, state.y, w.Q, w.B, w.P
        d = f.shape[0]
        begun = s.begun[0] != 0
        if begun:
            move(params, state, t)
        if not there:
            return False
        if not begun:
            s.begun[0] = 1
            for i in range(d):
                s.mu[i] = f[i]
                for j in range(d):
                    s.Sigma[i, j] = Q[i, j]
            return w.violated[0] != 0
        for i in range(d):
            a = 0.0
            for j in range(d):
                a += B[i, j] * f[j]
            s.b[i] = a
        if correct(P, s):
            return w.violated[0] != 0
        B = w.Q_inv  # then the robust form, whose Sigma is positive definite by all means
        for i in range(d):
            a = 0.0
            for j in range(d):
                a += B[i, j] * f[j]
            s.b[i] = a
        correct(B, s)
        return True

    return advance


@kernel
def linear(params, state, t):
    """m = A mu, M = A Sigma A' + Gamma"""
    predict(params.A, params.Gamma, state.belief)


@functools.cache
def settling(full: Callable[..., bool]) -> Callable[..., bool]:
    """`full` until Sigma is within 1e-10 of its limit, from then on the gain at the limit, O(d^2).

    After a missing bin Sigma is larger, and of a model that is swapped in it has another limit: then it is `full`
    again until it has settled anew.
    """

    @kernel
    def advance(params, state, t, w, there):
        s, f, G, H, limit = state.belief, state.y, params.limit.G, params.limit.H, params.limit.Sigma
        mu, Sigma, b = s.mu, s.Sigma, s.b
        d = mu.shape[0]
        settled = state.settled[0] != 0 and there
        for i in range(d):
            for j in range(d):
                settled &= Sigma[i, j] == limit[i, j]
        if not settled:
            violated = full(params, state, t, w, there)
            off, whole = 0.0, 0.0
            for i in range(d):
                whole += limit[i, i]
                for j in range(d):
                    off += abs(Sigma[i, j] - limit[i, j])
            state.settled[0] = there and off <= 1e-10 * whole
            if state.settled[0] != 0:
                for i in range(d):
                    for j in range(d):
                        Sigma[i, j] = limit[i, j]
            return violated
        for i in range(d):
            b[i] = 0.0
            for j in range(d):
                b[i] += G[i, j] * f[j] + H[i, j] * mu[j]
        for i in range(d):
            mu[i] = b[i]
        return w.violated[0] != 0

    return advance


class Recursion(Kernel):
    """The filter alone, for an f and a Q that are given with each bin: x = [f, Q] -> [mu, upper triangle of Sigma].

    S, A, Gamma, nonpd: as in `DKF`. scale: on Q. move: `linear`, or `unscented(g)` with the parameters and the state
    of g.
    """

    A: Any
    Gamma: Any
    S: Any
    nonpd: str = "fallback_code"
    scale: float = 1.0
    move: Any = None
    g: Any = ()
    points: Any = ()

    def start(self, x: Spec) -> Spec:
        d = len(self.S)
        none, zero = np.zeros((d, d)), np.zeros(d)
        noise = noise_params(self.S, self.scale, self.nonpd)
        self.params = DKFParams(
            self.A, self.Gamma, none, none, none, none, np.zeros(1, np.int64), zero, 1.0, 1.0, (), noise, self.g
        )
        self.state = state(self.S, (), weights=weights(d), points=self.points)
        self.step = filtered(_first, varying(_rest), recursion(self.move or linear))  # type: ignore[method-assign, misc]
        return x.replace(channels=numbered("y", d + d * (d + 1) // 2), unit="")


@kernel
def _first(params, state, t, x, y):
    for i in range(y.shape[0]):
        y[i] = x[i]
    return True


@kernel
def _rest(params, state, t, x, y):
    d = x.shape[0] - y.shape[0]
    for i in range(y.shape[0]):
        y[i] = x[d + i]
    return True
