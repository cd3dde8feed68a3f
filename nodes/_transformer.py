"""A causal transformer that looks back over `context` samples, so that what it keeps of a stream has an end.

    u <- u + W_o' attention(norm(u)) + b_o,   u <- u + W_2' relu(W_1' norm(u) + b_1) + b_2

    attention of each head:  sum_j a_j v_j,  a = softmax_j(q . k_j / sqrt(d) - m (t - j)),  t - context < j <= t

The bias -m (t - j), m = 2^(-8 h / heads) for head h = 1, 2, ..., stands for positions (ALiBi: Press et al., ICLR 2022),
since the number of a sample, which Vaswani et al. (2017) encode, grows for ever in a stream.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import affine
from rheobase.nodes._layers import Arrays, add, copy, glorot, norm, normed, norms
from rheobase.stream.node import kernel, routine

SHAPES = {
    "W_qkv": "l h 3h", "b_qkv": "l 3h", "W_o": "l h h", "b_o": "l h", "W_1": "l h 2h", "b_1": "l 2h", "W_2": "l 2h h",
    "b_2": "l h", "g1": "l h", "b1": "l h", "g2": "l h", "b2": "l h", "heads": "", "context": "",
}  # fmt: skip
SLOW: tuple[str, ...] = ()


class TransformerParams(NamedTuple):
    """W_qkv (layers, H, 3H), W_o (layers, H, H), W_1 (layers, H, F), W_2 (layers, F, H), their b, and two norms."""

    W_qkv: NDArray[np.float64]
    b_qkv: NDArray[np.float64]
    W_o: NDArray[np.float64]
    b_o: NDArray[np.float64]
    W_1: NDArray[np.float64]
    b_1: NDArray[np.float64]
    W_2: NDArray[np.float64]
    b_2: NDArray[np.float64]
    g1: NDArray[np.float64]
    b1: NDArray[np.float64]
    g2: NDArray[np.float64]
    b2: NDArray[np.float64]
    m: NDArray[np.float64]


class TransformerState(NamedTuple):
    """k, v (layers, context, H): a ring; seen (1,): samples so far; the rest is room to work in."""

    k: NDArray[np.float64]
    v: NDArray[np.float64]
    seen: NDArray[np.int64]
    n: NDArray[np.float64]
    qkv: NDArray[np.float64]
    a: NDArray[np.float64]
    y: NDArray[np.float64]
    z: NDArray[np.float64]
    f: NDArray[np.float64]


def initial(rng: np.random.Generator, level: Any, dt: tuple[float, float]) -> Arrays:
    n, H = level.layers, level.width
    F = 2 * H
    found: Arrays = {"heads": np.array(float(level.heads)), "context": np.array(float(level.context))}
    for key, i, o in (("qkv", H, 3 * H), ("o", H, H), ("1", H, F), ("2", F, H)):
        found |= {f"W_{key}": glorot(rng, n, i, o), f"b_{key}": np.zeros((n, o))}
    return found | norms(n, H, "1") | norms(n, H, "2")


def slopes(heads: int) -> NDArray[np.float64]:
    """m of each head."""
    return 2.0 ** (-8.0 * np.arange(1, heads + 1) / heads)


def forward(p: dict[str, Any], u: Any, drop: Any) -> Any:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    b, T, H = u.shape
    heads = int(p["heads"])
    back = torch.arange(T, device=u.device)[:, None] - torch.arange(T, device=u.device)
    m = torch.as_tensor(slopes(heads), dtype=u.dtype, device=u.device)
    bias = torch.where((back >= 0) & (back < int(p["context"])), -m[:, None, None] * back, -math.inf)
    for k in range(len(p["b_o"])):
        qkv = norm(u, p["g1"][k], p["b1"][k]) @ p["W_qkv"][k] + p["b_qkv"][k]
        q, key, v = qkv.view(b, T, 3, heads, H // heads).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, key, v, attn_mask=bias).transpose(1, 2).reshape(b, T, H)
        u = u + drop(y @ p["W_o"][k] + p["b_o"][k])
        z = (norm(u, p["g2"][k], p["b2"][k]) @ p["W_1"][k] + p["b_1"][k]).relu()
        u = u + drop(drop(z) @ p["W_2"][k] + p["b_2"][k])
    return u


def streamed(a: Arrays, ratio: float) -> tuple[TransformerParams, TransformerState]:
    n, H = a["g1"].shape
    context, heads = int(a["context"]), int(a["heads"])
    given = {k: v for k, v in a.items() if k not in ("heads", "context")}
    params = TransformerParams(**given, m=slopes(heads))
    room = [np.zeros(size) for size in (H, 3 * H, context, H, H, a["W_1"].shape[2])]
    past = np.zeros((n, context, H)), np.zeros((n, context, H))
    return params, TransformerState(*past, np.zeros(1, np.int64), *room)


@routine
def step(p, s, u):
    H = u.shape[0]
    heads = p.m.shape[0]
    d = H // heads
    context = s.k.shape[1]
    t = s.seen[0]
    first = max(0, t - context + 1)
    for n in range(p.g1.shape[0]):
        normed(p.g1[n], p.b1[n], u, s.n)
        affine(p.W_qkv[n], p.b_qkv[n], s.n, s.qkv)
        at = t % context
        for i in range(H):
            s.k[n, at, i] = s.qkv[H + i]
            s.v[n, at, i] = s.qkv[2 * H + i]
            s.y[i] = 0.0
        for h in range(heads):
            top = -np.inf
            for j in range(first, t + 1):
                key = s.k[n, j % context]
                score = 0.0
                for i in range(h * d, h * d + d):
                    score += s.qkv[i] * key[i]
                score = score / math.sqrt(d) - p.m[h] * (t - j)
                s.a[j - first] = score
                top = max(top, score)
            total = 0.0
            for j in range(first, t + 1):
                weight = math.exp(s.a[j - first] - top)
                total += weight
                value = s.v[n, j % context]
                for i in range(h * d, h * d + d):
                    s.y[i] += weight * value[i]
            for i in range(h * d, h * d + d):
                s.y[i] /= total
        affine(p.W_o[n], p.b_o[n], s.y, s.z)
        add(s.z, u)
        normed(p.g2[n], p.b2[n], u, s.n)
        affine(p.W_1[n], p.b_1[n], s.n, s.f)
        for i in range(s.f.shape[0]):
            s.f[i] = max(s.f[i], 0.0)
        affine(p.W_2[n], p.b_2[n], s.f, s.z)
        add(s.z, u)
    s.seen[0] = t + 1


@kernel
def fresh(s):
    s.seen[0] = 0


@kernel
def copied(s, to):
    copy(s.k, to.k)
    copy(s.v, to.v)
    copy(s.seen, to.seen)
