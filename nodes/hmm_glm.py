"""Brain states: a hidden Markov chain whose states differ in how neurons fire and drive each other."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from rheobase.nodes import _em, _glm, _hmm, _onehot
from rheobase.nodes._adapt import Adapting, Forgetting, adapting, clear, forgetting, learn_from, moments, take_over
from rheobase.nodes._decoder import Decoder, Training, spec_header, spread
from rheobase.nodes._follow import follow
from rheobase.stream.block import Array, Spec, StreamError, numbered
from rheobase.stream.node import Count, Fraction, NotNegative, Positive, Seed, kernel

F = NDArray[np.float64]
HELD_OUT = 0.2
"""Share of the rows, the last, by whose likelihood the number of states is chosen."""


class HmmGlmParams(NamedTuple):
    """For S states, N neurons, M features: W (M, S N), V (S N,), Pi, log_Pi (S, S), p0, log_p0 (S,), phi (B, K) and psi
    (E, Q) the filters of counts and covariates; the law of x; what is given out.
    """

    W: F
    V: F
    Pi: F
    log_Pi: F
    p0: F
    log_p0: F
    phi: F
    psi: F
    law: int
    lag: int
    enter: float
    viterbi: bool
    rates: bool
    forget: Forgetting


class HmmGlmState(NamedTuple):
    """past (K, N) and asked (Q, C): rings of counts and covariates; at (4,): the next row of each, the newest row of
    the next rings, and the number of bins; alphas, es, backs (lag + 1, S): rings of filtered posteriors, scaled
    emissions and Viterbi's pointers; delta (S,); label (1,). The others are room, and what is learnt on the way.
    """

    past: F
    asked: F
    at: NDArray[np.int64]
    alphas: F
    es: F
    backs: NDArray[np.int64]
    delta: F
    label: NDArray[np.int64]
    h: F
    u: F
    f: F
    p: F
    ell: F
    gamma: F
    beta: F
    room: F
    adapt: Adapting


class HmmGlm(Decoder):
    """p(state) from the counts of N neurons, bin by bin: a switching generalised linear model.

        p(z_t = j | z_t-1 = i) = Pi_ij,    x_tn | z_t = s  ~  Poisson(f(W_sn' h_t))
        h_t = [phi * counts of the bins before, psi * covariates up to now, 1]

        p = Pi' alpha(t-1);   alpha(t) ~ p exp(ell);   ell_s = sum_n log p(x_tn | s)

    Gives p0, p1, ... the posterior of each state; `state`, the label; `score`, log p(x_t | x before) in nats; and where
    asked, what each neuron is expected to fire, before it is seen. `lag` bins later all are surer: then they are of
    the bin so long before. In each state a neuron listens to the others by weights of its own. With history: none it
    is a hidden Markov model, with one state a GLM. A bin without a value moves the chain by Pi alone. The input is N
    channels of counts, then the covariates.

    Learnt without a truth (`fit(X)`), by pooled EM from noise (`_em.py`). States come in the order of their share; a
    refit `like` an earlier fit keeps its labels. Escola, Fontanini, Katz, Paninski, Neural Comput 23:1071, 2011; the
    one-hot prior: Li, Li, Wu, ICLR 2024.
    """

    unsupervised: ClassVar[bool] = True

    states: Count | None = 3
    """Number of states; none: that of 1 to `most` under which the last fifth of the rows is likeliest."""

    most: Count = 6
    """Most states tried."""

    emission: Literal["poisson", "bernoulli", "gaussian"] = "poisson"
    """What x is: a count, whether it is above 0, or a value with a variance for each state."""

    link: Literal["softplus", "exp", "sigmoid"] = "softplus"
    """f of a Poisson rate. sigmoid: at most one expected spike a bin, always stable. exp grows no further than e^20."""

    history: Literal["none", "exponential", "cosine"] = "exponential"
    """Filters of past counts: none; exp(-k) over the `span` bins before; `bumps` raised cosines over them."""

    span: Count = 5
    """Bins that neurons hear of each other."""

    bumps: Count = 3
    """Raised cosines."""

    covariates: int = 0
    """So many of the last channels are known from outside (events, stimuli) and act on all neurons."""

    reach: Count = 1
    """Bins that a covariate acts, from its own on, through min(bumps, reach) raised cosines."""

    prior: Literal["none", "gaussian", "onehot"] = "gaussian"
    """Of the weights. gaussian: about a W0 that the states share, with `sd`. onehot: each is inhibitory, none or
    excitatory, with probabilities that the states share, and has a strength (`_onehot.py`)."""

    sd: Positive = 1 / 3
    """Of weights about W0."""

    l1: NotNegative = 0.0
    """Penalty l1 |w| on the log-posterior, nats."""

    restarts: Count = 4
    """Starts from noise."""

    iterations: Count = 50
    """Most iterations of the best of them."""

    seed: Seed = 0
    """Of the noise."""

    lag: int = 0
    """Bins that the output waits for what comes after (10 is nearly as good as all)."""

    decide: Literal["viterbi", "posterior"] = "viterbi"
    """`state` is that of the likeliest path, or the likeliest now."""

    enter: Fraction = 0.6
    """A new state is entered once its posterior is at least this."""

    rates: bool = False
    """Give `rate CHANNEL`, too: counts a bin that were expected."""

    adapt: NotNegative = 0.0
    """s: weights and transitions follow what comes, and forget with this time constant; 0: they stay. Learns of the bin
    `lag` bins before, so take some lag. A run keeps what it learns to itself, over gaps too."""

    shapes = {
        "W": "s m c", "V": "s c", "Pi": "s s", "p0": "s", "phi": "b k", "psi": "e q", "moments": "s m m",
        "inform": "s c", "trace": "i",
    }  # fmt: skip
    adjustable = ("model", "lag", "decide", "enter", "rates", "adapt", "restarts", "seed")

    told: _em.Told | None = dataclasses.field(default=None, init=False, repr=False)
    """Hears of each iteration of a fit: what is fitted, which iteration, the log-posterior."""

    def fit(self, X: ArrayLike, Z: ArrayLike | None = None, **more: Any) -> Self:
        """Learn from X (T, n) alone; the rest is as in `Decoder.fit`."""
        # the products are small: threads of BLAS would mostly wait for one another, and starts have a thread each
        with threadpool_limits(1, "blas"):
            return super().fit(X, np.zeros((len(np.asarray(X)), 1)), **more)

    def hold(self, arrays: dict[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> Self:
        return super().hold(arrays, inputs, spec_header(Spec(rate=0, channels=numbered("p", len(arrays["Pi"])))))

    @property
    def law(self) -> int:
        """What x is drawn from, as a code of `_glm.LAWS`."""
        return _glm.LAWS.index(self.link if self.emission == "poisson" else self.emission)

    def check(self) -> None:
        self._agrees()
        super().check()

    def _agrees(self) -> None:
        if self.prior == "onehot" and self.history != "exponential":
            raise StreamError("prior: one weight from neuron to neuron is one-hot: use history: exponential")
        if self.lag < 0 or self.covariates < 0:
            raise StreamError(f"{'lag' if self.lag < 0 else 'covariates'}: must not be below 0")

    def filters(self) -> tuple[F, F]:
        """phi (B, K) and psi (E, Q)."""
        phi = {"none": np.zeros((0, 1)), "exponential": _glm.exponential(self.span)}.get(self.history)
        phi = _glm.cosines(self.span, self.bumps) if phi is None else phi
        return phi, _glm.cosines(self.reach, min(self.bumps, self.reach))

    def learn(self, data: Training, like: dict[str, Any] | None) -> dict[str, Array]:
        self._agrees()
        n, (phi, psi) = data.X.shape[1] - self.covariates, self.filters()
        if n < 1:
            raise StreamError(f"covariates: {self.covariates} of {data.X.shape[1]} channels leave no neuron")
        X, law = np.where(data.rows[:, None], data.X[:, :n], np.nan), self.law
        if law != _glm.GAUSSIAN and (X < 0).any():
            raise StreamError("takes counts, and its input goes below 0")
        size = np.ones(n)
        if law == _glm.GAUSSIAN:  # whose noise and priors are in standard deviations of each channel
            size = spread(X)
            X[:, size == 0] = np.nan  # one that stands still tells nothing of the states
            size[size == 0] = 1.0
        H = _glm.design(data.X[:, :n] / size, data.X[:, n:], phi, psi, data.segment, law)
        all_ = _em.Data(X / size, H, data.segment)
        b0 = _glm.unlinked(data.X[data.rows, :n].mean(axis=0) / size, law)
        prior = _em.Prior(np.inf if self.prior == "none" else self.sd, self.l1, b0)
        if like and np.shape(like["W"])[1:] == (H.shape[1], n) and self.states in (None, len(like["W"])):
            then = _em.Model(*(like[k] for k in _em.Model._fields)).scaled(1 / size, len(phi))
            m, trace = _em.em(all_, then, prior, law, self.iterations, self.told)
            m = m.order(_hmm.matched(then.W, m.W))
        else:
            S = self.states or self._chosen(all_, prior)
            m, trace = _em.learnt(all_, S, prior, law, self.iterations, self.restarts, self.seed, self.told)
        more = {}
        if self.prior == "onehot":
            m, kinds, a0 = _onehot.learnt(all_, m, prior, law)
            more = {"kinds": kinds, "a0": a0}
        gamma = m.posterior(all_, law).gamma
        if law == _glm.GAUSSIAN:  # back to the unit of x
            m = m.scaled(size, len(phi))
            all_ = _em.Data(X, _glm.design(data.X[:, :n], data.X[:, n:], phi, psi, data.segment, law), data.segment)
        return {**m._asdict(), "phi": phi, "psi": psi, "trace": np.array(trace), **more, **moments(all_, m, gamma, law)}

    def _chosen(self, data: _em.Data, prior: _em.Prior) -> int:
        """The number of states under which the last rows are likeliest."""
        cut = int(len(data.X) * (1 - HELD_OUT))
        seen, out = data.part(np.arange(cut)), data.part(np.arange(cut, len(data.X)))
        score = []
        for S in range(1, self.most + 1):
            m, _ = _em.learnt(seen, S, prior, self.law, self.iterations, self.restarts, self.seed, self.told)
            score.append(m.posterior(out, self.law).likelihood)
        return int(np.argmax(score)) + 1

    def start(self, x: Spec) -> Spec:
        out = super().start(x)
        n = x.n - self.covariates
        more = tuple(f"rate {c}" for c in x.channels[:n]) if self.rates else ()
        wait = self.lag / x.rate if x.rate else 0.0
        return out.replace(channels=(*out.channels, "state", "score", *more), delay=x.delay + wait)

    def ready(self, x: Spec, W: F, V: F, Pi: F, p0: F, phi: F, psi: F, moments: F, inform: F, **more: F) -> None:
        S, M, N = W.shape
        flat = np.ascontiguousarray(W.transpose(1, 0, 2)).reshape(M, S * N)
        log_Pi, log_p0 = np.log(np.maximum(Pi, _hmm.FLOOR)), np.log(np.maximum(p0, _hmm.FLOOR))
        forget = forgetting(self.adapt, x.rate, W)
        self.params = HmmGlmParams(
            flat, V.ravel(), Pi, log_Pi, p0, log_p0, phi, psi, self.law, self.lag, self.enter,
            self.decide == "viterbi", self.rates, forget,
        )  # fmt: skip
        L, C = self.lag + 1, self.covariates
        self.state = HmmGlmState(
            np.zeros((phi.shape[1], N)), np.zeros((psi.shape[1], C)), np.zeros(4, np.int64), np.zeros((L, S)),
            np.zeros((L, S)), np.zeros((L, S), np.int64), np.zeros(S), np.zeros(1, np.int64), np.zeros(M),
            np.zeros(S * N), np.zeros(S * N), np.zeros(S), np.zeros(S), np.zeros(S), np.zeros(S), np.zeros(S),
            adapting(forget, flat, Pi, log_Pi, moments, inform, L),
        )  # fmt: skip
        self.step = adapting_step if self.adapt else HmmGlm.step  # type: ignore[method-assign]
        self.resets = not self.adapt  # type: ignore[misc]

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        follow(params, params.W, params.Pi, params.log_Pi, state, x, y)
        return True


@kernel
def adapting_step(params, state, t, x, y):
    """The same by what was learnt on the way, from which it learns on."""
    a = state.adapt
    if not 0.0 < t - a.last[0] <= params.forget.gap:
        state.at[3] = 0
        clear(state.past)
        clear(state.asked)
    a.last[0] = t
    take_over(params.forget, params.W, params.Pi, params.log_Pi, a)
    follow(params, a.W, a.Pi, a.log_Pi, state, x, y)
    learn_from(params, state, x)
    return True


def connectivity(arrays: dict[str, Array], header: dict[str, Any]) -> F:
    """The couplings (S, N, N) of a model file: what a spike of neuron j (last axis) adds to the u of neuron i, summed
    over the bins after it, in each state. Without history: 0.
    """
    W, phi = np.asarray(arrays["W"]), np.asarray(arrays["phi"])
    S, _, N = W.shape
    each = W[:, : len(phi) * N].reshape(S, len(phi), N, N)
    return np.asarray(np.einsum("sbji,b->sij", each, phi.sum(axis=1)))
