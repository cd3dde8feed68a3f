"""Linear state-space layers with a diagonal state matrix: their mathematics, and the step that streams them.

    x'(t) = Lambda x(t) + B u(t),   y(t) = sum_n w_n Re(C_n x_n(t)) + D u(t),   x complex, u and y real

w_n = 2 where x_n stands for itself and its complex conjugate, 1 where it is real. Sampled with a step dt (the time of
the layer that one sample takes, so 1/dt is how many samples its memory spans):

    x_k = dA x_{k-1} + dB u_k,   y_k = sum_n w_n Re(C_n x_k,n) + D u_k,   x_{-1} = 0
        = (K * u)_k + D u_k,     K_l = sum_n w_n Re(C_n dB_n dA_n^l)

The first form streams (`Diagonal`, `recur`), the second trains (`response`, `convolve`). A state that has seen u_k is
used for y_k: no delay.

Gu et al., NeurIPS 2020 (HiPPO); Gu et al., ICLR 2022 (S4); Gu et al., NeurIPS 2022 (S4D); Gu et al., ICLR 2023 (How to
train your HiPPO: FouT, time scales); Yu et al., ICLR 2024 (perturb-then-diagonalise, PTD).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from rheobase.stream.block import Array, StreamError
from rheobase.stream.node import kernel, nearest

Matrices = Literal["legs", "legt", "fout"]
Start = Literal["lin", "inv", "legs", "real", "ptd"]
Rule = Literal["zoh", "bilinear"]
Complex = NDArray[np.complexfloating[Any, Any]]

STABLE = -0.3
"""Largest real part that a perturbed matrix may have; without a perturbation it is near -1/2."""


def hippo(kind: Matrices, N: int) -> tuple[Array, Array, Array]:
    """A (N, N), B (N,) and P (r, N) of x' = A x + B u, whose x are coefficients of the past of u; A + P'P is normal.

    legs  u(t - s) = sum_n x_n sqrt(2n+1) P_n(2 exp(-s) - 1): a past that fades, P_n Legendre's polynomials
    legt  u(t - s) = sum_n x_n sqrt(2n+1) P_n(1 - s), 0 <= s <= 2: a window
    fout  u(t - s) = x_0 + sum_m sqrt(2) (x_2m cos(pi m s) + x_2m+1 sin(pi m s)), 0 <= s <= 2: a window; N is even
    """
    n = np.arange(N)
    if kind == "fout":
        B, d = np.zeros(N), np.zeros(N - 1)
        B[::2] = np.sqrt(2.0)
        B[0], d[::2] = 1.0, n[: N // 2]
        return np.pi * (np.diag(d, -1) - np.diag(d, 1)) - np.outer(B, B), B, B[None]
    root = np.sqrt(2 * n + 1.0)
    both = np.outer(root, root)
    if kind == "legs":
        return -np.tril(both, -1) - np.diag(n + 1.0), root, np.sqrt(n + 0.5)[None]
    if kind == "legt":
        k = n[:, None] - n
        P = root / np.sqrt(2.0)
        return -both / 2 * np.where(k >= 0, 1.0, (-1.0) ** k), root / 2, np.stack([P * (n % 2), P * (1 - n % 2)])
    raise StreamError(f"no matrices {kind!r}{nearest(kind, get_args(Matrices))}")


def normal(kind: Matrices, N: int) -> tuple[Complex, Array]:
    """Eigenvalues of A + P'P with a positive imaginary part, the slow ones first, (N/2,); and |V*B| (N/2,).

    A zero pair (fout) counts as one. The phase of an eigenvector is arbitrary: only |V*B| means something.
    """
    A, B, P = hippo(kind, N)
    S = A + P.T @ P
    real = np.mean(np.diag(S))
    skew = (S - S.T) / 2
    w, V = np.linalg.eigh(-1j * skew)
    return real + 1j * np.maximum(w[N // 2 :], 0), np.abs(V.conj().T @ B)[N // 2 :]


class Modes(NamedTuple):
    """Lambda, B (M,) complex; weight (M,): 2 for one of a conjugate pair, 1 for one that is real."""

    Lambda: Complex
    B: Complex
    weight: Array


def initial(kind: Start, N: int, seed: int = 0, eps: float = 0.5) -> Modes:
    """The modes of N real states that a layer starts from: N/2, and of ptd one more for each two that are real.

        lin   Lambda_n = -1/2 + i pi n,                      B = 1
        inv   Lambda_n = -1/2 + i N/pi (N/(2n+1) - 1),       B = 1
        legs  eigenvalues of A + P'P of HiPPO's legs,        B = V^-1 B_legs
        real  Lambda_n = -(n+1),                             B = 1
        ptd   eigenvalues of A + E, E Gaussian, ||E||_2 = eps, drawn anew until all Re Lambda < -0.3;  B = V^-1 B_legs

    Imaginary parts are positive, slow modes come first. Eigenvectors are turned so that B > 0, which C takes up: their
    phase is LAPACK's own. Those of ptd (its Lambda rounded to 1e-6) then are the same on every machine, up to
    rounding. eps is absolute: ||A||_2 is 163, 2608, 41722 at N = 16, 64, 256, and all eps of 0.01 to 1 serve.

    Raises StreamError where N is odd or no E is stable.
    """
    if N < 2 or N % 2:
        raise StreamError(f"a state of {N}: conjugate pairs need an even number")
    n = np.arange(N // 2)
    one, pairs = np.ones(N // 2, complex), np.full(N // 2, 2.0)
    if kind == "lin":
        return Modes(-0.5 + 1j * np.pi * n, one, pairs)
    if kind == "inv":
        return Modes((-0.5 + 1j * N / np.pi * (N / (2 * n + 1) - 1))[::-1].copy(), one, pairs)
    if kind == "real":
        return Modes(-(n + 1.0) + 0j, one, pairs)
    if kind == "legs":
        Lambda, B = normal("legs", N)
        return Modes(Lambda, B + 0j, pairs)
    if kind != "ptd":
        raise StreamError(f"no modes {kind!r}{nearest(kind, get_args(Start))}")
    Lambda, V = perturbed(N, seed, eps)
    B = np.abs(np.linalg.solve(V, hippo("legs", N)[1]))
    Lambda = np.round(Lambda, 6)
    there = np.flatnonzero(Lambda.imag >= 0)
    there = there[np.lexsort((Lambda.real[there], Lambda.imag[there]))]
    return Modes(Lambda[there], B[there] + 0j, np.where(Lambda.imag[there] > 0, 2.0, 1.0))


def perturbed(N: int, seed: int = 0, eps: float = 0.5) -> tuple[Complex, Complex]:
    """Eigenvalues (N,) and eigenvectors V (N, N) of A_legs + E, as `initial` has it. LegS itself has none that can be
    told apart in float64: cond V is over 1e19 for N >= 32. Raises StreamError where no E is stable.
    """
    A, _, _ = hippo("legs", N)
    rng = np.random.default_rng(seed)
    for _ in range(100):
        E = rng.standard_normal((N, N))
        Lambda, V = np.linalg.eig(A + E * (eps / np.linalg.norm(E, 2)))
        if Lambda.real.max() < STABLE:
            return Lambda, V
    raise StreamError(f"eps: of 100 perturbations of {eps:g} none is stable")


def step_of(memory: float, rate: float, spans: float = 1.0) -> float:
    """dt = spans / (memory rate): `memory` s at `rate` Hz are `spans` units of the layer's own time.

    A layer that was trained at one rate runs at another with dt times (rate trained at) / (rate run at).
    """
    return spans / (memory * rate)


def discretised(Lambda: ArrayLike, B: ArrayLike, dt: ArrayLike, how: Rule = "zoh") -> tuple[Any, Any]:
    """dA, dB of the shape that Lambda, B and dt have together.

    zoh       dA = exp(dt Lambda), dB = B (dA - 1) / Lambda, by expm1; dt B where Lambda is 0: u is held for a step
    bilinear  dA = (1 + dt Lambda / 2) / (1 - dt Lambda / 2), dB = dt B / (1 - dt Lambda / 2)
    """
    Lambda, B, dt = np.asarray(Lambda), np.asarray(B), np.asarray(dt)
    z = dt * Lambda
    if how == "bilinear":
        return (1 + z / 2) / (1 - z / 2), dt * B / (1 - z / 2)
    small = np.abs(z) < 1e-8
    return np.exp(z), dt * B * np.where(small, 1.0, np.expm1(z) / np.where(small, 1.0, z))


def discretised_dense(A: Array, B: Array, dt: float, how: Rule = "zoh") -> tuple[Array, Array]:
    """The same for a matrix A (N, N) and B (N,)."""
    N = len(A)
    if how == "bilinear":
        back = np.linalg.inv(np.eye(N) - dt / 2 * A)
        return back @ (np.eye(N) + dt / 2 * A), dt * back @ B
    both = np.zeros((N + 1, N + 1))
    both[:N, :N], both[:N, N] = dt * A, dt * B
    whole = scipy.linalg.expm(both)
    return whole[:N, :N].copy(), whole[:N, N].copy()


def response(dA: ArrayLike, CB: ArrayLike, L: int, weight: ArrayLike = 2.0) -> Any:
    """K (..., L): what y is after one u of 1. dA, CB = C dB (..., M); in the precision of dA."""
    dA, CB = np.asarray(dA), np.asarray(CB)
    powers = dA[..., None] ** np.arange(L, dtype=dA.real.dtype)
    return ((np.asarray(weight, dA.real.dtype) * CB)[..., None, :] @ powers)[..., 0, :].real


def convolve(K: Array, u: Array) -> Array:
    """The first L values of K * u, over the last axis of length L, by Fourier transform."""
    L = u.shape[-1]
    y: Array = np.fft.irfft(np.fft.rfft(K, 2 * L) * np.fft.rfft(u, 2 * L), 2 * L)[..., :L]
    return y


class Diagonal(NamedTuple):
    """H layers of M modes each, as `recur` takes them. a = dA, c = weight C dB, split in two (M, H); D (H,).

    dB is folded into C: x / dB is what is kept.
    """

    a_re: Array
    a_im: Array
    c_re: Array
    c_im: Array
    D: Array


def diagonal(dA: Complex, CB: Complex, D: Array, weight: ArrayLike = 2.0) -> Diagonal:
    """From dA, CB = C dB (H, M), D (H,) and weight (M,)."""
    c = np.asarray(weight) * CB
    a_re, a_im, c_re, c_im = (np.ascontiguousarray(part.T) for part in (dA.real, dA.imag, c.real, c.imag))
    return Diagonal(a_re, a_im, c_re, c_im, D)


@kernel
def recur(p, x_re, x_im, u, y):
    """One sample: x <- a x + u, y = Re(sum_m c x) + D u. p: `Diagonal`; x_re, x_im (M, H) change; u, y (H,).

    The inner loop runs over layers, so that it vectorises and no sum is reordered. Works in float32 too, where all
    arrays are. Zero x_re and x_im to start afresh.
    """
    M, H = x_re.shape
    for h in range(H):
        y[h] = p.D[h] * u[h]
    for m in range(M):
        a_re, a_im, c_re, c_im, re, im = p.a_re[m], p.a_im[m], p.c_re[m], p.c_im[m], x_re[m], x_im[m]
        for h in range(H):
            r = a_re[h] * re[h] - a_im[h] * im[h] + u[h]
            i = a_re[h] * im[h] + a_im[h] * re[h]
            re[h] = r
            im[h] = i
            y[h] += c_re[h] * r - c_im[h] * i
