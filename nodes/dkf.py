"""Discriminative Kalman filter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, spec_header
from rheobase.nodes.kalman import Belief, belief, correct, dynamics, predict
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Fraction, kernel, load


class DKFParams(NamedTuple):
    """B (d, d) weighs f, P (d, d) is the precision that a bin adds: see `precision`."""

    A: NDArray[np.float64]
    Gamma: NDArray[np.float64]
    Q: NDArray[np.float64]
    B: NDArray[np.float64]
    P: NDArray[np.float64]
    violated: int
    z_mean: NDArray[np.float64]
    f: Any


class DKFState(NamedTuple):
    """For its health: `bins` decoded since the start, `nonpd` of them where Q^-1 - S^-1 was not positive definite,
    `missing` those without an f.
    """

    belief: Belief
    y: NDArray[np.float64]
    bins: NDArray[np.int64]
    nonpd: NDArray[np.int64]
    missing: NDArray[np.int64]
    f: Any


class DKF(Decoder):
    """Discriminative Kalman filter: what z is most likely, where p(z | x) is learnt instead of p(x | z).

        z(t) = A z(t-1) + N(0, Gamma),   z ~ N(0, S),   p(z(t) | x(t)) = N(f(x(t)), Q)

        m = A mu,  M = A Sigma A' + Gamma
        Sigma = (M^-1 + Q^-1 - S^-1)^-1
        mu = Sigma (M^-1 m + Q^-1 f(x))

    z (d,) is taken less its training mean. f is any regressor; Q is the mean of r r' over residuals r of rows that f
    had not seen. A bin where f is not finite is missing: mu = m, Sigma = M. A linear f with the matching Q gives the
    Kalman filter. Burkhart, Brandman, Franco, Hochberg, Harrison, Neural Comput 32:969, 2020.
    """

    f: str | dict[str, Any] = "nadaraya_watson"
    """The regressor: its type, or {type: mlp, hidden: 32}."""

    nonpd: Literal["fallback_code", "fallback_text", "clip", "robust"] = "fallback_code"
    """Where Q^-1 - S^-1 is not positive definite. robust: S^-1 is left out, there and everywhere.
    fallback_text: it is left out there (the paper's words).
    fallback_code: it is left out of Sigma there, and f weighs Q^-1 + S^-1 (the authors' code).
    clip: the part of Q that exceeds S is set to S.
    """

    S: Literal["cov", "lyapunov"] = "cov"
    """S is the covariance of z in training, or what A and Gamma make stationary."""

    held_out: Fraction = 0.3
    """Share of the training rows, drawn at random, that Q is learnt from."""

    seed: int = 0
    """Of that draw, and of f where it draws too."""

    shapes = {"A": "d d", "Gamma": "d d", "S": "d d", "Q": "d d", "z_mean": "d"}
    adjustable = ("model", "nonpd")

    def regressor(self) -> Decoder:
        """A fresh f. Raises StreamError where it cannot be made."""
        words = {"type": self.f} if isinstance(self.f, str) else dict(self.f)
        kind = words.pop("type", None)
        if not isinstance(kind, str):
            raise StreamError("f: needs a type, as in {type: ridge, lags: 5}")
        try:
            cls = load(kind)
            made = cls.make(**({"seed": self.seed} if "seed" in cls.parameters() else {}) | words)
        except StreamError as e:
            raise StreamError(f"f: {e}") from None
        if not isinstance(made, Decoder) or isinstance(made, DKF):
            raise StreamError(f"f: {kind!r} is no regressor")
        return made

    @property
    def health(self) -> dict[str, int]:
        """Bins decoded, those not positive definite, those missing."""
        return {k: int(getattr(self.state, k)[0]) for k in ("bins", "nonpd", "missing")} if self.state else {}

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        if isinstance(self.f, dict) and set(self.f) == {"type"}:
            found["f"] = self.f["type"]  # two ways to write one thing
        return found

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        rows = np.flatnonzero(data.rows)
        cut = round(len(rows) * self.held_out)
        d = data.Z.shape[1]
        if not d < cut < len(rows):
            raise StreamError(f"held_out: {cut} of {len(rows)} rows are no basis for both f and Q")
        drawn = np.random.default_rng(self.seed).permutation(rows)
        seen = np.zeros(len(data.rows), bool)
        seen[drawn[cut:]] = True
        known = {k.removeprefix("f."): v for k, v in (like or {}).items() if k.startswith("f.")}
        first = self.regressor().fit(data.X, data.Z, rows=seen, segment=data.segment, like=known or None)
        out = data.rows & ~seen
        r = data.Z[out] - first.predict(data.X, data.segment)[out]
        # f is then learnt from all rows, its hyper-parameters kept
        f = self.regressor().fit(data.X, data.Z, rows=data.rows, segment=data.segment, like=first.arrays)
        z_mean = data.Z[data.rows].mean(axis=0)
        A, Gamma = dynamics(data, z_mean)
        S = np.atleast_2d(np.cov(data.Z[data.rows].T))
        if self.S == "lyapunov":
            if np.abs(np.linalg.eigvals(A)).max() >= 1:
                raise StreamError("S: z as learnt is not stationary, so there is no such S: use cov")
            S = scipy.linalg.solve_discrete_lyapunov(A, Gamma)
        given = {f"f.{k}": v for k, v in f.arrays.items()}
        return dict(A=A, Gamma=Gamma, S=S, Q=r.T @ r / len(r), z_mean=z_mean, **given)

    def ready(self, x: Spec, A: Array, Gamma: Array, S: Array, Q: Array, z_mean: Array, **given: Array) -> None:
        d, f = len(z_mean), self.regressor()
        learnt = {k.removeprefix("f."): v for k, v in given.items()}
        f.hold(learnt, spec_header(x), {"channels": numbered("f", d), "unit": ""}).start(x)
        B, P, violated = precision(Q, S, self.nonpd)
        self.params = DKFParams(A, Gamma, Q, B, P, int(violated), z_mean, f.params)
        bins, nonpd, missing = np.zeros((3, 1), np.int64)
        self.state = DKFState(belief(S), np.zeros(d), bins, nonpd, missing, f.state)
        self.step = filtered(f.step)  # type: ignore[method-assign, misc]


def precision(Q: Array, S: Array, nonpd: str) -> tuple[Array, Array, bool]:
    """B and P of Sigma = (M^-1 + P)^-1, mu = Sigma (M^-1 m + B f), and whether Q^-1 - S^-1 is not positive definite.

    B = Q^-1 and P = Q^-1 - S^-1, but for the treatments of `DKF.nonpd`. Raises StreamError where Q or S is not
    positive definite.
    """
    for letter, M, why in (("Q", Q, "f is exact on rows held out"), ("S", S, "a channel of z is constant or a mix")):
        if np.linalg.eigvalsh(M).min() <= 0:
            raise StreamError(f"{letter} is not positive definite: {why}")
    Q_inv, S_inv = np.linalg.inv(Q), np.linalg.inv(S)
    Q_inv, S_inv = (Q_inv + Q_inv.T) / 2, (S_inv + S_inv.T) / 2
    violated = bool(np.linalg.eigvalsh(Q_inv - S_inv).min() <= 0)
    if nonpd == "robust" or (violated and nonpd == "fallback_text"):
        return Q_inv, Q_inv, violated
    if violated and nonpd == "fallback_code":
        return Q_inv + S_inv, Q_inv, violated
    if violated:
        share, U = scipy.linalg.eigh(Q, S)  # U' S U = I, U' Q U = diag(share)
        share = np.minimum(share, 1.0)
        return U / share @ U.T, U * (1 / share - 1) @ U.T, violated
    return Q_inv, Q_inv - S_inv, violated


@functools.cache
def filtered(f: Callable[..., bool]) -> Callable[..., bool]:
    """The step of a DKF whose regressor's step is f."""

    @kernel
    def step(params, state, t, x, y):
        if not f(params.f, state.f, t, x, state.y):
            return False
        s, z_mean = state.belief, params.z_mean
        state.bins[0] += 1
        for i in range(y.shape[0]):
            state.y[i] -= z_mean[i]
        if update(state.y, params.Q, params.A, params.Gamma, params.B, params.P, s):
            state.nonpd[0] += params.violated
        else:
            state.missing[0] += 1
        for i in range(y.shape[0]):
            y[i] = s.mu[i] + z_mean[i]
        return True

    return step


@kernel
def update(f, Q, A, Gamma, B, P, s):
    """One bin of the recursion, f less the mean of z. Returns False where f is missing, and has only predicted.

    The first f is taken as it is, N(f, Q): so do the authors, and so it follows from z(0) ~ N(0, S).
    """
    d = f.shape[0]
    for i in range(d):
        if not np.isfinite(f[i]):
            if s.begun[0]:
                predict(A, Gamma, s)
            return False
    if s.begun[0] == 0:
        s.begun[0] = 1
        for i in range(d):
            s.mu[i] = f[i]
            for j in range(d):
                s.Sigma[i, j] = Q[i, j]
        return True
    predict(A, Gamma, s)
    for i in range(d):
        a = 0.0
        for j in range(d):
            a += B[i, j] * f[j]
        s.b[i] = a
    correct(P, s)
    return True
