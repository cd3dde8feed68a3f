"""S4D: a stack of diagonal state-space layers. Gu et al., NeurIPS 2022.

    u <- u + GLU(W' gelu(y) + c),   y = S(norm(u)),   S: for each of the H features a `_ssm.Diagonal` of M modes

Learnt are log dt (H,), A = -exp(A_re) + i A_im (H, M), C (H, M), D (H,); B = 1, for only C B counts.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._layers import Arrays, copy, gate, gated, glorot, norm, normed, norms, zero
from rheobase.nodes._ssm import Diagonal, discretised, recur
from rheobase.nodes._ssm import initial as modes
from rheobase.stream.node import kernel, routine

SHAPES = {
    "log_dt": "l h", "A_re": "l h m", "A_im": "l h m", "C_re": "l h m", "C_im": "l h m", "D": "l h", "W": "l h 2h",
    "w": "l 2h", "g": "l h", "b": "l h",
}  # fmt: skip
SLOW = ("log_dt", "A_re", "A_im")
"""What learns slowly and does not decay."""


class S4DParams(NamedTuple):
    """a, c: as in `Diagonal`, (layers, M, H); D, g, b (layers, H); W (layers, H, 2H); w (layers, 2H)."""

    a_re: NDArray[np.float64]
    a_im: NDArray[np.float64]
    c_re: NDArray[np.float64]
    c_im: NDArray[np.float64]
    D: NDArray[np.float64]
    g: NDArray[np.float64]
    b: NDArray[np.float64]
    W: NDArray[np.float64]
    w: NDArray[np.float64]


class S4DState(NamedTuple):
    """x (layers, M, H), real and imaginary part; v, y, z, room: to work in."""

    x_re: NDArray[np.float64]
    x_im: NDArray[np.float64]
    v: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    room: NDArray[np.float64]


def initial(rng: np.random.Generator, level: Any, dt: tuple[float, float]) -> Arrays:
    """dt is drawn log-uniformly for each feature; C is complex normal, and weighs B."""
    n, H = level.layers, level.width
    Lambda, B, weight = modes(level.init, level.states, int(rng.integers(2**31)))
    M = len(Lambda)
    C = (rng.standard_normal((n, H, M)) + 1j * rng.standard_normal((n, H, M))) / np.sqrt(2) * B * weight / 2
    return {
        "log_dt": rng.uniform(math.log(dt[0]), math.log(dt[1]), (n, H)),
        "A_re": np.tile(np.log(-Lambda.real), (n, H, 1)),
        "A_im": np.tile(Lambda.imag, (n, H, 1)),
        "C_re": C.real.copy(),
        "C_im": C.imag.copy(),
        "D": rng.standard_normal((n, H)),
        "W": glorot(rng, n, H, 2 * H),
        "w": np.zeros((n, 2 * H)),
        **norms(n, H),
    }


def forward(p: dict[str, Any], u: Any, drop: Any) -> Any:
    import torch

    T = u.shape[1]
    steps = torch.arange(T, dtype=u.dtype, device=u.device)
    for k in range(len(p["D"])):
        dt = p["log_dt"][k].exp()[:, None]  # (H, 1)
        z = torch.complex(-p["A_re"][k].exp() * dt, p["A_im"][k] * dt)  # (H, M)
        C = (
            torch.complex(p["C_re"][k], p["C_im"][k])
            * dt
            * torch.where(
                z.abs() < 1e-8, torch.ones_like(z), torch.expm1(z) / torch.where(z.abs() < 1e-8, torch.ones_like(z), z)
            )
        )
        K = 2 * (C[:, None, :] @ (z[..., None] * steps).exp())[:, 0].real  # (H, T)
        x = norm(u, p["g"][k], p["b"][k])
        y = convolved(K, x) + p["D"][k] * x
        u = u + drop(gate(y, p["W"][k], p["w"][k], drop))
    return u


def convolved(K: Any, u: Any) -> Any:
    """K (H, L) with u (batch, L, H), causal: the product with a Toeplitz matrix where L is short, else by Fourier."""
    import torch

    L = u.shape[1]
    if L <= 32:
        lag = torch.arange(L, device=u.device)[:, None] - torch.arange(L, device=u.device)
        T = torch.where(lag >= 0, K[:, lag.clamp(min=0)], torch.zeros((), dtype=K.dtype, device=K.device))  # (H, L, L)
        return torch.bmm(u.permute(2, 0, 1), T.transpose(1, 2)).permute(1, 2, 0)
    n = 2 * L
    U = torch.fft.rfft(u, n, dim=1) * torch.fft.rfft(K, n, dim=1).T
    return torch.fft.irfft(U, n, dim=1)[:, :L]


def streamed(a: Arrays, ratio: float) -> tuple[S4DParams, S4DState]:
    Lambda = -np.exp(a["A_re"]) + 1j * a["A_im"]
    dA, dB = discretised(Lambda, 1.0, ratio * np.exp(a["log_dt"])[..., None])
    c = 2 * (a["C_re"] + 1j * a["C_im"]) * dB
    dA, c = dA.swapaxes(1, 2), c.swapaxes(1, 2)
    parts = {"a_re": dA.real, "a_im": dA.imag, "c_re": c.real, "c_im": c.imag}
    n, M, H = dA.shape
    rest = {k: a[k] for k in ("D", "g", "b", "W", "w")}
    params = S4DParams(**{k: np.ascontiguousarray(v) for k, v in parts.items()}, **rest)
    return params, S4DState(
        np.zeros((n, M, H)), np.zeros((n, M, H)), np.zeros(H), np.zeros(H), np.zeros(2 * H), np.zeros((3, H))
    )


@routine
def step(p, s, u):
    for k in range(p.D.shape[0]):
        normed(p.g[k], p.b[k], u, s.v)
        recur(Diagonal(p.a_re[k], p.a_im[k], p.c_re[k], p.c_im[k], p.D[k]), s.x_re[k], s.x_im[k], s.v, s.y)
        gated(p.W[k], p.w[k], s.y, s.z, u, s.room)


@kernel
def fresh(s):
    zero(s.x_re)
    zero(s.x_im)


@kernel
def copied(s, to):
    copy(s.x_re, to.x_re)
    copy(s.x_im, to.x_im)
