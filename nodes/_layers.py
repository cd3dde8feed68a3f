"""What the layers of a network have in common, streamed by numba and learnt by torch: norms, gates, affine maps.

A stack of layers is a file of its own for each kind (`_s4d.py`, `_s4.py`, `_mamba.py`, `_lstm.py`, `_transformer.py`),
with the same five functions. Arrays of all its layers lie one behind the other, the layer first:

    initial(rng, level, dt) -> arrays     what learning starts from; dt (2,): least and largest step of a state space
    forward(p, u, drop) -> u              (batch, time, width) of torch tensors, from a fresh start; p: the arrays
    streamed(arrays, ratio) -> params, state     for `step`; ratio: (rate learnt at) / (rate run at)
    step(params, state, u)                one sample, in place; u (width,)
    fresh(state), copied(state, to)       back to the start; the same as another one
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special

from rheobase.nodes._decoder import affine
from rheobase.stream.block import Array
from rheobase.stream.node import kernel

EPS = 1e-5
"""Of a norm, as torch has it."""

Arrays = dict[str, Array]


@kernel
def normed(g, b, u, y):
    """y = g (u - mean u) / sqrt(var u + eps) + b, var over the width."""
    n = u.shape[0]
    mean = 0.0
    for i in range(n):
        mean += u[i]
    mean /= n
    var = 0.0
    for i in range(n):
        var += (u[i] - mean) * (u[i] - mean)
    scale = 1.0 / math.sqrt(var / n + EPS)
    for i in range(n):
        y[i] = (u[i] - mean) * scale * g[i] + b[i]


LOG2_E, LN_2 = math.log2(math.e), (0.693147180369123816490, 1.90821492927058770002e-10)
"""log 2 in two parts, the first of few bits: so k log 2 is exact in it."""
SERIES = tuple(1.0 / math.factorial(k) for k in range(13, -1, -1))
"""exp(r) for |r| <= log(2) / 2, to 4e-18."""
MAGIC = 1.5 * 2.0**52
"""Added to a number, it leaves the nearest whole one in the last bits."""
MIDDLE = 5.3
TAIL = tuple(
    np.polynomial.Chebyshev.interpolate(
        lambda t: 0.5 * scipy.special.erfcx(MIDDLE * np.sqrt(0.5) * (1 + t) / np.maximum(1 - t, 1e-300)), 28
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef[::-1]
    .tolist()
)
"""P(N(0, 1) > a) exp(a^2 / 2) as a polynomial in (a - 5.3) / (a + 5.3), a >= 0, to 1e-15: after Shepherd & Laframboise,
Math Comp 36:249, 1981."""


@kernel
def exponentials(e, w, n):
    """e <- exp(e) for the first n, each at most 0; w: room. All float64.

    exp(x) = 2^k exp(x - k log 2). What C's exp does for one number, in loops that the compiler can do four numbers at
    a time in, by the same steps alone and together.
    """
    bits = w.view(np.int64)
    for i in range(n):
        e[i] = max(e[i], -708.0)
        w[i] = e[i] * LOG2_E + MAGIC
    for i in range(n):
        k = w[i] - MAGIC
        r = e[i] - k * LN_2[0] - k * LN_2[1]
        y = SERIES[0]
        y = y * r + SERIES[1]
        y = y * r + SERIES[2]
        y = y * r + SERIES[3]
        y = y * r + SERIES[4]
        y = y * r + SERIES[5]
        y = y * r + SERIES[6]
        y = y * r + SERIES[7]
        y = y * r + SERIES[8]
        y = y * r + SERIES[9]
        y = y * r + SERIES[10]
        y = y * r + SERIES[11]
        y = y * r + SERIES[12]
        e[i] = y * r + SERIES[13]
    for i in range(n):
        bits[i] = (bits[i] + 1023) << 52
    for i in range(n):
        e[i] *= w[i]


@kernel
def gelu(u, room):
    """u <- u P(N(0, 1) <= u); room (3, at least n), float64."""
    n = u.shape[0]
    e, t, q = room[0], room[1], room[2]
    for i in range(n):
        e[i] = -0.5 * u[i] * u[i]
    exponentials(e, t, n)
    for i in range(n):
        a = abs(np.float64(u[i]))
        t[i] = (a - MIDDLE) / (a + MIDDLE)
        q[i] = TAIL[0]
    for k in range(1, len(TAIL), 4):
        c1, c2, c3, c4 = TAIL[k], TAIL[k + 1], TAIL[k + 2], TAIL[k + 3]
        for i in range(n):
            q[i] = (((q[i] * t[i] + c1) * t[i] + c2) * t[i] + c3) * t[i] + c4
    for i in range(n):
        tail = e[i] * q[i]
        u[i] *= tail if u[i] < 0 else 1.0 - tail


@kernel
def sigmoid(a):
    """1 / (1 + exp(-a)), in a form that cannot overflow."""
    return 0.5 + 0.5 * math.tanh(0.5 * a)


@kernel
def gated(W, b, y, v, u, room):
    """u += first half of v * sigmoid(second half), v = b + W' gelu(y); y (H,), v (2H,), room (3, H) are overwritten."""
    gelu(y, room)
    affine(W, b, y, v)
    H = u.shape[0]
    e = room[0]
    for i in range(H):
        e[i] = -abs(np.float64(v[H + i]))
    exponentials(e, room[1], H)
    for i in range(H):
        u[i] += v[i] * (e[i] if v[H + i] < 0 else 1.0) / (1.0 + e[i])


@kernel
def add(y, u):
    """u += y"""
    for i in range(u.shape[0]):
        u[i] += y[i]


@kernel
def zero(a):
    """a = 0, whatever its shape (what numba makes of a[:] = 0 takes long to compile, and a copy far longer)."""
    flat = a.reshape(a.size)
    for i in range(flat.shape[0]):
        flat[i] = 0.0


@kernel
def copy(a, to):
    """to = a, whatever their shape."""
    flat, other = a.reshape(a.size), to.reshape(to.size)
    for i in range(flat.shape[0]):
        other[i] = flat[i]


def glorot(rng: np.random.Generator, layers: int, into: int, out: int) -> Array:
    """W (layers, into, out), uniform, of variance 1 / (3 into): what torch starts a linear layer from."""
    return rng.uniform(-1, 1, (layers, into, out)) / math.sqrt(into)


def norms(layers: int, width: int, name: str = "") -> Arrays:
    """g and b of a norm that does nothing yet."""
    return {f"g{name}": np.ones((layers, width)), f"b{name}": np.zeros((layers, width))}


def norm(u: Any, g: Any, b: Any) -> Any:
    """`normed` for torch, over the last axis."""
    import torch

    return torch.nn.functional.layer_norm(u, u.shape[-1:], g, b, EPS)


def gate(y: Any, W: Any, b: Any, drop: Any) -> Any:
    """`gated` for torch: what is added to u."""
    import torch

    return torch.nn.functional.glu(drop(torch.nn.functional.gelu(y)) @ W + b, dim=-1)
