"""LSTM: a stack of long short-term memories, in the form of PyTorch. Hochreiter & Schmidhuber, 1997.

(i, f, g, o) = W' u + U' h + c,   m <- sigmoid(f) m + sigmoid(i) tanh(g),   h <- sigmoid(o) tanh(m),   u <- h
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import affine
from rheobase.nodes._layers import Arrays, copy, glorot, sigmoid, zero
from rheobase.stream.node import kernel, routine

SHAPES = {"W": "l h 4h", "U": "l h 4h", "c": "l 4h"}
SLOW: tuple[str, ...] = ()


class LSTMParams(NamedTuple):
    """W, U (layers, H, 4H), c (layers, 4H); none (4H): zeros."""

    W: NDArray[np.float64]
    U: NDArray[np.float64]
    c: NDArray[np.float64]
    none: NDArray[np.float64]


class LSTMState(NamedTuple):
    """h, m (layers, H); p, q (4H): room to work in."""

    h: NDArray[np.float64]
    m: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


def initial(rng: np.random.Generator, level: Any, dt: tuple[float, float]) -> Arrays:
    n, H = level.layers, level.width
    c = rng.uniform(-1, 1, (n, 4 * H)) / math.sqrt(H)
    return {"W": glorot(rng, n, H, 4 * H), "U": glorot(rng, n, H, 4 * H), "c": c}


def forward(p: dict[str, Any], u: Any, drop: Any) -> Any:
    import torch

    for k in range(len(p["c"])):
        weights = [p["W"][k].T.contiguous(), p["U"][k].T.contiguous(), p["c"][k], torch.zeros_like(p["c"][k])]
        h = u.new_zeros(1, u.shape[0], u.shape[2])
        u = torch.lstm(drop(u) if k else u, (h, h), weights, True, 1, 0.0, False, False, True)[0]
    return u


def streamed(a: Arrays, ratio: float) -> tuple[LSTMParams, LSTMState]:
    n, H = a["W"].shape[:2]
    none = np.zeros(4 * H)
    return LSTMParams(a["W"], a["U"], a["c"], none), LSTMState(*np.zeros((2, n, H)), *np.zeros((2, 4 * H)))


@routine
def step(p, s, u):
    H = u.shape[0]
    for k in range(p.c.shape[0]):
        h, m, a, b = s.h[k], s.m[k], s.p, s.q
        affine(p.W[k], p.c[k], u, a)
        affine(p.U[k], p.none, h, b)
        for i in range(H):
            new = sigmoid(a[i] + b[i]) * math.tanh(a[2 * H + i] + b[2 * H + i])
            m[i] = sigmoid(a[H + i] + b[H + i]) * m[i] + new
            h[i] = sigmoid(a[3 * H + i] + b[3 * H + i]) * math.tanh(m[i])
            u[i] = h[i]


@kernel
def fresh(s):
    zero(s.h)
    zero(s.m)


@kernel
def copied(s, to):
    copy(s.h, to.h)
    copy(s.m, to.m)
