"""The one-hot prior: a connection is inhibitory, none or excitatory, with probabilities that the states share.

    w_s(j -> n) = (a_exc - a_inh) w~,   a_s ~ Categorical(a0(j -> n)),   ln w~ ~ N(mu, sigma^2),   a0 (j, n, 3)

after Li, Li, Wu, ICLR 2024. They relax a to the simplex (`log_gumbel_softmax`) and climb; `relaxed` does that. `learnt`
does not: about the weights of an EM with a Gaussian prior log p(x | w) is as good as quadratic, and in a quadratic what
one connection is, given the means of the others, can be said exactly,

    p(a = k) ~ a0_k  integral p(w~) exp(c w - 1/2 J w^2) dw~,   w = (-w~, 0, w~)_k

so the posterior of all connections comes from going round them (mean-field variational EM), and a0, mu and sigma from
their shares. Axes: states S, target n, source j, kind (inhibitory, none, excitatory).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri

from rheobase.nodes import _em, _glm
from rheobase.stream.block import Array

F = NDArray[np.float64]

POINTS = 32
"""Quantiles of w~ that stand for its distribution."""
ROUNDS = 20
"""Most times that all connections are gone round, for one quadratic."""
QUADRATICS = 3
"""How often the quadratic is taken anew, at the weights that the last one led to."""
STILL = 1e-5
"""A round that moves no weight by more is the last."""
SHARED = 2.0
"""Connections of the common share of each kind, that a0 is thought to have seen besides the S of its own."""
SPREAD = (0.1, 2.0)
"""Bounds of sigma."""


def softmax(z: Array) -> F:
    """exp z / sum exp z, over the last axis."""
    return np.asarray(np.exp(z - logsumexp(z, axis=-1, keepdims=True)))


def weights(logits: Array, raw: Array, hard: bool = False) -> F:
    """w = (a_exc - a_inh) w~, with a = softmax(logits) (or its largest alone) and w~ = log(1 + exp(raw))."""
    a = np.eye(3)[logits.argmax(axis=-1)] if hard else softmax(logits)
    return np.asarray((a[..., 2] - a[..., 0]) * np.logaddexp(0, raw))


def log_gumbel_softmax(a: Array, a0: Array, tau: float) -> F:
    """log density at a of the relaxed categorical of probabilities a0 (both (..., 3)) and temperature tau:

        ln 2 + 2 ln tau - 3 ln sum_k a0_k a_k^-tau + sum_k (ln a0_k - (tau + 1) ln a_k)

    Jang, Gu, Poole, ICLR 2017.
    """
    total = np.log((a0 * a**-tau).sum(axis=-1))
    each = (np.log(a0) - (tau + 1) * np.log(a)).sum(axis=-1)
    return np.asarray(math.log(2) + 2 * math.log(tau) - 3 * total + each)


class Quadratic:
    """sum log p(x | w), weighted by how likely each state is, near the weights of a model: lin' w - 1/2 w' J w + const,
    with lin (S, N, M) and J (S, N, M, M). Features are the N neurons, covariates, and 1. The priors of covariates and
    biases are in it.
    """

    def __init__(self, data: _em.Data, m: _em.Model, gamma: Array, prior: _em.Prior, law: int) -> None:
        S, M, N = m.W.shape
        self.J, self.lin = np.zeros((S, N, M, M)), np.zeros((S, N, M))
        for s in range(S):
            near = np.flatnonzero(gamma[:, s] > _em.NOTHING)
            at = data.X[near], data.H[near], gamma[near, s], m.W[s], m.V[s], law
            self.J[s] = _glm.information(*at)
            self.lin[s] = _glm.uphill(*at).T + np.einsum("nij,jn->ni", self.J[s], m.W[s])
        outside = np.arange(N, M - 1)
        self.J[:, :, outside, outside] += _glm.WIDE**-2
        self.J[:, :, -1, -1] += _glm.BIAS_SD**-2
        self.lin[:, :, -1] += prior.b0 * _glm.BIAS_SD**-2

    def slope(self, w: Array) -> F:
        """Its derivative at w (S, N, M)."""
        return np.asarray(self.lin - np.einsum("snij,snj->sni", self.J, w))


def learnt(data: _em.Data, m: _em.Model, prior: _em.Prior, law: int) -> tuple[_em.Model, F, F]:
    """From a model of EM: the same with the posterior mean of the weights under the one-hot prior; the posterior q
    (S, N, N, 3) of each connection's kind; and a0 (N, N, 3).
    """
    N = m.W.shape[2]
    on = np.abs(m.W[:, :N])
    big = on >= np.median(on)
    rho, mu, sigma = np.full(3, 1 / 3), float(np.log(on[big]).mean()), 1.0
    a0 = np.tile(rho, (N, N, 1))
    for _ in range(QUADRATICS):
        known = m.posterior(data, law)
        about = Quadratic(data, m, known.gamma, prior, law)
        w = np.ascontiguousarray(m.W.transpose(0, 2, 1))
        for _ in range(ROUNDS):
            was = w.copy()
            x = np.exp(mu + sigma * ndtri((np.arange(POINTS) + 0.5) / POINTS))
            q, on = _round(about, w, a0, x)
            rho = q.mean(axis=(0, 1, 2))
            a0 = (q.sum(axis=0) + SHARED * rho) / (len(q) + SHARED)
            share = 1 - q[..., 1]
            mu = float((share * on).sum() / share.sum())
            sigma = float(np.clip(np.sqrt((share * (on - mu) ** 2).sum() / share.sum()), *SPREAD))
            if np.abs(w - was).max() < STILL:
                break
        m = _em.Model(np.ascontiguousarray(w.transpose(0, 2, 1)), m.V, _em.transitions(known.xi), m.p0)
    return m, q, a0


def _round(about: Quadratic, w: F, a0: F, x: F) -> tuple[F, F]:
    """Go round all connections once: w (S, N, M) becomes their means. Returns q, and E ln w~ where there is one."""
    S, N, M = w.shape
    q, on = np.zeros((S, N, N, 3)), np.zeros((S, N, N))
    for j in range(M):
        Jj = about.J[:, :, j, j]
        c = about.lin[:, :, j] - np.einsum("snk,snk->sn", about.J[:, :, j], w) + Jj * w[:, :, j]
        if j >= N:
            w[:, :, j] = c / Jj
            continue
        down = -0.5 * Jj[..., None] * x * x
        exc, inh = c[..., None] * x + down, -c[..., None] * x + down
        sums = [logsumexp(e, axis=-1) - math.log(len(x)) for e in (inh, exc)]
        q[:, :, j] = softmax(np.log(a0[:, j] + 1e-300) + np.stack([sums[0], np.zeros((S, N)), sums[1]], axis=-1))
        p_inh, p_exc = softmax(inh), softmax(exc)
        w[:, :, j] = q[:, :, j, 2] * (p_exc @ x) - q[:, :, j, 0] * (p_inh @ x)
        there = q[:, :, j, 0] + q[:, :, j, 2] + 1e-300
        on[:, :, j] = (q[:, :, j, 0] * (p_inh @ np.log(x)) + q[:, :, j, 2] * (p_exc @ np.log(x))) / there
    return q, on


def relaxed(
    data: _em.Data, m: _em.Model, prior: _em.Prior, law: int, tau: float = 0.2, steps: int = 400, rate: float = 0.02
) -> tuple[_em.Model, F, F]:
    """The same by gradient ascent (Adam: Kingma, Ba, ICLR 2015) on the authors' relaxation, in the same quadratics: the
    kinds as softmax(logits), with the density of the logits, which has a maximum where that of a has none.
    """
    N = m.W.shape[2]
    w = m.W.transpose(0, 2, 1)
    size = np.maximum(np.abs(w[:, :, :-1]), 0.05)
    far = np.abs(w[:, :, :-1]) > np.median(size)
    logits = np.where(far, 1.0, -1.0)[..., None] * np.stack([w[:, :, :-1] < 0, 0 * far, w[:, :, :-1] > 0], axis=-1)
    z = [logits, np.log(np.expm1(size)), np.tile([0.0, 1.0, 0.0], (N, N, 1)), w[:, :, -1].copy()]
    for _ in range(QUADRATICS):
        known = m.posterior(data, law)
        about = Quadratic(data, m, known.gamma, prior, law)
        first, second = [np.zeros_like(a) for a in z], [np.zeros_like(a) for a in z]
        for k in range(1, steps + 1):
            for a, g, u, v in zip(z, relaxed_gradient(about, z, tau), first, second, strict=True):
                u += 0.1 * (g - u)
                v += 0.001 * (g * g - v)
                a += rate * (u / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
        W = np.concatenate([weights(z[0], z[1]), z[3][..., None]], axis=2)
        m = _em.Model(np.ascontiguousarray(W.transpose(0, 2, 1)), m.V, _em.transitions(known.xi), m.p0)
    return m, softmax(z[0]), softmax(z[2])


def relaxed_score(about: Quadratic, z: list[F], tau: float) -> float:
    """What `relaxed` climbs, at z: logits (S, N, N, 3), strengths (S, N, N) before log(1 + exp), logits of a0 (N, N, 3)
    and biases (S, N).
    """
    a, w = softmax(z[0]), np.concatenate([weights(z[0], z[1]), z[3][..., None]], axis=2)
    fit = (about.lin * w).sum() - 0.5 * np.einsum("sni,snij,snj->", w, about.J, w)
    return float(fit + (log_gumbel_softmax(a, softmax(z[2]), tau) + np.log(a).sum(axis=-1)).sum())


def relaxed_gradient(about: Quadratic, z: list[F], tau: float) -> list[F]:
    """Its derivatives by each of z."""
    a, a0, strength = softmax(z[0]), softmax(z[2]), np.logaddexp(0, z[1])
    w = np.concatenate([weights(z[0], z[1]), z[3][..., None]], axis=2)
    slope = about.slope(w)
    by_w = slope[..., :-1]
    spread = a0 * a**-tau
    spread /= spread.sum(axis=-1, keepdims=True)
    by_a = by_w[..., None] * strength[..., None] * np.array([-1.0, 0.0, 1.0]) + (3 * tau * spread - tau) / a
    by_a0 = (1 / a0 - 3 * spread / a0).sum(axis=0)
    return [
        a * (by_a - (a * by_a).sum(axis=-1, keepdims=True)),
        by_w * (a[..., 2] - a[..., 0]) / (1 + np.exp(-z[1])),
        a0 * (by_a0 - (a0 * by_a0).sum(axis=-1, keepdims=True)),
        slope[..., -1],
    ]
