"""Autoregressive partially hidden Markov model: in which state a unit is, what comes next, and how long it lives."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rheobase.nodes import _arhmm, _phase_type
from rheobase.nodes._arhmm_filter import GIVEN, filtered
from rheobase.nodes._decoder import Decoder, Training, spread
from rheobase.nodes._phase_type import Stages, band, expand
from rheobase.nodes._pool import best_pool, first_phases, log_q
from rheobase.nodes._rollout import first_below
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Count, Fraction, Positive, Seed, kernel


class ARPHMMParams(NamedTuple):
    """B (d, l, Q), s2 and log 2 pi s2 (d, Q) as in `_arhmm`; pi (N,), first, a, J as in `_phase_type.Stages`; G (N, R)
    survival, mean, capped (N,) of the remaining life; levels (3,) of the quantiles; centre, spread (d,): mean and
    variance of y in training; log_q (N,), pool as in `_pool`; lives: whether units fail.
    """

    B: NDArray[np.float64]
    s2: NDArray[np.float64]
    log_2pi_s2: NDArray[np.float64]
    pi: NDArray[np.float64]
    first: NDArray[np.int64]
    a: NDArray[np.float64]
    J: NDArray[np.float64]
    G: NDArray[np.float64]
    mean: NDArray[np.float64]
    capped: NDArray[np.float64]
    levels: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]
    log_q: NDArray[np.float64]
    pool: float
    lives: bool


class ARPHMMRoom(NamedTuple):
    """p (N,); into, log_b, w, m, v (Q,); some (WINDOW,); mean, variance (d,) of the prediction."""

    p: NDArray[np.float64]
    into: NDArray[np.float64]
    log_b: NDArray[np.float64]
    w: NDArray[np.float64]
    m: NDArray[np.float64]
    v: NDArray[np.float64]
    some: NDArray[np.float64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]


class ARPHMMState(NamedTuple):
    """alpha (N,); ell, ell_v (l,): regressors, and the variance of those that had to be guessed, of which the newest is
    `guessed` (1,) samples old; seen (1,); r (3,) the quantiles. room: nothing is kept there.
    """

    alpha: NDArray[np.float64]
    ell: NDArray[np.float64]
    ell_v: NDArray[np.float64]
    guessed: NDArray[np.int64]
    seen: NDArray[np.int64]
    r: NDArray[np.int64]
    room: ARPHMMRoom


class ARPHMM(Decoder):
    """Which of Q states a unit is in, from y (d,) and its last P samples, and from that its remaining life.

        y_tk = -B_ik [y_{t-1}, ..., y_{t-P}, 1, y_t0, ..., y_t(k-1)] + N(0, s2_ik)      in state i
        p = alpha_{t-1} S,  divided by its sum: it has survived                          first: pi
        score = log sum_i p_i N(y_t; i)      pit = sum_i p_i Phi(y_t; i)                 before y_t is known
        alpha_t ~ p_i N(y_t; i)                                P(life > r) = alpha_t S^(r+1) 1

    where life counts the samples still to come, 0 at the last. S holds the states' transitions, each state spread over
    phases in a row so that stays are as long, and vary as much, as in training (`_phase_type.py`). Learnt by EM from
    segments (one is one unit's life, up to its failure where z ends with 0) with what z says of the states as
    plausibility (`_arhmm.py`). Ramasso & Denoeux, IEEE Trans Fuzzy Syst 22:395, 2014.

    It gives: state; health: y_t0, predicted where that is missing; predicted: the mean of y_t0 before it was known;
    z: its error in its own sd; score; pit (of y_t0); novel: 1 where y_t belongs to no state (it is then left out); rul:
    mean life, rul_capped: mean of min(life, cap); rul_5, rul_50, rul_95: quantiles. Lives are in samples, whatever the
    unit of z is called in training, and NaN where that saw no failure. The first P samples of a segment only serve as
    lags: their predictions are NaN.

    A missing channel says nothing; in later lags it counts as predicted, with the variance of that.
    """

    states: Count = 6
    """Q."""

    order: int = 7
    """P, samples that y depends on besides the state."""

    knowledge: Literal["none", "state", "life"] = "life"
    """What z says in training: nothing; the state, a number below `states`; the remaining life in samples, from
    which states follow as bands of `width`. A z below 0 says nothing."""

    width: Positive = 20.0
    """Samples in a band of life; the first state is all life beyond the others."""

    doubt: Fraction = 0.0
    """nu: the state j is plausible to nu^|i - j| where z says i. 0: z is certain; 1: it says nothing."""

    left_right: bool = True
    """States follow their numbers, and never go back."""

    phases: Count = 64
    """Most phases of a state; 1: stays are geometric."""

    pool: Fraction | None = 0.0
    """g: where the errors of y last for many samples, those are not news, and Bayes' rule (0) would grow too sure. With
    g > 0 the sample and the past are two opinions on one thing: alpha_t ~ p^(1 - g) (q N(y_t))^g (`_pool.py`). 1: the
    present sample alone; none: the g under which the true band of life is most probable in training."""

    cap: Positive = 125.0
    """Longest life that rul_capped knows of, samples."""

    horizon: Count = 500
    """Longest life that a quantile can be, samples."""

    restarts: Count = 5
    """First guesses tried, where nothing is known of the states."""

    posterior: bool = False
    """After the others give the probability of each state, p0, p1, ..."""

    seed: Seed = 0
    """Of the first guesses."""

    shapes = {
        "pi": "q", "A": "q q", "B": "q n v", "s2": "q n", "first": "e", "a": "q", "J": "q q", "levels": "t",
        "centre": "n", "spread": "n", "pool": "", "log_L": "", "failures": "",
    }  # fmt: skip
    adjustable = ("model", "cap", "horizon", "posterior")

    def check(self) -> None:
        if self.cap > self.horizon:
            raise StreamError(f"cap: {self.cap:g} is more than the horizon of {self.horizon}")
        super().check()

    @property
    def judged(self) -> bool:
        return self.knowledge != "none"

    def estimate(self, Y: Array, d: int) -> Array:
        return Y[:, [GIVEN.index("rul" if self.knowledge == "life" else "state")]]

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        more = tuple(f"p{i}" for i in range(self.states)) if self.posterior else ()
        return out.replace(channels=GIVEN + more, unit=out.unit or "samples")

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        Q, P = self.states, self.order
        if P < 0:
            raise StreamError(f"order: must not be negative, got {P}")
        if self.knowledge == "life" and not self.left_right:
            raise StreamError("left_right: a remaining life only falls, so knowledge of it needs left_right: true")
        there = np.where(np.isfinite(data.X), data.X, np.nan)
        names = self.header.get("in", {}).get("channels") or numbered("x", there.shape[1])
        for name, sd in zip(names, spread(there), strict=True):
            if sd == 0:
                raise StreamError(
                    f"channel {name!r} does not vary, and has no noise to be sure by: leave it out (pick)"
                )
        cuts = np.flatnonzero(np.diff(data.segment)) + 1
        ys, zs = np.split(there, cuts), np.split(data.Z[:, 0], cuts)
        pls = None if self.knowledge == "none" else [self._plausible(z) for z in zs]
        failed = [self.knowledge == "life" and z[-1] == 0 for z in zs]
        s = _arhmm.sequences(ys, pls, Q, P, failed)
        model, log_L = _arhmm.learn(s, Q, self.left_right, pls is not None, self.restarts, self.seed)
        if not all(np.isfinite(a).all() for a in model):
            raise StreamError(f"order: too few samples have the {P} before them")
        log_b = _arhmm.log_b(model, s)
        paths = [_arhmm.viterbi(model.pi, model.A, b, n) for b, n in zip(log_b, s.length, strict=True)]
        made = _phase_type.stages(model.A, _phase_type.sojourns(paths, list(s.failed), Q), self.phases)
        arrays = dict(
            pi=model.pi, A=model.A, B=model.B, s2=model.s2, first=made.first.astype(float), a=made.a, J=made.J,
            levels=np.array([0.05, 0.5, 0.95]), centre=np.nanmean(there, axis=0), spread=np.nanvar(there, axis=0),
            pool=np.array(self.pool or 0.0), log_L=np.array(log_L), failures=np.array(s.failed.sum(), float),
        )  # fmt: skip
        if self.pool is None:
            if self.knowledge != "life":
                raise StreamError("pool: only knowledge of life can judge it: give a number")
            blind = dataclasses.replace(s, log_pl=np.zeros_like(s.log_pl))
            lives = [z[P:] for z in zs if len(z) > P]
            truth = [np.where(z >= 0, band(np.maximum(z, 0), Q, self.width), -1) for z in lives]
            arrays["pool"] = np.array(best_pool(model, made, blind, truth))
        return arrays

    def _plausible(self, z: Array) -> Array:
        known = np.isfinite(z) & (z >= 0)
        z = np.where(known, z, 0)
        i = band(z, self.states, self.width) if self.knowledge == "life" else z.astype(np.int64)
        if i.max() >= self.states:
            raise StreamError(f"states: z names state {i.max()}, there are {self.states} from 0 on")
        far = np.abs(i[:, None] - np.arange(self.states))
        return np.where(known[:, None], float(self.doubt) ** far, 1.0)

    def calibrate(self, u: ArrayLike, segment: ArrayLike, draw: int = 20) -> Self:
        """Set the levels of the quantiles so that intervals hold on units that a model had not seen.

        u (T,) as `levels_of` gives it for such units would be uniform; where it is not, the 5 % quantile is given at
        the level that 5 % of them fall below, with n + 1 units instead of n for the one to come: conformal, where that
        is one of their kind (of the distribution: Chernozhukov et al., PNAS 118:e2107794118, 2021). `draw` moments of
        each unit are taken, so that long lives count no more than short ones.
        """
        u, rng = np.asarray(u, float), np.random.default_rng(self.seed)
        rows = [np.flatnonzero((np.asarray(segment) == k) & np.isfinite(u)) for k in np.unique(segment)]
        n = sum(len(r) > 0 for r in rows)
        if not n:
            raise StreamError("levels: none is known")
        drawn = np.concatenate([rng.choice(r, draw) for r in rows if len(r)])
        at = (0.05 - 0.05 / n, 0.5, min(0.95 + 0.95 / n, 1.0))  # of the least whole number over 0.95 (n + 1)
        self.arrays = self.arrays | {"levels": np.quantile(u[drawn], at).clip(1e-9, 1 - 1e-9)}
        return self

    def levels_of(self, X: ArrayLike, life: ArrayLike, segment: ArrayLike) -> NDArray[np.float64]:
        """P(life <= r) halfway through its step at the true lives (T,), NaN where life is NaN."""
        G, alpha = self.curve(X, segment)
        r = np.asarray(life, float)
        at = np.nan_to_num(r, nan=0.0).clip(0, self.horizon - 1).astype(int)
        after = np.einsum("tn,nt->t", alpha, G[:, at])
        before = np.where(at > 0, np.einsum("tn,nt->t", alpha, G[:, np.maximum(at - 1, 0)]), 1.0)
        return np.where(np.isfinite(r), 1 - (before + after) / 2, np.nan)

    def curve(self, X: ArrayLike, segment: ArrayLike | None = None) -> tuple[Array, Array]:
        """G (N, horizon) and alpha (T, N): P(life > r) = alpha G[:, r] at each sample."""
        seen = {"n": self.header["in"]["n"]}
        phases = dataclasses.replace(self, model="").hold(self.arrays, seen, self.header["out"])
        X = np.ascontiguousarray(X, np.float64)
        where = np.zeros(len(X), np.int64) if segment is None else np.asarray(segment)
        cuts = [0, *(np.flatnonzero(np.diff(where)) + 1), len(X)]
        phases.start(Spec(rate=0, channels=tuple(f"x{k}" for k in range(X.shape[1]))))
        p, s0, y = phases.params, phases.state, np.empty(len(GIVEN))
        alpha = np.empty((len(X), len(p.pi)))
        for a, b in itertools.pairwise(cuts):
            s = s0._replace(**{k: v.copy() for k, v in s0._asdict().items() if k != "room"})
            for t in range(a, b):
                filtered(p, s, X[t], y)
                alpha[t] = s.alpha
        return p.G, alpha

    def rollout(self, X: ArrayLike, below: float, paths: int = 1000) -> NDArray[np.int64]:
        """Lives (paths,) of one unit after its samples X (T, d) by simulation, until y_t0 < below: a second opinion."""
        X = np.ascontiguousarray(X, np.float64)
        if len(X) <= self.order or not np.isfinite(X[len(X) - self.order :]).all():
            raise StreamError(f"rollout: the last {self.order} samples, and one more, must be there")
        (_, alpha), (S, stage) = self.curve(X), expand(_stages(self.arrays))
        model = _arhmm.ARHMM(*(self.arrays[k] for k in _arhmm.ARHMM._fields))
        lags = X[len(X) - self.order :][::-1]
        return first_below(model, S, stage, alpha[-1], lags, below, self.horizon, paths, self.seed)

    def ready(self, x: Spec, **arrays: Array) -> None:
        s = _stages(arrays)
        S, _ = expand(s)
        N, d, Q, pi = len(S), x.n, self.states, first_phases(arrays["pi"], s)
        lives = bool(arrays["failures"] > 0) and _phase_type.fails(S)
        R = max(self.horizon, _phase_type.WINDOW)
        G = _phase_type.survival(S, R + 1)[1:]  # life r is r + 1 transitions: the last is the failure
        mean = _phase_type.mean_life(S) - 1 if lives else np.full(N, np.nan)
        s2 = np.ascontiguousarray(arrays["s2"].T)
        whole = int(min(self.cap, R))
        self.params = ARPHMMParams(
            np.ascontiguousarray(arrays["B"].transpose(1, 2, 0)), s2, np.log(2 * np.pi * s2),
            pi, s.first, s.a, s.J, np.ascontiguousarray(G.T), mean,
            G[:whole].sum(axis=0), arrays["levels"], arrays["centre"], arrays["spread"],
            log_q(pi, S), float(arrays["pool"]), lives,
        )  # fmt: skip
        wide = d * (self.order + 1) + 1
        v = lambda k: np.zeros(k)  # noqa: E731
        ell = v(wide)
        ell[wide - d - 1] = 1.0
        self.state = ARPHMMState(
            self.params.pi.copy(), ell, v(wide), np.array([wide]), np.zeros(1, np.int64), np.zeros(3, np.int64),
            ARPHMMRoom(v(N), v(Q), v(Q), v(Q), v(Q), v(Q), v(_phase_type.WINDOW), v(d), v(d)),
        )  # fmt: skip

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        filtered(params, state, x, y)
        return True


def _stages(arrays: dict[str, Array]) -> Stages:
    return Stages(arrays["first"].astype(np.int64), arrays["a"], arrays["J"])
