"""HiPPO memory: the last seconds of every channel in a few numbers, without training."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._ssm import discretised, discretised_dense, hippo, initial, step_of
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.fuse import apply
from rheobase.stream.node import Count, Kernel, Positive, Seed, kernel

SPANS = {"ptd": 2.0, "legs": 4.0, "lin": 2.0, "inv": 5.0, "legt": 2.0, "fout": 2.0, "dense_legs": 2.0}
"""Units of its own time that `memory` is to each basis: exact for the windows (legt, fout), for the others what
recalled best in `python -m rheobase.tools.memory`."""


class Modes(NamedTuple):
    """dA (2, M), dB (2, M): real and imaginary parts; scale (2, M): of each feature, once dB is in the state; real: so
    many modes, the first, have no imaginary part; hold: samples that a missing one is held for."""

    dA: NDArray[np.float64]
    dB: NDArray[np.float64]
    scale: NDArray[np.float64]
    real: int
    hold: int


class Matrix(NamedTuple):
    """dA (N, N), transposed, dB (N,), scale: of all features; hold: as in `Modes`."""

    dA: NDArray[np.float64]
    dB: NDArray[np.float64]
    scale: float
    hold: int


class Past(NamedTuple):
    """re, im (c, M): the state (of a matrix: the state and room to work in); u (c,): the last sample that was there;
    away (c,): missing ones since."""

    re: NDArray[np.float64]
    im: NDArray[np.float64]
    u: NDArray[np.float64]
    away: NDArray[np.int64]


class HippoMemory(Kernel):
    """x' = A x + B u of every channel u, which is held for a sample; y = x, scaled, named "ch.m0", "ch.m1", ...

    A feature is a weighted past, y_n(t) = integral of k_n(s) u(t - s) ds, s in units of memory / spans (spans: 4 of
    legs, 5 of inv, else 2), with integral of k_n^2 ds = 1 (less for the last of legt, whose window is not sharp). So
    features are the same at every rate, and of the size of a slow u. They are not divided by a running standard
    deviation: that would be another one in each run, and a decoder is learnt on one. In order:

        legs, inv, lin   Re x_n of all modes, the slow ones first, then Im x_n: k_n = exp(-s/2) cos, sin (w_n s)
        ptd              the same of the eigenvalues of LegS plus a small matrix, which makes a diagonal nearest to LegS
                         (modes that are real come first and have no Im)
        dense_legs       Legendre's polynomials over a fading past, by a matrix: N^2 of work
        legt, fout       Legendre's polynomials and Fourier's series over a window, by a matrix

    One number of lin and one of fout is always 0: the sine of frequency 0.

    Before the first sample of a segment u counts as 0: centre it before (`zscore`). For a missing sample the last one
    stands that was there, for the past goes on without it; a channel that has been missing for longer than `memory`,
    or from the start, comes out missing until it is there again.

    Errors: an irregular input; an odd number of features; a memory of less than 2 samples.

    Gu et al., NeurIPS 2020; Gu et al., NeurIPS 2022; Yu et al., ICLR 2024: see `_ssm.py`.
    """

    memory: Positive
    """How far back it goes, s."""

    features: Count = 32
    """Numbers for each channel, even."""

    basis: Literal["ptd", "legs", "lin", "inv", "legt", "fout", "dense_legs"] = "ptd"
    """What the past is written in."""

    seed: Seed = 0
    """Of the small matrix of ptd."""

    def check(self) -> None:
        if self.features % 2:
            raise StreamError(f"features: {self.features} is odd, a wave takes two")

    def start(self, x: Spec) -> Spec:
        self.check()
        if x.rate == 0:
            raise StreamError("needs a regular rate, its input is irregular")
        hold = round(self.memory * x.rate)
        if hold < 2:
            raise StreamError(f"memory: {self.memory:g} s are less than 2 samples at {x.rate:g} Hz")
        dt = step_of(self.memory, x.rate, SPANS[self.basis])
        if self.basis == "legt" or self.basis == "fout" or self.basis == "dense_legs":
            A, B, _ = hippo("legs" if self.basis == "dense_legs" else self.basis, self.features)
            dA, dB = discretised_dense(A, B, dt)
            self.params: Any = Matrix(np.ascontiguousarray(dA.T), dB, float(np.sqrt(2)), hold)
            self.step = _matrix  # type: ignore[method-assign, misc]
            M = self.features
        else:
            Lambda, _, weight = initial(self.basis, self.features, self.seed)
            dA, dB = discretised(Lambda, 1.0, dt)
            self.params = Modes(_split(dA), _split(dB), _scale(Lambda), int((weight == 1).sum()), hold)
            self.step = _modes  # type: ignore[method-assign, misc]
            M = len(Lambda)
        away = np.full(x.n, hold, np.int64)
        self.state = Past(np.zeros((x.n, M)), np.zeros((x.n, M)), np.zeros(x.n), away)
        return x.replace(channels=tuple(f"{c}.m{i}" for c in x.channels for i in range(self.features)), unit="")

    def recall(self, rate: float, penalty: float = 1e-3) -> NDArray[np.float64]:
        """R (L, features), L = memory rate: R y_c is the past of channel c, of lag 0, 1, ... samples at `rate` Hz.

        The likeliest white u given y + noise: R = K' (K K' + penalty mean(diag K K') 1)^-1, K (features, 4 L) what y
        is after one u of 1.
        """
        L = round(self.memory * rate)
        impulse = np.zeros((4 * L, 1))
        impulse[0] = 1.0
        K = apply(self, impulse, Spec(rate=rate, channels=("u",))).data.T
        G = K @ K.T
        G += penalty * np.trace(G) / len(G) * np.eye(len(G))
        R: NDArray[np.float64] = np.linalg.solve(G, K).T[:L]
        return R


def _split(z: Any) -> Array:
    return np.stack([z.real, z.imag])


def _scale(Lambda: Any) -> Array:
    """1 / sqrt(integral of (Re, Im exp(Lambda s))^2 ds), s >= 0; 0 where that integral is."""
    same, twice = -1 / (2 * Lambda.real), (-1 / (2 * Lambda)).real
    power = np.stack([same + twice, same - twice]) / 2
    power[1, Lambda.imag == 0] = np.inf
    return 1 / np.sqrt(power)


@kernel
def _input(params, state, c, x):
    """Take sample x of channel c, or what is held for it. Whether the channel is there."""
    if np.isfinite(x):
        state.u[c] = x
        state.away[c] = 0
        return True
    if state.away[c] <= params.hold:
        state.away[c] += 1
    return state.away[c] <= params.hold


@kernel
def _modes(params, state, t, x, y):
    M = state.re.shape[1]
    a_re, a_im, b_re, b_im, r = params.dA[0], params.dA[1], params.dB[0], params.dB[1], params.real
    for c in range(x.shape[0]):
        there = _input(params, state, c, x[c])
        u, re, im = state.u[c], state.re[c], state.im[c]
        out = y[c * (2 * M - r) : (c + 1) * (2 * M - r)]
        for m in range(M):
            new = a_re[m] * re[m] - a_im[m] * im[m] + b_re[m] * u
            im[m] = a_re[m] * im[m] + a_im[m] * re[m] + b_im[m] * u
            re[m] = new
        for m in range(M):
            out[m] = params.scale[0, m] * re[m]
        for m in range(r, M):
            out[M + m - r] = params.scale[1, m] * im[m]
        if not there:
            for i in range(out.shape[0]):
                out[i] = np.nan
    return True


@kernel
def _matrix(params, state, t, x, y):
    N = state.re.shape[1]
    for c in range(x.shape[0]):
        there = _input(params, state, c, x[c])
        u, z, new = state.u[c], state.re[c], state.im[c]
        for i in range(N):
            new[i] = params.dB[i] * u
        for j in range(N):
            column = params.dA[j]
            for i in range(N):
                new[i] += column[i] * z[j]
        for i in range(N):
            z[i] = new[i]
            y[c * N + i] = params.scale * z[i] if there else np.nan
    return True
