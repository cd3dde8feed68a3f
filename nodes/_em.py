"""Learning a switching GLM: expectation-maximisation, pooled over all stretches of a recording.

The expected log-posterior of the weights has no closed maximum; a Fisher-scoring step that never goes downhill
(`_glm.py`) raises it, so the log-posterior rises with every iteration (generalised EM: Dempster, Laird, Rubin, J R Stat
Soc B 39:1, 1977). From equal weights in all states it would never move, for they are a saddle: it starts from noise,
several times.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes import _glm, _hmm
from rheobase.stream.block import Array

F = NDArray[np.float64]
Told = Callable[[str, int, float], None]

ALONE, STILL = 30, 1e-6
"""Most Fisher steps of the GLM of one state; one that moves no weight by more is the last."""
SHORT = 12
"""Iterations of each start, of which the best goes on."""
FEW = 10_000
"""Most samples that those look at: stretches from all over the recording."""
STRETCH = 1000
"""Samples in such a stretch."""
NOISE = 0.5
"""Standard deviation that the noise of a start gives to u."""
STAY = 0.95
"""Probability to stay in a state, to begin with."""
PSEUDO = 0.1
"""Steps from each state to each that are thought to have been seen besides: none is impossible."""
NOTHING = 1e-8
"""A state less likely than this has no share in a sample."""
ENOUGH = 1e-5
"""nats a sample: an iteration that brings less is the last."""
ALIKE = 0.5
"""Share of the samples of a state that must still be its, for their information to serve again."""
ROUND = 1e-3
"""Width within which the penalty l1 |w| is rounded."""


class Data(NamedTuple):
    """Counts X (T, N), what their rates depend on, H (T, M), and the stretch (T,) that each row is of."""

    X: F
    H: F
    segment: NDArray[np.int64]

    def part(self, rows: Array) -> Data:
        return Data(self.X[rows], self.H[rows], self.segment[rows])


class Prior(NamedTuple):
    """Of the weights. sd: of each about W0, their mean over the states (inf: no such prior); l1: penalty l1 |w|; b0
    (N,): where biases lie.
    """

    sd: float
    l1: float
    b0: F


class Model(NamedTuple):
    """W (S, M, N) weights with the biases last, V (S, N) variances (Gaussian), Pi (S, S), p0 (S,)."""

    W: F
    V: F
    Pi: F
    p0: F

    def emissions(self, data: Data, law: int) -> F:
        return _glm.emissions(data.X, data.H, self.W, self.V, law)

    def posterior(self, data: Data, law: int) -> _hmm.Posterior:
        return _hmm.posterior(self.emissions(data, law), self.Pi, self.p0, data.segment)

    def scaled(self, size: Array, B: int) -> Model:
        """That of x, where this one is of x / size (N,), with B filters of the past (Gaussian)."""
        of = np.ones(self.W.shape[1])
        of[: B * len(size)] = np.tile(size, B)
        return self._replace(W=self.W * size / of[:, None], V=self.V * size**2)

    def order(self, at: Array) -> Model:
        """The same with its states in another order."""
        return Model(self.W[at], self.V[at], self.Pi[np.ix_(at, at)], self.p0[at])


def shared(W: Array) -> F:
    """W0 (N', N): the mean over the states, which is the likeliest for W_s ~ N(W0, sd^2)."""
    return np.asarray(W.mean(axis=0))


def log_gaussian(W: Array, W0: Array, sd: float) -> float:
    """sum log N(W; W0, sd^2)."""
    return float(-0.5 * (((W - W0) / sd) ** 2).sum() - W.size * np.log(sd * np.sqrt(2 * np.pi)))


def log_prior(m: Model, prior: Prior) -> float:
    """Of a model, up to a constant."""
    w, b = m.W[:, :-1], m.W[:, -1]
    found = PSEUDO * np.log(m.Pi).sum() - 0.5 * ((b - prior.b0) ** 2).sum() / _glm.BIAS_SD**2
    found -= 0.5 * (w**2).sum() / _glm.WIDE**2
    if np.isfinite(prior.sd):
        found -= 0.5 * ((w - shared(w)) ** 2).sum() / prior.sd**2
    return float(found - prior.l1 * np.sqrt(w**2 + ROUND**2).sum())


def pull(w: Array, prior: Prior, W0: Array) -> tuple[F, F]:
    """Centre and precision (M, N) of the quadratic that meets the log-prior at w (M, N) and lies nowhere above it."""
    M, N = w.shape
    about, zero = np.zeros((M, N)), np.full((M, N), _glm.WIDE**-2)
    about[:-1] = prior.sd**-2
    zero[:-1] += prior.l1 / np.sqrt(w[:-1] ** 2 + ROUND**2)
    about[-1], zero[-1] = _glm.BIAS_SD**-2, 0.0
    centre = np.vstack([W0, prior.b0])
    return about * centre / (about + zero), about + zero


def variances(data: Data, gamma: Array, W: Array, law: int) -> F:
    """V (S, N) of the residuals in each state, and of all as if `VARIANCES` samples of those had been seen besides."""
    if law != _glm.GAUSSIAN:
        return np.ones((len(W), data.X.shape[1]))
    there = _glm.known(data.X, law)
    n = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, data.X, 0.0).sum(axis=0) / n
    whole = np.where(there, (data.X - mean) ** 2, 0.0).sum(axis=0) / n
    whole = np.where(there.any(axis=0), whole + 1e-12, 1.0)
    V = []
    for s in range(len(W)):
        r2 = np.where(there, (data.X - data.H @ W[s]) ** 2, 0.0)
        V.append((gamma[:, s] @ r2 + _glm.VARIANCES * whole) / (gamma[:, s] @ there + _glm.VARIANCES))
    return np.array(V)


