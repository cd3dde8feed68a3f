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


@kernel
def gelu(u):
    """u <- u P(N(0, 1) <= u), exactly."""
    for i in range(u.shape[0]):
        u[i] = 0.5 * u[i] * (1.0 + math.erf(u[i] * math.sqrt(0.5)))


@kernel
def sigmoid(a):
    """1 / (1 + exp(-a)), in a form that cannot overflow."""
    return 0.5 + 0.5 * math.tanh(0.5 * a)


@kernel
def gated(W, b, y, v, u):
    """u += first half of v * sigmoid(second half), v = b + W' gelu(y); y (H,) and v (2H,) are overwritten."""
    gelu(y)
    affine(W, b, y, v)
    H = u.shape[0]
    for i in range(H):
        u[i] += v[i] * sigmoid(v[H + i])


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
