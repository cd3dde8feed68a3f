"""What neurons fire, given their past and what is known from outside: generalised linear models.

    u = W' h,   x ~ Poisson(f(u)), Bernoulli(f(u)) or N(u, v),   h = [filtered past counts, filtered covariates, 1]

Arrays: X (T, N) counts, H (T, M) what the rates depend on, W (S, M, N) weights of S states, V (S, N) variances. A row
of X with a value that is not finite (or below 0, for counts) says nothing of that neuron there.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from rheobase.stream.block import Array

F = NDArray[np.float64]

LAWS = ("sigmoid", "softplus", "exp", "bernoulli", "gaussian")
"""What x is drawn from, by its code: Poisson with one of three links, or one of two others."""
SIGMOID, SOFTPLUS, EXP, BERNOULLI, GAUSSIAN = range(5)

LEAST = 1e-8
"""Added to a rate before its logarithm, so that a neuron that cannot fire may."""
TOP = 20.0
"""exp(u) grows no further from this u on: what feeds on its own counts stays finite."""
BIAS_SD = 2.0
"""Of the prior of a bias about that of the mean rate: a neuron silent in a state keeps a rate above 0."""
WIDE = 3.0
"""Standard deviation of a prior of all weights about 0, on top of all others."""
ROWS = 4096
"""Samples worked on at a time: they stay in a core's cache."""
PRODUCTS = 1 << 20
"""Products of pairs of features worked on at a time."""
HALVINGS = 12
"""How often a Fisher step is made shorter where it went too far."""
VARIANCES = 1.0
"""Samples of the neuron's variance in all, that each state is thought to have seen besides its own (Gaussian)."""


def exponential(span: int) -> F:
    """phi_k ~ exp(-k) for the bins k = 1 ... span before, of sum 1: (1, span)."""
    phi = np.exp(-np.arange(1, span + 1))
    return np.asarray(phi / phi.sum())[None]


def cosines(span: int, n: int) -> F:
    """n raised cosines on a logarithmic axis over `span` bins, each of sum 1: (n, span). The first peaks at the nearest
    bin, the last two thirds of the way out; together they are smooth. Pillow et al., Nature 454:995, 2008.
    """
    a = np.log(np.arange(span) + 1.0)
    gap = a[-1] / (n + 1) or 1.0
    at = (a - gap * np.arange(n)[:, None]) * (np.pi / (2 * gap))
    phi = np.where(np.abs(at) < np.pi, 0.5 * (1 + np.cos(at)), 0.0) + 1e-12
    return np.asarray(phi / phi.sum(axis=1, keepdims=True))


def filtered(X: Array, phi: Array, first: int, segment: Array) -> F:
    """sum_k phi_bk x(t - first - k), within a segment: (T, B n), basis by basis. What is not finite counts as 0."""
    x = np.nan_to_num(np.asarray(X, float), nan=0.0, posinf=0.0, neginf=0.0)
    B, K = phi.shape
    out = np.zeros((len(x), B, x.shape[1]))
    for k in range(first, first + K):
        if k >= len(x):
            break
        same = segment[k:] == segment[: len(x) - k]
        past = np.where(same[:, None], x[: len(x) - k], 0.0)
        for b in range(B):
            out[k:, b] += phi[b, k - first] * past
    return out.reshape(len(x), -1)


def design(X: Array, U: Array, phi: Array, psi: Array, segment: Array, law: int) -> F:
    """H (T, M): counts X (T, N) filtered by phi over the bins before, covariates U (T, C) filtered by psi over this bin
    and those before, and 1.
    """
    past = np.where(known(X, law), X, 0.0)
    return np.hstack([filtered(past, phi, 1, segment), filtered(U, psi, 0, segment), np.ones((len(X), 1))])


def means(U: Array, law: int) -> F:
    """f(u)."""
    if law in (SIGMOID, BERNOULLI):
        p = 1 / (1 + np.exp(-np.clip(U, -500, 500)))
        return np.asarray(LEAST + (1 - LEAST) * p if law == SIGMOID else p)
    if law == SOFTPLUS:
        return np.asarray(np.maximum(U, 0) + np.log1p(np.exp(-np.abs(U))))
    return np.asarray(np.exp(np.minimum(U, TOP)) if law == EXP else U)


def slopes(U: Array, f: Array, law: int) -> F:
    """f'(u)."""
    if law in (SIGMOID, BERNOULLI):
        return np.asarray(f * (1 - f))
    if law == SOFTPLUS:
        return np.asarray(-np.expm1(-f))
    return np.asarray(np.where(U < TOP, f, 0.0) if law == EXP else np.ones_like(U))


def unlinked(f: Array, law: int) -> F:
    """The u of a mean."""
    f = np.maximum(f, LEAST) if law != GAUSSIAN else f
    if law in (SIGMOID, BERNOULLI):
        f = np.minimum(f, 1 - 1e-3)
        return np.asarray(np.log(f / (1 - f)))
    if law == SOFTPLUS:
        return np.asarray(np.log(np.expm1(np.minimum(f, 30.0))) + np.maximum(f - 30.0, 0))
    return np.asarray(np.log(f) if law == EXP else f)


def known(X: Array, law: int) -> NDArray[np.bool_]:
    """Which values are observations (T, N)."""
    return np.asarray(np.isfinite(X) & ((X >= 0) | (law == GAUSSIAN)))