def transitions(xi: Array) -> F:
    """Pi of expected steps (S, S)."""
    Pi = xi + PSEUDO
    return np.asarray(Pi / Pi.sum(axis=1, keepdims=True))


def improved(
    data: Data, m: Model, gamma: Array, xi: Array, prior: Prior, law: int, kept: dict[int, tuple[F, float]]
) -> Model:
    """The M step: transitions as they were, and a Fisher step of each state's weights. kept: of states, the information
    of an earlier step, which is most of the work, and the samples that it was of; is taken again from as many.
    """
    W, W0 = m.W.copy(), shared(m.W[:, :-1])
    for s in range(len(W)):
        rows = np.flatnonzero(gamma[:, s] > NOTHING)
        seen = data.X[rows], data.H[rows], gamma[rows, s], W[s], m.V[s], law
        n = float(seen[2].sum())
        if not (s in kept and ALIKE * kept[s][1] < n < kept[s][1] / ALIKE):
            kept[s] = _glm.information(*seen), n
        J, then = kept[s]
        W[s] = _glm.scored(*seen, *pull(W[s], prior, W0), J * (n / then) if n != then else J)
    return Model(W, variances(data, gamma, W, law), transitions(xi), m.p0)


def em(
    data: Data, m: Model, prior: Prior, law: int, iterations: int, told: Told | None = None, word: str = "fit"
) -> tuple[Model, list[float]]:
    """The model after so many iterations, or once they bring less than `ENOUGH`; and the log-posterior before each and
    at the end.
    """
    trace: list[float] = []
    kept: dict[int, tuple[F, float]] = {}
    while True:
        known = m.posterior(data, law)
        trace.append(known.likelihood + log_prior(m, prior))
        if told:
            told(word, len(trace) - 1, trace[-1])
        small = len(trace) > 1 and trace[-1] - trace[-2] < ENOUGH * len(data.X)
        if small or len(trace) > iterations:
            return m, trace
        if len(trace) & (len(trace) - 1) == 0:  # the later, the less it changes: at 1, 2, 4, 8 ...
            kept.clear()
        m = improved(data, m, known.gamma, known.xi, prior, law, kept)


def one_state(data: Data, prior: Prior, law: int) -> Model:
    """The GLM of all samples: one state."""
    N = data.X.shape[1]
    W = np.vstack([np.zeros((data.H.shape[1] - 1, N)), prior.b0])[None]
    flat = np.ones((len(data.X), 1))
    m = Model(W, variances(data, flat, W, law), np.ones((1, 1)), np.ones(1))
    for _ in range(ALONE):
        was, m = m, improved(data, m, flat, np.ones((1, 1)), prior._replace(sd=np.inf), law, {})
        if np.abs(m.W - was.W).max() < STILL:
            break
    return m


def noisy(glm: Model, data: Data, S: int, rng: np.random.Generator) -> Model:
    """S states, each the GLM with noise."""
    spread = data.H.std(axis=0)
    spread[-1] = 1.0
    size = NOISE / np.sqrt(data.H.shape[1]) / np.where(spread > 0, spread, np.inf)
    W = glm.W + size[:, None] * rng.standard_normal((S, *glm.W.shape[1:]))
    Pi = np.full((S, S), (1 - STAY) / max(1, S - 1))
    np.fill_diagonal(Pi, STAY if S > 1 else 1.0)
    return Model(W, np.tile(glm.V, (S, 1)), Pi, np.full(S, 1 / S))


def stretches(data: Data) -> Data:
    """At most `FEW` rows: stretches of equal length, spread evenly, each a chain of its own."""
    T, n = len(data.X), FEW // STRETCH
    if T <= FEW:
        return data
    rows = np.concatenate([a + np.arange(STRETCH) for a in np.linspace(0, T - STRETCH, n).astype(int)])
    return data.part(rows)._replace(segment=data.segment[rows] * n + np.repeat(np.arange(n), STRETCH))


def learnt(
    data: Data, S: int, prior: Prior, law: int, iterations: int, restarts: int, seed: int, told: Told | None = None
) -> tuple[Model, list[float]]:
    """The best of several short fits from noise on a part of the data, gone on with on all of it."""
    glm = one_state(data, prior, law)
    if S == 1:
        return glm, [glm.posterior(data, law).likelihood + log_prior(glm, prior._replace(sd=np.inf))]
    few = stretches(data)

    def begun(k: int) -> tuple[Model, float]:
        rng = np.random.default_rng([seed, k])
        m, trace = em(few, noisy(glm, few, S, rng), prior, law, SHORT, told, f"start {k + 1}")
        return m, trace[-1]

    with ThreadPoolExecutor(min(restarts, os.cpu_count() or 1)) as pool:
        best = max(pool.map(begun, range(restarts)), key=lambda found: found[1])[0]
    m, trace = em(data, best, prior, law, iterations, told)
    share = m.posterior(data, law).gamma.sum(axis=0)
    return m.order(np.argsort(-share, kind="stable")), trace
