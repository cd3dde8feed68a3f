"""Mamba: a stack of selective state-space layers, whose step and matrices depend on what comes in. Gu & Dao, 2023.

    u <- u + W_out' (y silu(z)),   (x, z) = W_in' norm(u),   y = S(x),   and one norm more after the last layer

    x <- silu(sum_j w_j x_{t-3+j} + c)           a causal convolution of 4 samples, each feature alone
    (delta, B, C) = W_x' x,   dt = softplus(W_dt' delta + b_dt),   A = -exp(A_log)      (N, E), real
    s <- exp(dt A) s + dt x B,   y = sum_n C_n s_n + D x                                 B by Euler's rule, not held

E = 2 H features inside, delta of ceil(H / 16).
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import affine
from rheobase.nodes._layers import Arrays, add, copy, glorot, norm, normed, norms, sigmoid, zero
from rheobase.stream.node import kernel, routine

SHAPES = {
    "W_in": "l h 4h", "w": "l taps 2h", "c": "l 2h", "W_x": "l 2h r+2s", "W_dt": "l r 2h", "b_dt": "l 2h",
    "A_log": "l s 2h", "D": "l 2h", "W_out": "l 2h h", "g": "l+1 h", "b": "l+1 h",
}  # fmt: skip
SLOW = ("A_log", "b_dt")
"""What learns slowly and does not decay."""
TAPS = 4


class MambaParams(NamedTuple):
    """W_in (layers, H, 2E), w (layers, 4, E), c, b_dt, D (layers, E), W_x (layers, E, R + 2N), W_dt (layers, R, E),
    A (layers, N, E), W_out (layers, E, H); g, b (layers + 1, H); none: zeros, for maps without a constant."""

    W_in: NDArray[np.float64]
    w: NDArray[np.float64]
    c: NDArray[np.float64]
    W_x: NDArray[np.float64]
    W_dt: NDArray[np.float64]
    b_dt: NDArray[np.float64]
    A: NDArray[np.float64]
    D: NDArray[np.float64]
    W_out: NDArray[np.float64]
    g: NDArray[np.float64]
    b: NDArray[np.float64]
    none: NDArray[np.float64]


class MambaState(NamedTuple):
    """x (layers, 4, E): what was, the newest last; s (layers, N, E); the rest is room to work in."""

    x: NDArray[np.float64]
    s: NDArray[np.float64]
    v: NDArray[np.float64]
    xz: NDArray[np.float64]
    a: NDArray[np.float64]
    dbc: NDArray[np.float64]
    dt: NDArray[np.float64]
    y: NDArray[np.float64]


def initial(rng: np.random.Generator, level: Any, dt: tuple[float, float]) -> Arrays:
    n, H, N = level.layers, level.width, level.states
    E, R = 2 * H, math.ceil(H / 16)
    first = np.exp(rng.uniform(math.log(dt[0]), math.log(dt[1]), (n, E)))
    return {
        "W_in": glorot(rng, n, H, 2 * E),
        "w": rng.uniform(-1, 1, (n, TAPS, E)) / math.sqrt(TAPS),
        "c": rng.uniform(-1, 1, (n, E)) / math.sqrt(TAPS),
        "W_x": glorot(rng, n, E, R + 2 * N),
        "W_dt": rng.uniform(-1, 1, (n, R, E)) / math.sqrt(R),
        "b_dt": first + np.log(-np.expm1(-first)),  # softplus of it is `first`
        "A_log": np.log(np.tile(np.arange(1.0, N + 1)[:, None], (n, 1, E))),
        "D": np.ones((n, E)),
        "W_out": glorot(rng, n, E, H),
        **norms(n + 1, H),
    }


def forward(p: dict[str, Any], u: Any, drop: Any) -> Any:
    for k in range(len(p["D"])):
        u = u + drop(mixed({key: w[k] for key, w in p.items()}, norm(u, p["g"][k], p["b"][k])))
    return norm(u, p["g"][-1], p["b"][-1])


def mixed(p: dict[str, Any], v: Any) -> Any:
    """What a layer adds to u, of v = norm(u)."""
    from torch.nn.functional import conv1d, pad, silu, softplus

    N, E = p["A_log"].shape
    x, z = (v @ p["W_in"]).split(E, dim=-1)
    past = pad(x.transpose(1, 2), (TAPS - 1, 0))
    x = silu(conv1d(past, p["w"].T[:, None, :], p["c"], groups=E)).transpose(1, 2)
    delta, B, C = (x @ p["W_x"]).split([len(p["W_dt"]), N, N], dim=-1)
    dt = softplus(delta @ p["W_dt"] + p["b_dt"])
    y = scan(dt, -p["A_log"].exp(), B, C, x) + p["D"] * x
    return (y * silu(z)) @ p["W_out"]


def scan(dt: Any, A: Any, B: Any, C: Any, x: Any) -> Any:
    """y (b, T, E) = sum_n C_n s_n, s <- exp(dt A) s + dt x B; dt, x (b, T, E), A (N, E), B, C (b, T, N).

    On a CPU by compiled loops, forth and back: torch would write down every s, and its gradient, many times over.
    """
    decay, drive = (dt[:, :, None] * A).exp(), dt * x
    return plain_scan(decay, drive, B, C) if x.is_cuda else _compiled_scan().apply(decay, drive, B, C)


def plain_scan(decay: Any, drive: Any, B: Any, C: Any) -> Any:
    """y of s <- decay s + drive B as it is written, sample by sample; decay (b, T, N, E), drive (b, T, E)."""
    import torch

    s, ys = torch.zeros_like(decay[:, 0]), []
    for t in range(decay.shape[1]):
        s = decay[:, t] * s + drive[:, t, None] * B[:, t, :, None]
        ys.append((C[:, t, :, None] * s).sum(1))
    return torch.stack(ys, 1)


@functools.cache
def _compiled_scan() -> Any:
    import torch

    class Scan(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Any) -> Any:
            arrays = [g.detach().contiguous().numpy() for g in given]
            b, T, N, E = arrays[0].shape
            s = np.zeros((b, T + 1, N, E), arrays[0].dtype)
            y = np.zeros((b, T, E), arrays[0].dtype)
            scan_forth(arrays[0], arrays[1], arrays[2], arrays[3], s, y)
            ctx.kept = (arrays, s)
            return torch.from_numpy(y)

        @staticmethod
        def backward(ctx: Any, dy: Any) -> Any:
            (decay, drive, B, C), s = ctx.kept
            found = [np.zeros_like(a) for a in (decay, drive, B, C)]
            room = np.zeros_like(s[0, 0])
            scan_back(decay, drive, B, C, s, dy.contiguous().numpy(), room, found[0], found[1], found[2], found[3])
            return tuple(torch.from_numpy(f) for f in found)

    return Scan


@kernel
def scan_forth(decay, drive, B, C, s, y):
    """s (b, T + 1, N, E) and y, of zeros."""
    for b in range(s.shape[0]):
        for t in range(y.shape[1]):
            yt, ut = y[b, t], drive[b, t]
            for n in range(s.shape[2]):
                before, now, an, Bn, Cn = s[b, t, n], s[b, t + 1, n], decay[b, t, n], B[b, t, n], C[b, t, n]
                for e in range(s.shape[3]):
                    now[e] = an[e] * before[e] + ut[e] * Bn
                    yt[e] += Cn * now[e]


@kernel
def scan_back(decay, drive, B, C, s, dy, ds, d_decay, d_drive, dB, dC):
    """What y changes by with each of its four; ds (N, E) is room, the others are zeros."""
    for b in range(s.shape[0]):
        ds[:] = 0
        for t in range(dy.shape[1] - 1, -1, -1):
            ut, dyt, dut = drive[b, t], dy[b, t], d_drive[b, t]
            for n in range(s.shape[2]):
                before, now, an, Bn, Cn = s[b, t, n], s[b, t + 1, n], decay[b, t, n], B[b, t, n], C[b, t, n]
                dsn, dan = ds[n], d_decay[b, t, n]
                to_B = to_C = 0.0
                for e in range(s.shape[3]):
                    to_C += dyt[e] * now[e]
                    g = dsn[e] + dyt[e] * Cn
                    dan[e] = g * before[e]
                    dut[e] += g * Bn
                    to_B += g * ut[e]
                    dsn[e] = g * an[e]
                dB[b, t, n] = to_B
                dC[b, t, n] = to_C


def streamed(a: Arrays, ratio: float) -> tuple[MambaParams, MambaState]:
    n, H = len(a["D"]), a["W_in"].shape[1]
    E, Q, N = a["D"].shape[1], a["W_x"].shape[2], a["A_log"].shape[1]
    given = {k: v for k, v in a.items() if k != "A_log"}
    params = MambaParams(**given, A=-np.exp(a["A_log"]), none=np.zeros(max(2 * E, Q, H)))
    room = [np.zeros(size) for size in (H, 2 * E, E, Q, E, H)]
    return params, MambaState(np.zeros((n, TAPS, E)), np.zeros((n, N, E)), *room)


@routine
def step(p, s, u):
    n = p.A.shape[0]
    for k in range(n):
        normed(p.g[k], p.b[k], u, s.v)
        mix(p, s, k)
        add(s.y, u)
    normed(p.g[n], p.b[n], u, s.v)
    for i in range(u.shape[0]):
        u[i] = s.v[i]


@kernel
def mix(p, s, k):
    """One sample of layer k: s.y from s.v."""
    N, E = p.A.shape[1:]
    R, Q = p.W_dt.shape[1], p.W_x.shape[2]
    x, z, dt, a, past = s.xz[:E], s.xz[E:], s.dt, s.a, s.x[k]
    affine(p.W_in[k], p.none[: 2 * E], s.v, s.xz)
    for j in range(TAPS - 1):
        for e in range(E):
            past[j, e] = past[j + 1, e]
    for e in range(E):
        past[TAPS - 1, e] = x[e]
        a[e] = p.c[k, e]
    for j in range(TAPS):
        for e in range(E):
            a[e] += p.w[k, j, e] * past[j, e]
    for e in range(E):
        a[e] *= sigmoid(a[e])
    affine(p.W_x[k], p.none[:Q], a, s.dbc)
    affine(p.W_dt[k], p.b_dt[k], s.dbc[:R], dt)
    for e in range(E):
        dt[e] = softplus(dt[e])
        x[e] = p.D[k, e] * a[e]
        a[e] *= dt[e]
    for i in range(N):
        A, si, B, C = p.A[k, i], s.s[k, i], s.dbc[R + i], s.dbc[R + N + i]
        for e in range(E):
            si[e] = math.exp(dt[e] * A[e]) * si[e] + a[e] * B
            x[e] += C * si[e]
    for e in range(E):
        x[e] *= z[e] * sigmoid(z[e])
    affine(p.W_out[k], p.none[: s.y.shape[0]], x, s.y)


@kernel
def softplus(a):
    """log(1 + exp(a)), without overflow."""
    return max(a, 0.0) + math.log1p(math.exp(-abs(a)))


@kernel
def fresh(s):
    zero(s.x)
    zero(s.s)


@kernel
def copied(s, to):
    copy(s.x, to.x)
    copy(s.s, to.s)
