"""The part of `rheo bench` about sequence models: the step of state-space layers, and what a large HiSS takes."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rheobase.nodes import _s4d
from rheobase.nodes._level import level
from rheobase.nodes.hiss import HiSS
from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.fuse import Loop
from rheobase.stream.node import kernel
from rheobase.stream.pages import zeros
from rheobase.tools import bench

STACK = {"type": "s4d", "layers": 6, "width": 128, "states": 64}
LARGEST: dict[str, Any] = dict(
    k=10, low={"type": "s4", "layers": 6, "width": 256}, high={"type": "mamba", "layers": 4, "width": 256}
)
"""HiSS as Bhirangi et al. took it for slip: 3 million weights, 60 channels."""
RATE = 200.0
CORE = 0.25


@kernel
def many(p, s, X, u):
    """The stack over all samples."""
    for t in range(X.shape[0]):
        for i in range(u.shape[0]):
            u[i] = X[t, i]
        _s4d.step(p, s, u)


def sequence(scale: float = 1.0) -> list[bench.Row]:
    """A step of six S4D layers against reading their parameters once, and against torch; the step of a large HiSS."""
    return [*_stack(scale), *_largest(scale)]


def _stack(scale: float) -> list[bench.Row]:
    arrays = _s4d.initial(np.random.default_rng(0), level("net", STACK), (1e-3, 0.1))
    params, state = _s4d.streamed(arrays, 1.0)
    single, room = _laid(params, np.float32), _laid(state, np.float32)._replace(room=state.room)
    t, H = max(20, int(2000 * scale)), params.D.shape[1]
    X = np.random.default_rng(1).standard_normal((t, H)).astype(np.float32)
    read = np.concatenate([a.ravel() for a in single])
    memory = zeros(-(-len(read) // 64) * 64, np.float32)
    memory[: len(read)] = read
    sums, u = np.zeros(64), np.zeros(H, np.float32)
    many(single, room, X, u)
    ours, floor = bench.turns(
        lambda: many(single, room, X, u),
        lambda: bench.call_c(bench.floors().read_floats, t, len(memory), memory, sums),
        scale,
    )
    name = "six S4D layers, 128 features, 64 states, float32, a step"
    rows = [bench.pair(name, ours, floor, 1e6 / t, "us", goal=2.0)]
    double, wide, v = _laid(params, np.float64), _laid(state, np.float64), np.zeros(H)
    many(double, wide, X.astype(float), v)
    took, _ = bench.turns(lambda: many(double, wide, X.astype(float), v), lambda: None, scale)
    rows.append(bench.Row("  in float64, as a node runs it", statistics.median(took) / t * 1e6, "us"))
    if importlib.util.find_spec("torch") and scale >= 0.1:
        rows += _torch(arrays, statistics.median(ours) / t * 1e6, scale)
    return rows


def _laid(arrays: Any, dtype: DTypeLike) -> Any:
    """The same NamedTuple in one piece of memory, as a loop has it."""
    whole, parts, at = zeros(sum(a.size for a in arrays), dtype), [], 0
    for a in arrays:
        parts.append(whole[at : at + a.size].reshape(a.shape))
        parts[-1][...] = a
        at += a.size
    return type(arrays)(*parts)


def _torch(arrays: dict[str, NDArray[np.float64]], ours: float, scale: float) -> list[bench.Row]:
    """The same step by torch on one thread, as it is and compiled; ratio: theirs / ours."""
    import torch

    a = {k: torch.tensor(v, dtype=torch.float32) for k, v in arrays.items()}
    z = torch.complex(-a["A_re"].exp(), a["A_im"]) * a["log_dt"].exp()[..., None]
    dA, dB = z.exp(), torch.expm1(z) / z * a["log_dt"].exp()[..., None]
    C = 2 * torch.complex(a["C_re"], a["C_im"]) * dB
    parts = [w.contiguous() for w in (dA.real, dA.imag, C.real, C.imag)]

    def step(u: Any, re: Any, im: Any) -> tuple[Any, Any, Any]:
        news = []
        for k in range(len(a["D"])):
            v = torch.nn.functional.layer_norm(u, u.shape, a["g"][k], a["b"][k])
            new_re = parts[0][k] * re[k] - parts[1][k] * im[k] + v[:, None]
            new_im = parts[0][k] * im[k] + parts[1][k] * re[k]
            y = (parts[2][k] * new_re - parts[3][k] * new_im).sum(-1) + a["D"][k] * v
            u = u + torch.nn.functional.glu(torch.nn.functional.gelu(y) @ a["W"][k] + a["w"][k], dim=0)
            news.append((new_re, new_im))
        return u, torch.stack([n[0] for n in news]), torch.stack([n[1] for n in news])

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rows = []
    try:
        with torch.no_grad():
            ways: list[tuple[str, Callable[..., Any], float]] = [
                ("eager", step, 8.0),
                ("compiled", torch.compile(step), 4.0),
            ]
            for word, f, goal in ways:
                u, re, im = torch.randn(a["D"].shape[1]), *torch.zeros((2, *parts[0].shape))
                calls, took = max(20, int(500 * scale)), []
                for turn in range(6):
                    start = time.perf_counter()
                    for _ in range(calls):
                        _, re, im = f(u, re, im)
                    if turn:
                        took.append((time.perf_counter() - start) / calls)
                theirs = statistics.median(took) * 1e6
                rows.append(bench.Row(f"  by torch, {word}", theirs, "us", ours, theirs / ours, goal, more=True))
    finally:
        torch.set_num_threads(threads)
    return rows


def _largest(scale: float) -> list[bench.Row]:
    """Of a small one where there is little time: a share of a core either way."""
    n, d = 60, 3
    model = LARGEST if scale >= 0.1 else LARGEST | {"low": "lstm", "high": "lstm"}
    node: Any = HiSS(**model)
    arrays = node.begin(np.random.default_rng(0), RATE, n, d)
    ends = dict(x_mean=np.zeros(n), x_scale=np.ones(n), best=np.array(0.0))
    node.hold(arrays | ends, {"n": n, "rate": RATE}, {"channels": numbered("z", d), "unit": ""})
    loop = Loop([node], [-1], [0])
    loop.start(Spec(rate=RATE, channels=numbered("x", n)))
    X = np.random.default_rng(1).standard_normal((max(50, int(2000 * scale)), n))
    blocks = [Block(X[t : t + 1], np.array([t / RATE])) for t in range(len(X))]
    took = np.empty(len(blocks))
    for t, block in enumerate(blocks):
        start = time.perf_counter()
        loop.process(block)
        took[t] = time.perf_counter() - start
    within = np.arange(len(took)) % node.k < node.k - 1
    most = CORE / RATE * 1e6
    word = f"HiSS, s4 6x256 / mamba 4x256 at {RATE:g} Hz" if scale >= 0.1 else "HiSS, lstm / lstm"
    return [
        bench.Row(f"{word}: a sample, mean", float(took.mean()) * 1e6, "us", goal=most, judged="ours"),
        bench.Row("  low level, p50", float(np.median(took[within])) * 1e6, "us", goal=most, judged="ours"),
        bench.Row("  with the end of a chunk, p50", float(np.median(took[~within])) * 1e6, "us"),
    ]
