"""Gated recurrent unit: a small network that keeps a memory of its own of what it has seen."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, affine, spread
from rheobase.nodes._layers import sigmoid
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, Fraction, NotNegative, Positive, Seed, kernel

HELD_OUT = 0.15
PATIENCE = 15
BATCH = 32


class GRUParams(NamedTuple):
    W: NDArray[np.float64]
    b: NDArray[np.float64]
    U: NDArray[np.float64]
    c: NDArray[np.float64]
    V: NDArray[np.float64]
    v: NDArray[np.float64]
    x_mean: NDArray[np.float64]


class GRUState(NamedTuple):
    """h is what it remembers; the others are room to work in."""

    h: NDArray[np.float64]
    x: NDArray[np.float64]
    p: NDArray[np.float64]
    q: NDArray[np.float64]


class GRU(Decoder):
    """One layer of gated recurrent units, and a linear map of them.

        p = b + W' (x(t) - x_mean),   q = c + U' h(t-1)        each in three parts of h values, for r, u, and n
        r = s(p_r + q_r),   u = s(p_u + q_u),   n = tanh(p_n + r q_n),   s(a) = 1 / (1 + exp(-a))
        h(t) = u h(t-1) + (1 - u) n,   h(0) = 0
        y = v + V' h(t)

    h begins again at 0 with each segment. A sample with a value that is not finite gives NaN and leaves h as it is: to
    the network it never was. Cho et al., EMNLP 2014:1724, in the form of cuDNN and PyTorch (r after the product).

    Learnt by back-propagation through time over windows of `span` samples that overlap and begin with h = 0, with
    AdamW, and dropout on h and noise on x (standardised; the scales are then folded into the weights); first without
    the last 15 % of the training rows, then on all for as many epochs as predicted those best. Learning needs the
    package torch; running does not.
    """

    hidden: Count = 64
    """Units."""

    span: Count = 20
    """Samples in a window of learning: so far back an error is followed."""

    decay: NotNegative = 0.01
    """Weight decay of AdamW, dimensionless."""

    dropout: Fraction = 0.1
    """Share of h left out of each step of learning, on its way to y."""

    noise: NotNegative = 0.3
    """Standard deviation of what is added to x in learning, in those of x."""

    learning_rate: Positive = 4e-3
    """Step of AdamW, dimensionless."""

    epochs: Count = 100
    """Most passes over the training rows."""

    seed: Seed = 0
    """Of the first weights, the order of windows, dropout and noise."""

    shapes = {
        "W": "n g", "b": "g", "U": "h g", "c": "g", "V": "h d", "v": "d", "x_mean": "n", "best": "",
    }  # fmt: skip

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        if self.dropout == 1:
            raise StreamError("dropout: 1 leaves nothing to learn from")
        X, Z = data.X[data.rows], data.Z[data.rows]
        x_mean, x_scale, z_mean, z_scale = X.mean(axis=0), spread(X), Z.mean(axis=0), spread(Z)
        x_scale[x_scale == 0], z_scale[z_scale == 0] = 1.0, 1.0
        there = np.isfinite(data.X).all(axis=1)  # a missing sample leaves h as it is: as if it had never been
        x, z = ((data.X - x_mean) / x_scale)[there], ((data.Z - z_mean) / z_scale)[there]
        rows, segment = data.rows[there], data.segment[there]
        if like:
            best = int(like["best"])
        else:
            some = np.cumsum(rows) <= rows.sum() * (1 - HELD_OUT)
            best, _ = self._descend(x, z, rows & some, segment, self.epochs, rows & ~some)
        _, (W, U, b, c, V, v) = self._descend(x, z, rows, segment, best)
        return dict(
            W=W.T / x_scale[:, None], b=b, U=U.T, c=c, V=V.T * z_scale, v=v * z_scale + z_mean, x_mean=x_mean,
            best=np.array(best),
        )  # fmt: skip

    def _descend(
        self,
        x: Array,
        z: Array,
        rows: NDArray[np.bool_],
        segment: NDArray[np.int64],
        epochs: int,
        out: NDArray[np.bool_] | None = None,
    ) -> tuple[int, list[Array]]:
        """Epoch of least error on the rows that are `out`, and the weights after the last epoch."""
        try:
            import torch
        except ModuleNotFoundError:
            raise StreamError("learning a gru needs the package torch: pip install 'rheobase[train]'") from None
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one order of sums: the same seed gives the same weights
        try:
            g = torch.Generator().manual_seed(self.seed)
            with torch.random.fork_rng(devices=[]):  # torch's own first weights, and its common generator left alone
                torch.manual_seed(self.seed)
                net, last = torch.nn.GRU(x.shape[1], self.hidden), torch.nn.Linear(self.hidden, z.shape[1])
            weights = [*net.parameters(), *last.parameters()]
            optimiser = torch.optim.AdamW(weights, lr=self.learning_rate, weight_decay=self.decay)
            xt, zt = torch.tensor(x, dtype=torch.float32), torch.tensor(np.where(rows[:, None], z, 0)).float()
            begins = [0, *np.flatnonzero(np.diff(segment)) + 1]
            ends = [*begins[1:], len(x)]
            end = np.repeat(ends, np.diff([0, *ends]))  # of the segment of each sample
            stride = max(1, self.span // 4)
            best, least = epochs, math.inf
            for epoch in range(1, epochs + 1):
                first = int(torch.randint(stride, (1,), generator=g)) - stride + 1
                spread = [np.arange(i + first, e, stride).clip(i) for i, e in zip(begins, ends, strict=True)]
                starts = np.concatenate(spread)
                for batch in torch.randperm(len(starts), generator=g).split(BATCH):
                    at = starts[batch]
                    t = at + np.arange(self.span)[:, None]
                    counts = (t < end[at]) & rows[np.minimum(t, len(x) - 1)]
                    if not counts.any():
                        continue
                    t = np.minimum(t, len(x) - 1)
                    optimiser.zero_grad()
                    u = xt[t]
                    if self.noise:
                        u = u + self.noise * torch.randn(u.shape, generator=g)
                    h, _ = net(u)
                    if self.dropout:
                        h = h * torch.bernoulli(torch.full(h.shape, 1 - self.dropout), generator=g) / (1 - self.dropout)
                    (last(h) - zt[t])[torch.tensor(counts)].square().mean().backward()
                    torch.nn.utils.clip_grad_norm_(weights, 1.0)
                    optimiser.step()
                if out is not None:
                    with torch.no_grad():
                        y = [last(net(xt[i:e])[0]).numpy() for i, e in zip(begins, ends, strict=True)]
                    error = float(np.mean((np.concatenate(y)[out] - z[out]) ** 2))
                    if error < least:
                        best, least = epoch, error
                    elif epoch - best >= PATIENCE:
                        break
            return best, [w.detach().numpy().astype(float) for w in weights]
        finally:
            torch.set_num_threads(threads)

    def ready(self, x: Spec, best: Array, **weights: Array) -> None:
        self.params = GRUParams(**weights)
        g, h = len(weights["b"]), len(weights["V"])
        self.state = GRUState(np.zeros(h), np.zeros(x.n), np.zeros(g), np.zeros(g))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        h, p, q = state.h, state.p, state.q
        size = h.shape[0]
        for j in range(x.shape[0]):
            if not np.isfinite(x[j]):
                for i in range(y.shape[0]):
                    y[i] = np.nan
                return True
        for j in range(x.shape[0]):
            state.x[j] = x[j] - params.x_mean[j]
        affine(params.W, params.b, state.x, p)
        affine(params.U, params.c, h, q)
        for i in range(size):
            r, u = sigmoid(p[i] + q[i]), sigmoid(p[size + i] + q[size + i])
            n = math.tanh(p[2 * size + i] + r * q[2 * size + i])
            h[i] = n + u * (h[i] - n)
        affine(params.V, params.v, h, y)
        return True