def constants(X: Array, law: int) -> F:
    """The part of log p(x) that no parameter changes, for each row (T,)."""
    if law in (BERNOULLI, GAUSSIAN):
        return np.zeros(len(X))
    return np.asarray(-np.where(known(X, law), gammaln(np.where(known(X, law), X, 0) + 1), 0).sum(axis=1))


def log_density(X: Array, f: Array, v: Array, law: int) -> F:
    """log p(x) of each value, less its constant."""
    if law == BERNOULLI:
        return np.asarray(np.log(np.where(X > 0, f, 1 - f) + LEAST))
    if law == GAUSSIAN:
        return np.asarray(-0.5 * ((X - f) ** 2 / v + np.log(2 * np.pi * v)))
    return np.asarray(X * np.log(f + LEAST) - f)


def emissions(X: Array, H: Array, W: Array, V: Array, law: int) -> F:
    """log p(x_t | state s, what was before) (T, S)."""
    there, ell = known(X, law), np.empty((len(X), len(W)))
    whole = bool(there.all())
    x = X if whole else np.where(there, X, 0.0)
    for rows in chunks(len(X)):
        for s in range(len(W)):
            each = log_density(x[rows], means(few(H[rows]) @ W[s], law), V[s], law)
            ell[rows, s] = each.sum(axis=1) if whole else (each * there[rows]).sum(axis=1)
    return ell + constants(X, law)[:, None]


def few(h: Array) -> F:
    """H, or its first row where there is the bias alone: then all are alike."""
    return h[:1] if h.shape[1] == 1 else h


def chunks(T: int) -> Iterator[slice]:
    """0 ... T in pieces of `ROWS`."""
    return (slice(a, min(a + ROWS, T)) for a in range(0, T, ROWS))


def gradients(x: Array, f: Array, d: Array, v: Array, law: int) -> tuple[F, F]:
    """d log p / du of each value, and its Fisher information of u."""
    if law == BERNOULLI:
        p = f * (1 - f) + LEAST
        return np.asarray(((x > 0) - f) * d / p), np.asarray(d * d / p)
    if law == GAUSSIAN:
        return np.asarray((x - f) / v), np.broadcast_to(1 / v, f.shape)
    return np.asarray((x / (f + LEAST) - 1) * d), np.asarray(d * d / (f + LEAST))


def uphill(X: Array, H: Array, g: Array, W: Array, v: Array, law: int) -> F:
    """The gradient (M, N) of sum_t g_t log p(x_t | W' h_t)."""
    there, G = known(X, law), np.zeros(W.shape)
    for rows in chunks(len(X)):
        U = few(H[rows]) @ W
        f = means(U, law)
        up, _ = gradients(np.where(there[rows], X[rows], 0.0), f, slopes(U, f, law), v, law)
        G += H[rows].T @ (g[rows, None] * there[rows] * up)
    return G


def information(X: Array, H: Array, g: Array, W: Array, v: Array, law: int) -> F:
    """Of the same sum, the Fisher information (N, M, M) of each neuron."""
    there = known(X, law)
    M, N = W.shape
    i, j = np.triu_indices(M)
    pairs = np.zeros((N, len(i)))
    for rows in chunks(len(X)):
        h, U = H[rows], few(H[rows]) @ W
        f = means(U, law)
        each = g[rows, None] * there[rows] * gradients(f, f, slopes(U, f, law), v, law)[1]
        size = max(64, PRODUCTS // len(i))
        for a in range(0, len(h), size):
            pairs += each[a : a + size].T @ products(h[a : a + size]).T
    J = np.empty((N, M, M))
    J[:, i, j] = J[:, j, i] = pairs
    return J


def products(h: Array) -> F:
    """h_i h_j of all i <= j, i by i: (M (M + 1) / 2, T)."""
    columns = np.ascontiguousarray(h.T)
    return np.concatenate([columns[i] * columns[i:] for i in range(len(columns))])


def scored(X: Array, H: Array, g: Array, W: Array, v: Array, law: int, centre: Array, precision: Array, J: Array) -> F:
    """One Fisher-scoring step of the weights W (M, N) of a state from rows of weight g (T,): never downhill in

        sum_t g_t log p(x_t | W' h_t) - 1/2 sum precision (W - centre)^2

    of each neuron, for a step that goes too far is halved. centre, precision: (M, N). J (N, M, M): the Fisher
    information, of other weights too: a step by it is shorter or longer, and uphill still.
    """
    there = known(X, law)
    x, weight = np.where(there, X, 0.0), g[:, None] * there
    M, N = W.shape

    def score(w: Array) -> F:
        found = -0.5 * (precision * (w - centre) ** 2).sum(axis=0)
        for rows in chunks(len(X)):
            found += (weight[rows] * log_density(x[rows], means(few(H[rows]) @ w, law), v, law)).sum(axis=0)
        return np.asarray(found)

    G = uphill(X, H, g, W, v, law) - precision * (W - centre)
    J = J + precision.T[:, :, None] * np.eye(M)
    step, was, size = np.linalg.solve(J, G.T[..., None])[..., 0].T, score(W), np.ones(N)
    for _ in range(HALVINGS):
        fresh = W + size * step
        down = ~(score(fresh) >= was)
        if not down.any():
            return np.asarray(fresh)
        size[down] *= 0.5
    size[down] = 0.0
    return np.asarray(W + size * step)
