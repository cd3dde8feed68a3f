"""S4: a stack of state-space layers whose state matrix is diagonal plus one of rank 1. Gu et al., ICLR 2022.

    x' = (Lambda - P P*) x + B u,   y = 2 Re(C x) + D u,   Lambda, P, B, C (H, M): one of each conjugate pair

around which stands what stands around S4D (`_s4d.py`). Sampled by the bilinear rule with step dt. It starts as HiPPO's
LegS itself, where S4D starts as a diagonal near it.

Learnt is not C but C~ = C (1 - dA^L), L samples being the longest stretch learnt from: its Fourier transform is then a
sum of M terms a frequency (Cauchy's kernel, corrected for the rank 1 by Woodbury's identity). The stream needs C again,
once, by a solve in float64 (`streamed`); its step stays O(M), by the same identity in time:

    z = E x - P (P* x) + 2 B u,   x <- D^ (z - P R z),   E = 2/dt + Lambda,   D^ = 1 / (2/dt - Lambda),
    R = P* D^ / (1 + P* D^ P),    where P* x is over all 2 M: 2 Re sum_n conj(P_n) x_n
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._layers import Arrays, gate, gated, glorot, norm, normed, norms
from rheobase.nodes._s4d import convolved
from rheobase.nodes._s4d import copied as copied
from rheobase.nodes._s4d import fresh as fresh
from rheobase.nodes._ssm import Complex, hippo
from rheobase.stream.block import StreamError
from rheobase.stream.node import kernel, routine

SHAPES = {
    **{f"{key}_{half}": "l h m" for key in "APBC" for half in ("re", "im")},
    "log_dt": "l h", "D": "l h", "W": "l h 2h", "w": "l 2h", "L": "", "g": "l h", "b": "l h",
}  # fmt: skip
SLOW = ("log_dt", "A_re", "A_im", "P_re", "P_im", "B_re", "B_im")
"""What learns slowly and does not decay."""
PARTS = ("E", "P", "B", "F", "R", "C")


class S4Params(NamedTuple):
    """E, P, B (twice), F = D^, R, C as above, real and imaginary part, (layers, M, H); the rest as in `S4DParams`."""

    E_re: NDArray[np.float64]
    E_im: NDArray[np.float64]
    P_re: NDArray[np.float64]
    P_im: NDArray[np.float64]
    B_re: NDArray[np.float64]
    B_im: NDArray[np.float64]
    F_re: NDArray[np.float64]
    F_im: NDArray[np.float64]
    R_re: NDArray[np.float64]
    R_im: NDArray[np.float64]
    C_re: NDArray[np.float64]
    C_im: NDArray[np.float64]
    D: NDArray[np.float64]
    g: NDArray[np.float64]
    b: NDArray[np.float64]
    W: NDArray[np.float64]
    w: NDArray[np.float64]


class S4State(NamedTuple):
    """x (layers, M, H), real and imaginary part; q, r, v, y, z, room: to work in."""

    x_re: NDArray[np.float64]
    x_im: NDArray[np.float64]
    q: NDArray[np.float64]
    r: NDArray[np.float64]
    v: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    room: NDArray[np.float64]


def initial(rng: np.random.Generator, level: Any, dt: tuple[float, float]) -> Arrays:
    """LegS; dt is drawn log-uniformly for each feature, C~ is complex normal. Raises StreamError for another `init`."""
    if level.init != "legs":
        raise StreamError(f"init: s4 starts from 'legs', not from {level.init!r}: s4d has the others")
    n, H, N = level.layers, level.width, level.states
    A, B, P = hippo("legs", N)
    S = A + P.T @ P
    w, V = np.linalg.eigh(-1j * (S - S.T) / 2)
    w, V = w[N // 2 :], V[:, N // 2 :]
    P1, B1 = V.conj().T @ P[0], V.conj().T @ B
    C = (rng.standard_normal((n, H, N // 2)) + 1j * rng.standard_normal((n, H, N // 2))) / np.sqrt(2)
    found: Arrays = {
        "log_dt": rng.uniform(math.log(dt[0]), math.log(dt[1]), (n, H)),
        "A_re": np.full((n, H, N // 2), np.log(0.5)),
        "A_im": np.tile(w, (n, H, 1)),
        "D": rng.standard_normal((n, H)),
        "W": glorot(rng, n, H, 2 * H),
        "w": np.zeros((n, 2 * H)),
        "L": np.array(0.0),
        **norms(n, H),
    }
    for key, value in (("P", np.tile(P1, (n, H, 1))), ("B", np.tile(B1, (n, H, 1))), ("C", C)):
        found |= {f"{key}_re": value.real.copy(), f"{key}_im": value.imag.copy()}
    return found


def forward(p: dict[str, Any], u: Any, drop: Any) -> Any:
    import torch

    L = int(p["L"])
    assert u.shape[1] <= L, "C~ is of a shorter stretch"
    for k in range(len(p["D"])):
        Lambda, P, B, C = (
            torch.complex(*parts)
            for parts in (
                (-p["A_re"][k].exp(), p["A_im"][k]),
                *((p[f"{key}_re"][k], p[f"{key}_im"][k]) for key in ("P", "B", "C")),
            )
        )
        x = norm(u, p["g"][k], p["b"][k])
        K = response(Lambda, P, B, C, p["log_dt"][k].exp(), L)[:, : u.shape[1]]
        y = convolved(K, x) + p["D"][k] * x
        u = u + drop(gate(y, p["W"][k], p["w"][k], drop))
    return u


def response(Lambda: Any, P: Any, B: Any, C: Any, dt: Any, L: int) -> Any:
    """K (H, L) from its transform K^ at w = exp(-2 pi i j / L), all of C~, P, B (H, M):

    K^ = 2 (s_CB - (1 + w) s_CP s_PB / (1 + (1 + w) s_PP)),
    s_ab = dt sum_n a_n b_n / (2 (1 - w) - dt Lambda_n (1 + w))

    over all 2 M: the form of Gu et al. times (1 + w), which has no pole at w = -1.
    """
    import torch

    j = torch.arange(L // 2 + 1, device=dt.device, dtype=dt.dtype)
    w = torch.polar(torch.ones_like(j), -2 * torch.pi * j / L)
    low, high = 2 * (1 - w), 1 + w
    v = torch.stack([C * B, C * P, P.conj() * B, P.conj() * P], 1) * dt[:, None, None]  # (H, 4, M)
    z = dt[:, None] * Lambda
    s = v.new_zeros(())
    for vn, zn in ((v, z), (v.conj(), z.conj())):
        s = s + vn @ (1 / (low - zn[..., None] * high))  # (H, 4, L/2 + 1)
    K = 2 * (s[:, 0] - high * s[:, 1] * s[:, 2] / (1 + high * s[:, 3]))
    return torch.fft.irfft(K, L, dim=1)


def streamed(a: Arrays, ratio: float) -> tuple[S4Params, S4State]:
    Lambda = -np.exp(a["A_re"]) + 1j * a["A_im"]
    P, B, C = (a[f"{key}_re"] + 1j * a[f"{key}_im"] for key in "PBC")
    dt = np.exp(a["log_dt"])
    whole = untied(Lambda, P, C, dt, int(a["L"]))
    per = 2 / (ratio * dt)[..., None]
    F = 1 / (per - Lambda)
    R = P.conj() * F / (1 + 2 * (P.conj() * F * P).real.sum(axis=-1, keepdims=True))
    values = dict(zip(PARTS, (per + Lambda, P, 2 * B, F, R, 2 * whole), strict=True))
    parts = {
        f"{key}_{word}": np.ascontiguousarray(half.swapaxes(1, 2))
        for key, value in values.items()
        for word, half in (("re", value.real), ("im", value.imag))
    }
    params = S4Params(**parts, D=a["D"], g=a["g"], b=a["b"], W=a["W"], w=a["w"])
    n, M, H = params.E_re.shape
    q, r, v, y = np.zeros((4, H))
    return params, S4State(np.zeros((n, M, H)), np.zeros((n, M, H)), q, r, v, y, np.zeros(2 * H), np.zeros((3, H)))


def untied(Lambda: Complex, P: Complex, C: Complex, dt: NDArray[np.float64], L: int) -> Complex:
    """C (..., M) from C~ = C (1 - dA^L), by a solve for each feature with both of each conjugate pair."""
    both = [np.concatenate([x, x.conj()], axis=-1) for x in (Lambda, P, C)]
    one = np.eye(both[0].shape[-1])
    A = both[0][..., None] * one - both[1][..., None] * both[1].conj()[..., None, :]
    half = dt[..., None, None] / 2 * A
    dA = np.linalg.solve(one - half, one + half)
    power = np.linalg.matrix_power(dA, L)
    found: Complex = np.linalg.solve((one - power).swapaxes(-1, -2), both[2][..., None])[..., : C.shape[-1], 0]
    return found


@routine
def step(p, s, u):
    for k in range(p.D.shape[0]):
        normed(p.g[k], p.b[k], u, s.v)
        _state(p, s, k)
        gated(p.W[k], p.w[k], s.y, s.z, u, s.room)


@kernel
def _state(p, s, k):
    """One sample of layer k: s.y from s.v."""
    M, H = s.x_re.shape[1:]
    q, r, v, y = s.q, s.r, s.v, s.y
    for h in range(H):
        q[h] = 0.0
        r[h] = 0.0
        y[h] = p.D[k, h] * v[h]
    for m in range(M):
        P_re, P_im, re, im = p.P_re[k, m], p.P_im[k, m], s.x_re[k, m], s.x_im[k, m]
        for h in range(H):
            q[h] += 2 * (P_re[h] * re[h] + P_im[h] * im[h])
    for m in range(M):
        P_re, P_im, re, im = p.P_re[k, m], p.P_im[k, m], s.x_re[k, m], s.x_im[k, m]
        E_re, E_im, B_re, B_im = p.E_re[k, m], p.E_im[k, m], p.B_re[k, m], p.B_im[k, m]
        R_re, R_im = p.R_re[k, m], p.R_im[k, m]
        for h in range(H):
            a = E_re[h] * re[h] - E_im[h] * im[h] - P_re[h] * q[h] + B_re[h] * v[h]
            b = E_re[h] * im[h] + E_im[h] * re[h] - P_im[h] * q[h] + B_im[h] * v[h]
            re[h] = a
            im[h] = b
            r[h] += 2 * (R_re[h] * a - R_im[h] * b)
    for m in range(M):
        P_re, P_im, re, im = p.P_re[k, m], p.P_im[k, m], s.x_re[k, m], s.x_im[k, m]
        F_re, F_im, C_re, C_im = p.F_re[k, m], p.F_im[k, m], p.C_re[k, m], p.C_im[k, m]
        for h in range(H):
            a = re[h] - P_re[h] * r[h]
            b = im[h] - P_im[h] * r[h]
            re[h] = F_re[h] * a - F_im[h] * b
            im[h] = F_re[h] * b + F_im[h] * a
            y[h] += C_re[h] * re[h] - C_im[h] * im[h]
