"""Remaining life as a first passage: how long a chain with probabilities alpha of its states lives on.

    P(T > r) = alpha S^r 1      mean = alpha N 1      E[T (T - 1)] = 2 alpha N S N 1      N = (I - S)^-1

S (N, N) holds the transitions among the states alive; 1 - S 1 is the probability to fail next. T counts transitions,
the one that fails included (Neuts, Matrix-Geometric Solutions, 1981, ch. 2).

A state of a Markov chain lasts for a geometric time, whose spread is as large as its mean: lives made of such states
spread too much. So a stage is made of E phases that follow each other, each left with probability a (`expand`):

    mean = E / a,  variance = E (1 - a) / a^2      thus  E = mean^2 / (variance + mean),  a = E / mean
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.stream.block import Array
from rheobase.stream.node import kernel

F = NDArray[np.float64]
WINDOW = 8
"""Neighbouring r looked at together for a quantile: the compiler does them side by side."""
NEVER = 1 - 1e-10
"""A chain with a spectral radius above this does not fail."""


class Stages(NamedTuple):
    """first (Q + 1,): the phase that each stage begins with, N at the end; a (Q,): the probability to leave a phase;
    J (Q, Q): where the last phase of a stage leads to, 1 - J 1 to the failure."""

    first: NDArray[np.int64]
    a: F
    J: F


def survival(S: F, R: int) -> F:
    """S^r 1 for r in 0..R-1, (R, N)."""
    G = np.ones((R, len(S)))
    for r in range(1, R):
        G[r] = S @ G[r - 1]
    return G


def fails(S: F) -> bool:
    """Whether every state fails in the end."""
    return bool(np.abs(np.linalg.eigvals(S)).max() < NEVER)


def mean_life(S: F) -> F:
    """Mean of T from each state, (N,); inf where the chain does not fail."""
    one = np.ones(len(S))
    return np.asarray(np.linalg.solve(np.eye(len(S)) - S, one)) if fails(S) else np.inf * one


def variance(alpha: F, S: F) -> float:
    """Variance of T."""
    if not fails(S):
        return float("inf")
    n = mean_life(S)
    mean = float(alpha @ n)
    return float(2 * alpha @ np.linalg.solve(np.eye(len(S)) - S, S @ n)) + mean - mean**2


def quantile(alpha: F, S: F, u: float, most: int = 100_000) -> int:
    """The smallest r with P(T <= r) >= u, `most` where it is larger."""
    v = alpha.copy()
    for r in range(most):
        if 1 - v.sum() >= u:
            return r
        v = v @ S
    return most


def sojourns(paths: Sequence[NDArray[np.int64]], failed: Sequence[bool], Q: int) -> list[list[int]]:
    """How long each stay in each state lasted, those cut off by the end of a unit that lives on left out."""
    found: list[list[int]] = [[] for _ in range(Q)]
    for path, f in zip(paths, failed, strict=True):
        cuts = [0, *(np.flatnonzero(np.diff(path)) + 1), len(path)]
        for k, (a, b) in enumerate(itertools.pairwise(cuts)):
            if f or k < len(cuts) - 2:
                found[path[a]].append(b - a)
    return found


def stages(A: F, stays: list[list[int]], most: int) -> Stages:
    """Stages of at most so many phases, as many as the stays' moments say (1 where none was seen). How long a stage
    lasts in the mean, and where it leads to, is as A (Q, Q) says, which knows of the stays that were cut off, too."""
    Q = len(A)
    E, a, J = np.ones(Q, np.int64), np.zeros(Q), np.zeros((Q, Q))
    for i in range(Q):
        leave = max(1 - float(A[i, i]), 1e-12)
        if stays[i]:
            mean, var = float(np.mean(stays[i])), float(np.var(stays[i]))
            E[i] = max(1, min(round(mean**2 / (var + mean)), most, round(1 / leave)))
        a[i] = min(E[i] * leave, 1.0)
        J[i] = A[i] / leave
        J[i, i] = 0
    return Stages(np.concatenate([[0], np.cumsum(E)]), a, J)


def expand(s: Stages) -> tuple[F, NDArray[np.int64]]:
    """S (N, N) over all phases, and the stage (N,) of each."""
    N, Q = int(s.first[-1]), len(s.a)
    S, stage = np.zeros((N, N)), np.repeat(np.arange(Q), np.diff(s.first))
    S[np.arange(N), np.arange(N)] = 1 - s.a[stage]
    for i in range(Q):
        last = s.first[i + 1] - 1
        S[np.arange(s.first[i], last), np.arange(s.first[i] + 1, last + 1)] = s.a[i]
        S[last, s.first[:-1]] += s.a[i] * s.J[i]
    return S, stage


def band(r: Array, Q: int, width: float) -> NDArray[np.int64]:
    """The stage of Q that a remaining life r lies in: `width` samples each, counted from the end, the first without an
    upper bound."""
    return np.asarray(Q - 1 - np.minimum(np.asarray(r) // width, Q - 1), np.int64)


@kernel
def move(first, a, J, alpha, p, into):
    """p = alpha S for the S of `expand`, divided by its sum; into (Q,): room. Where nothing survives, p = alpha."""
    Q = a.shape[0]
    for j in range(Q):
        into[j] = 0.0
    for i in range(Q):
        b, e = first[i], first[i + 1]
        go, stay = a[i], 1.0 - a[i]
        p[b] = alpha[b] * stay
        for n in range(b + 1, e):
            p[n] = alpha[n] * stay + alpha[n - 1] * go
        out = alpha[e - 1] * go
        if out > 0.0:
            for j in range(Q):
                into[j] += out * J[i, j]
    for j in range(Q):
        p[first[j]] += into[j]
    total = 0.0
    for n in range(p.shape[0]):
        total += p[n]
    if total > 1e-300:
        for n in range(p.shape[0]):
            p[n] /= total
    else:
        for n in range(p.shape[0]):
            p[n] = alpha[n]


@kernel
def passage(alpha, G, u, r, some):
    """The smallest r with alpha G[:, r] <= 1 - u for the survival G (N, R), R - 1 where it is larger.

    The search begins at r, wherever that is; some (WINDOW,): room.
    """
    R, W = G.shape[1], some.shape[0]
    at = min(max(r - W // 2, 0), R - W)
    way = 0
    while True:
        for k in range(W):
            some[k] = 0.0
        for n in range(alpha.shape[0]):
            v = alpha[n]
            for k in range(W):
                some[k] += v * G[n, at + k]
        k = 0
        while k < W and some[k] > 1.0 - u:
            k += 1
        if k == 0 and at > 0 and way <= 0:
            way, at = -1, max(at - W, 0)
        elif k == W and at + W < R and way >= 0:
            way, at = 1, min(at + W, R - W)
        else:
            return min(at + k, R - 1)
