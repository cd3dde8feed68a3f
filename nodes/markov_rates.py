"""Rates of a Markov jump process, from labels or posteriors of its states as they come."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from rheobase.nodes import _jumps
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.node import Count, Fraction, Node, NotNegative, Positive, kernel

F = NDArray[np.float64]


class MarkovRates(Node):
    """How often a chain goes from state to state: rates q_ij, 1/s, with all that follows from them.

    Each pair of samples d s apart adds to N_d what is known of i -> j; every `every` samples what was counted is halved
    for each half-life that passed, one iteration of EM moves Q (`_jumps.py`), and a sample comes out:

        q0>1 ...    rates                         sd0>1 ...    sqrt(q_ij / time_i), if all of the path were seen
        pi0 ...     share of time in the long run   dwell0 ...   1 / |q_ii|, s
        pass0>1 ... mean time until 1 is first reached from 0, s
        score       log p of a sample, given those before, nats

    Samples may be missing, or come at odd times: only the distance of two that are there counts. A sample is a label
    (below 0, or not finite: not known; nor is one of `states` or more, which `health` counts), wrong with probability
    `noise`, or a posterior, taken for what it says of its own moment; then pairs are counted `lag` samples later, by
    forward-backward with the rates so far, those that still wait at the end of a chain once it is known to have ended.
    No pair reaches over a gap between segments.

    Errors: an input without a channel `state` (labels) or p0, p1, ... (posterior); labels beside p0, p1, ... that are
    not `states`; an irregular one without `tick`.
    """

    states: Count = 2
    """Number of states (labels); of a posterior it is that of its channels."""

    of: Literal["labels", "posterior"] = "labels"
    """What a sample says: the channel `state`, or the channels p0, p1, ..."""

    every: Count = 100
    """Samples from one output to the next."""

    half_life: NotNegative = 0.0
    """s after which what was seen counts half; 0: all counts for ever."""

    noise: Fraction = 0.0
    """Probability that a label is wrong."""

    lag: Count = 10
    """Samples that a pair waits for what comes after, where labels are not certain."""

    tick: Positive | None = None
    """Distances of samples are rounded to multiples of this, s; none: the period of the input."""

    longest: Count = 100
    """Ticks: samples further apart are no pair."""

    jumps: Positive = 0.5
    """Jumps from each state to each, thought to have been seen besides."""

    within: Positive = 0.5
    """s in which they were: so the rate is jumps / within before anything is seen."""

    unknown = 0

    @property
    def health(self) -> dict[str, int]:
        """Labels that are no state."""
        return {"unknown": self.unknown}

    def start(self, x: Spec) -> Spec:
        self.columns = [i for i, c in enumerate(x.channels) if c[:1] == "p" and c[1:].isdecimal()]
        n = len(self.columns)
        if self.of == "labels":
            if "state" not in x.channels:
                raise StreamError("in: has no channel 'state': take labels from an hmm_glm, or say of: posterior")
            if n not in (0, self.states):
                raise StreamError(f"states: the input has {n} states (p0 to p{n - 1}), here it is {self.states}")
            self.columns, n = [x.channels.index("state")], self.states
        if n < 2:
            raise StreamError(f"{'states' if self.of == 'labels' else 'in'}: one state has no rates")
        if not (self.tick or x.rate):
            raise StreamError("tick: the input is irregular: say to what distances of samples are rounded, s")
        self.dt = self.tick or 1 / x.rate
        self.n, self.seq, self.seen, self.then, self.unknown = n, 0, 0, np.nan, 0
        self.wait = self.lag if self.of == "posterior" or self.noise else 0
        self.Q = _jumps.generator(np.full((n, n), self.jumps / self.within))
        self.N = np.zeros((self.longest, n, n))
        self.P = self._powers()
        self.segment, self.count = -1, np.zeros(1, np.int64)
        size = self.wait + 2
        self.alphas, self.es, self.gaps = np.zeros((size, n)), np.zeros((size, n)), np.zeros(size, np.int64)
        self.at, self.last, self.log_p = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
        pairs = [f"{i}>{j}" for i in range(n) for j in range(n) if i != j]
        each = [f"{word}{i}" for word in ("pi", "dwell") for i in range(n)]
        channels = (
            [f"{word}{p}" for word in ("q", "sd") for p in pairs] + each + [f"pass{p}" for p in pairs] + ["score"]
        )
        return Spec(rate=x.rate / self.every, channels=tuple(channels), delay=x.delay)

    def process(self, x: Block) -> Block | None:
        if x.segment != self.segment:
            flush(self.P, self.N, self.alphas, self.es, self.gaps, self.at, self.count)
            self.segment = x.segment
        e = self._evidence(np.asarray(x.data[:, self.columns], float))
        rows, times = [], []
        for a in range(len(x)):
            self.seen += 1
            collect(
                e[a], x.times[a], self.dt, self.P, self.N, self.alphas, self.es, self.gaps, self.at, self.last,
                self.count, self.log_p,
            )  # fmt: skip
            if self.seen % self.every == 0:
                rows.append(self._update(float(x.times[a])))
                times.append(x.times[a])
        if not rows:
            return None
        self.seq += len(rows)
        return Block(np.array(rows), np.array(times), self.seq - len(rows), x.segment)

    def _evidence(self, data: F) -> F:
        """(T, n) how likely what was seen is in each state; 0 where nothing was seen."""
        if self.of == "posterior":
            known = np.asarray((np.isfinite(data) & (data >= 0)).all(axis=1))
            return np.where(known[:, None], data, 0.0)
        label = np.where(np.isfinite(data[:, 0]), np.round(data[:, 0]), -1)
        known = (label >= 0) & (label < self.n)
        self.unknown += int((label >= self.n).sum())
        e = np.where(np.arange(self.n) == label[:, None], 1 - self.noise, self.noise / (self.n - 1))
        return np.where(known[:, None], e, 0.0)

    def _update(self, t: float) -> F:
        if self.half_life and t > self.then:
            self.N *= 2.0 ** (-(t - self.then) / self.half_life)
        self.then = t
        there = np.flatnonzero(self.N.any(axis=(1, 2)))
        self.Q, time = _jumps.em(self.dt * (there + 1), self.N[there], self.Q, self.jumps, self.within, 1)
        self.P = self._powers()
        apart = ~np.eye(self.n, dtype=bool)
        sd = np.sqrt(self.Q.clip(0) / (time + self.within)[:, None])
        row = np.concatenate([
            self.Q[apart], sd[apart], _jumps.stationary(self.Q), -1 / self.Q.diagonal(), _jumps.passages(self.Q)[apart],
            self.log_p / self.every,
        ])  # fmt: skip
        self.log_p[0] = 0.0
        return row

    def _powers(self) -> F:
        """P (longest, n, n): e^Qd for d of 1, 2, ... ticks."""
        P = np.empty((self.longest, self.n, self.n))
        P[0] = scipy.linalg.expm(self.Q * self.dt)
        for k in range(1, self.longest):
            P[k] = P[k - 1] @ P[0]
        return P


@kernel
def smooth(P, N, alphas, es, gaps, row, k, every):
    """Counts p(i, j | all until `row`) of the last k pairs, `row` being the newest sample: every one, or the oldest."""
    n, size = alphas.shape[1], alphas.shape[0]
    beta, new = np.ones(n), np.ones(n)
    for pair in range(1, k + 1):
        old, d = row - 1 if row > 0 else size - 1, gaps[row] - 1
        total, scale = 0.0, 0.0
        for i in range(n):
            new[i] = 0.0
            for j in range(n):
                new[i] += P[d, i, j] * es[row, j] * beta[j]
            total += alphas[old, i] * new[i]
            scale += new[i]
        if every or pair == k:
            for i in range(n):
                for j in range(n):
                    N[d, i, j] += alphas[old, i] * P[d, i, j] * es[row, j] * beta[j] / total
        for i in range(n):
            beta[i] = new[i] / scale
        row = old


@kernel
def flush(P, N, alphas, es, gaps, at, count):
    """Ends a chain: counts the pairs that still wait for what comes after, by what came."""
    smooth(P, N, alphas, es, gaps, at[0], min(count[0] - 1, alphas.shape[0] - 2), True)
    count[0] = 0


@kernel
def collect(e, t, dt, P, N, alphas, es, gaps, at, last, count, log_p):
    """Takes in one sample at t s that is e (n,) likely in each state, and counts in N (K, n, n) the pair that is `wait`
    samples old: p(i, j | all until now), by its distance in ticks. Rings of wait + 2 rows, the newest at `at`; count
    (1,) samples of this chain.
    """
    n, (size, K) = e.shape[0], (alphas.shape[0], P.shape[0])
    total = 0.0
    for j in range(n):
        total += e[j]
    if not total > 0.0:  # nothing was seen
        return
    gap = int(np.round((t - last[0]) / dt)) if count[0] > 0 else 0
    if count[0] > 0 and (gap < 1 or gap > K):
        flush(P, N, alphas, es, gaps, at, count)
    before, now = at[0], at[0] + 1 if at[0] + 1 < size else 0
    at[0], last[0], gaps[now] = now, t, gap
    total = 0.0
    for j in range(n):
        p = 1.0 / n
        if count[0] > 0:
            p = 0.0
            for i in range(n):
                p += alphas[before, i] * P[gap - 1, i, j]
        es[now, j] = e[j]
        alphas[now, j] = max(p * e[j], 1e-300)
        total += alphas[now, j]
    for j in range(n):
        alphas[now, j] /= total
    if count[0] > 0:
        log_p[0] += np.log(total)
    count[0] += 1
    if count[0] >= size:
        smooth(P, N, alphas, es, gaps, now, size - 1, False)
