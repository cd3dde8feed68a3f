"""Multilayer perceptron: regression by one small neural network, or the mean of several."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder, Training, affine, remember, spread
from rheobase.stream.block import Array, Spec, StreamError
from rheobase.stream.node import Count, Fraction, NotNegative, Positive, Seed, kernel

HELD_OUT = 0.15
PATIENCE = 30
BATCH = 128


class MLPParams(NamedTuple):
    """W1 (m, l, h), W2 (m, k, h, h), W3 (m, h, d): member by member, as the step goes through them."""

    W1: NDArray[np.float64]
    b1: NDArray[np.float64]
    W2: NDArray[np.float64]
    b2: NDArray[np.float64]
    W3: NDArray[np.float64]
    b3: NDArray[np.float64]
    x_mean: NDArray[np.float64]
    tanh: bool


class MLPState(NamedTuple):
    window: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]


class MLP(Decoder):
    """Hidden layers of rectified or tanh units on the present and the past; the mean of `members` such networks.

        y = b3 + 1/m sum_j W3_j' u_j,   u_j = r(b2_j + W2_j' r(b1_j + W1_j' w)),   r(u) = max(u, 0) or tanh(u)
        w = [x(t), ..., x(t-lags+1)] - x_mean

    Learnt with AdamW, dropout and noise on standardised x and z (the scales are then folded into the weights), first
    without the last 15 % of the training rows, then on all for as many epochs as predicted those best. Members differ
    in their first weights and in what dropout leaves out; the squared error of their mean is never more than the mean
    of theirs (Hansen & Salamon, IEEE Trans Pattern Anal 12:993, 1990). What lies before the start counts as its mean;
    a sample with a value that is not finite gives NaN. Learning needs the package torch; running does not.

    The network of the DKF's authors: {layers: 1, hidden: 10, activation: tanh}; they learn it by Levenberg-Marquardt.

    The defaults are the best by nRMSE on rows 0-4999 of Flint run 1 (fitted without 4000-4999 and scored there; the
    best four also with 0-999 left out) of ten settings: plain ones, one chosen earlier with rows 5000-5999 in view, and
    variations of that.
    """

    lags: Count = 1
    """Samples looked at: this one and lags - 1 before it."""

    hidden: Count = 64
    """Units in each hidden layer."""

    layers: Count = 2
    """Hidden layers."""

    activation: Literal["relu", "tanh"] = "relu"
    """What a unit makes of its sum."""

    members: Count = 1
    """Networks whose mean is taken."""

    decay: NotNegative = 0.1
    """Weight decay of AdamW, dimensionless."""

    dropout: Fraction = 0.1
    """Share of the hidden units left out of each step of learning."""

    noise: NotNegative = 0.0
    """Standard deviation of what is added to x in learning, in those of x."""

    learning_rate: Positive = 1e-3
    """Step of AdamW, dimensionless."""

    epochs: Count = 300
    """Most passes over the training rows."""

    seed: Seed = 0
    """Of the first weights, the order of rows, dropout and noise."""

    shapes = {
        "W1": "m l h", "b1": "m h", "W2": "m k h h", "b2": "m k h", "W3": "m h d", "b3": "d", "x_mean": "n", "best": "",
    }  # fmt: skip

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        if self.dropout == 1:
            raise StreamError("dropout: 1 leaves nothing to learn from")
        x_mean = data.X[data.rows].mean(axis=0)
        X, Z = data.windows(self.lags, x_mean)[data.rows], data.Z[data.rows]
        x_scale, z_mean, z_scale = spread(X), Z.mean(axis=0), spread(Z)
        x_scale[x_scale == 0], z_scale[z_scale == 0] = 1.0, 1.0
        U, V = X / x_scale, (Z - z_mean) / z_scale
        if like:
            best = int(like["best"])
        else:
            cut = int(len(U) * (1 - HELD_OUT))
            best, _ = self._descend(U[:cut], V[:cut], self.epochs, U[cut:], V[cut:])
        _, (W, b) = self._descend(U, V, best)
        m, h = self.members, self.hidden
        return dict(
            W1=W[0] / x_scale[:, None], b1=b[0],
            W2=np.stack(W[1:-1], 1) if self.layers > 1 else np.zeros((m, 0, h, h)),
            b2=np.stack(b[1:-1], 1) if self.layers > 1 else np.zeros((m, 0, h)),
            W3=W[-1] * z_scale, b3=b[-1].mean(axis=0) * z_scale + z_mean, x_mean=x_mean, best=np.array(best),
        )  # fmt: skip

    def _descend(
        self, U: Array, V: Array, epochs: int, U_out: Array | None = None, V_out: Array | None = None
    ) -> tuple[int, tuple[list[Array], list[Array]]]:
        """Epoch of least error of the members' mean on (U_out, V_out), and W, b by layer after the last epoch.

        The members learn side by side, one batched product for all, on the same order of rows.
        """
        try:
            import torch
        except ModuleNotFoundError:
            raise StreamError("learning an mlp needs the package torch: pip install 'rheobase[train]'") from None
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # one order of sums: the same seed gives the same weights
        try:
            g = torch.Generator().manual_seed(self.seed)
            keep, sizes = 1 - self.dropout, [U.shape[1], *[self.hidden] * self.layers, V.shape[1]]
            W, b = [], []
            for i, o in itertools.pairwise(sizes):
                W.append(torch.randn(self.members, i, o, generator=g) / math.sqrt(3 * i))
                b.append(torch.zeros(self.members, 1, o))
            for w in W + b:
                w.requires_grad_()

            def forward(u: Any, learning: bool = False) -> Any:
                if learning and self.noise:
                    u = u + self.noise * torch.randn(u.shape, generator=g)
                u = u.expand(self.members, -1, -1)
                for Wk, bk in zip(W[:-1], b[:-1], strict=True):
                    u = torch.baddbmm(bk, u, Wk)
                    u = u.relu() if self.activation == "relu" else u.tanh()
                    if learning and self.dropout:
                        u = u * torch.bernoulli(torch.full(u.shape, float(keep)), generator=g) / keep
                return torch.baddbmm(b[-1], u, W[-1])

            optimiser = torch.optim.AdamW([*W, *b], lr=self.learning_rate, weight_decay=self.decay)
            u, v = torch.tensor(U, dtype=torch.float32), torch.tensor(V, dtype=torch.float32)
            best, least = epochs, math.inf
            for epoch in range(1, epochs + 1):
                for rows in torch.randperm(len(u), generator=g).split(BATCH):
                    optimiser.zero_grad()
                    # the sum over members of each one's mean: each learns as if alone
                    (forward(u[rows], True) - v[rows]).square().mean(dim=(1, 2)).sum().backward()
                    optimiser.step()
                if U_out is not None:
                    with torch.no_grad():
                        y = forward(torch.tensor(U_out, dtype=torch.float32)).mean(dim=0).numpy()
                    error = float(np.mean((y - V_out) ** 2))
                    if error < least:
                        best, least = epoch, error
                    elif epoch - best >= PATIENCE:
                        break
            weights, biases = ([w.detach().numpy().astype(float) for w in each] for each in (W, b))
            return best, (weights, [c[:, 0] for c in biases])
        finally:
            torch.set_num_threads(threads)

    def ready(self, x: Spec, W3: Array, x_mean: Array, best: Array, **weights: Array) -> None:
        m, h = weights["b1"].shape
        self.params = MLPParams(**weights, W3=W3 / m, x_mean=x_mean, tanh=self.activation == "tanh")
        self.state = MLPState(np.zeros(weights["W1"].shape[1]), np.zeros(h), np.zeros(h))

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        u, v = state.u, state.v
        if not remember(x, params.x_mean, state.window):
            for i in range(y.shape[0]):
                y[i] = np.nan
            return True
        for i in range(y.shape[0]):
            y[i] = params.b3[i]
        for j in range(params.W1.shape[0]):
            affine(params.W1[j], params.b1[j], state.window, u)
            squash(u, params.tanh)
            for k in range(params.W2.shape[1]):
                affine(params.W2[j, k], params.b2[j, k], u, v)
                squash(v, params.tanh)
                for i in range(u.shape[0]):
                    u[i] = v[i]
            for i in range(u.shape[0]):
                for c in range(y.shape[0]):
                    y[c] += u[i] * params.W3[j, i, c]
        return True


@kernel
def squash(u, tanh):
    """u = tanh(u) or max(u, 0)"""
    for i in range(u.shape[0]):
        u[i] = math.tanh(u[i]) if tanh else max(u[i], 0.0)
