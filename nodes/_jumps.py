"""Markov jump processes: rates of a chain in continuous time from what is seen of it now and then.

Q (n, n): q_ij, 1/s, the rate from state i to j; q_ii = -sum_j q_ij. Seen are counts N_d (n, n): so often was the chain
in i and d s later in j. EM of the rates (Bladt, Sørensen, J R Stat Soc B 67:395, 2005):

    M_d = int_0^d (e^Qs)' R_d (e^Q(d-s))' ds,   R_d = N_d / e^Qd       by the exponential of [[Q', R_d], [0, Q']] d
    time_i = sum_d M_ii,   jumps_ij = q_ij sum_d M_ij               (Van Loan, IEEE Trans Autom Control 23:395, 1978)
    q_ij <- (jumps_ij + a0) / (time_i + b0)
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.stream.block import Array

F = NDArray[np.float64]

ITERATIONS = 1000
ENOUGH = 1e-7
"""Share of itself by which no rate may still change in the last iteration."""


def generator(q: Array) -> F:
    """Q of rates (n, n), whatever stands on their diagonal."""
    Q = np.array(q, float)
    np.fill_diagonal(Q, 0.0)
    np.fill_diagonal(Q, -Q.sum(axis=1))
    return Q


def expectations(Q: Array, d: Array, N: Array) -> tuple[F, F, float]:
    """Time (n,) in each state and jumps (n, n) between them that are to be expected, given how often (K, n, n) the
    chain was in i and d (K,) s later in j; and log p of these counts.
    """
    n = len(Q)
    M, log_p = np.zeros((n, n)), 0.0
    block = np.zeros((2 * n, 2 * n))
    block[:n, :n] = block[n:, n:] = Q.T
    for length, seen in zip(d, N, strict=True):
        if seen.any():
            P = np.maximum(scipy.linalg.expm(Q * length), 1e-300)
            block[:n, n:] = seen / P
            M += scipy.linalg.expm(block * length)[:n, n:]
            log_p += float((seen * np.log(P)).sum())
    jumps = Q * M
    np.fill_diagonal(jumps, 0.0)
    return M.diagonal().clip(0.0), jumps.clip(0.0), log_p


def em(
    d: Array, N: Array, Q: Array | None = None, a0: float = 0.0, b0: float = 0.0, iterations: int = ITERATIONS
) -> tuple[F, F]:
    """Q and the time (n,) in each state after so many iterations from Q, or once they change nothing any more.

    a0 jumps in b0 s are thought to have been seen from each state to each besides (the mode of a Gamma prior of shape
    a0 + 1); with none, the likeliest Q.
    """
    n = N.shape[1]
    if Q is None:
        Q = generator(np.full((n, n), 1 / (n * float((d * N.sum(axis=(1, 2))).sum() / N.sum()))))
    for _ in range(iterations):
        time, jumps, _ = expectations(Q, d, N)
        fresh = generator((jumps + a0) / np.maximum(time + b0, 1e-300)[:, None])
        moved = np.abs(fresh - Q).max() / np.abs(Q).max()
        Q = fresh
        if moved < ENOUGH:
            break
    return Q, expectations(Q, d, N)[0]


def standard_errors(Q: Array, d: Array, N: Array, a0: float = 0.0, b0: float = 0.0, step: float = 1e-4) -> F:
    """sd of each rate (n, n): from the curvature of the log-likelihood at Q, whose slope is jumps / q - time."""
    n = len(Q)
    i, j = np.nonzero(~np.eye(n, dtype=bool))

    def slope(q: Array) -> F:
        time, jumps, _ = expectations(generator(q), d, N)
        return np.asarray((jumps[i, j] + a0) / q[i, j] - (time[i] + b0))

    size = np.maximum(Q[i, j], 1e-3 * np.abs(Q).max())
    base = generator(Q)
    base[i, j] = size  # a rate of 0 lies at an edge: the curvature is taken beside it
    H = np.empty((len(i), len(i)))
    for k in range(len(i)):
        up, down = base.copy(), base.copy()
        up[i[k], j[k]] += step * size[k]
        down[i[k], j[k]] -= step * size[k]
        H[:, k] = (slope(up) - slope(down)) / (2 * step * size[k])
    covariance = np.linalg.pinv(-0.5 * (H + H.T), hermitian=True)
    found = np.zeros((n, n))
    found[i, j] = np.sqrt(np.maximum(covariance.diagonal(), 0))
    return found


def stationary(Q: Array) -> F:
    """pi (n,) with pi Q = 0: the share of time spent in each state, in the long run."""
    A = np.vstack([Q.T, np.ones(len(Q))])
    pi = np.linalg.lstsq(A, np.eye(len(Q) + 1)[-1], rcond=None)[0].clip(0.0)
    return np.asarray(pi / pi.sum())


def passages(Q: Array) -> F:
    """(n, n) mean time until j is first reached from i, s; 0 on the diagonal, inf where it never is."""
    n = len(Q)
    found = np.zeros((n, n))
    for j in range(n):
        rest = np.delete(np.arange(n), j)
        try:
            found[rest, j] = np.linalg.solve(Q[np.ix_(rest, rest)], -np.ones(n - 1))
        except np.linalg.LinAlgError:
            found[rest, j] = np.inf
    return np.where(found < 0, np.inf, found)


def relaxations(Q: Array) -> F:
    """(n - 1,) s: the times in which the chain forgets where it began, the longest first."""
    rates = np.sort(np.abs(np.linalg.eigvals(Q).real))[1:]
    return np.asarray(1 / np.maximum(rates, 1e-300))


def pairs(times: Array, labels: Array, n: int, tick: float, most: int) -> tuple[F, F]:
    """d (K,) s and counts (K, n, n) of neighbours among labels (T,) (below 0: not known) at times (T,) s. Their
    distances are rounded to multiples of `tick`; those above `most` ticks are left out.
    """
    known = np.flatnonzero(labels >= 0)
    t, z = times[known], labels[known].astype(int)
    k = np.round(np.diff(t) / tick).astype(int)
    near = (k >= 1) & (k <= most)
    N = np.zeros((most, n, n))
    np.add.at(N, (k[near] - 1, z[:-1][near], z[1:][near]), 1.0)
    there = N.any(axis=(1, 2))
    return np.asarray(tick * (np.flatnonzero(there) + 1.0)), N[there]
