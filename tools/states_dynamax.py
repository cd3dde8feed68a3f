"""`python -m rheobase.tools.states_dynamax`: the networks of `rheobase.tools.states demo`, fitted by dynamax.

dynamax (Linderman et al., JOSS 2025) has HMMs of many kinds, and no HMM-GLM: its Poisson HMM, and an HMM-GLM as its
users write one, a class of emissions whose M step is its own gradient descent. EM of 40 iterations, from the one of
two draws that ends with the highest likelihood of what is learnt; the same histories, link and scores as ours.
Needs `pip install dynamax`, which is not among our dependencies.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rheobase.nodes import _em, _glm, _hmm
from rheobase.tools.states import Network, halves, scores_of, show

F = NDArray[np.float64]
ITERATIONS, DRAWS = 40, 2
STEP, STEPS = 0.05, 25
"""Of the M step of the HMM-GLM: Adam."""


class Weights(NamedTuple):
    """Of the emissions: (S, M, N)."""

    W: Any


def model(kind: str, S: int, N: int, bias: F) -> Any:
    """A model of dynamax: "poisson", or "glm", with inputs h (M = N + 1) and W (S, M, N)."""
    import jax.numpy as jnp
    import jax.random as jr
    import optax
    import tensorflow_probability.substrates.jax.distributions as tfd
    from dynamax.hidden_markov_model import PoissonHMM
    from dynamax.hidden_markov_model.models.abstractions import HMM, HMMEmissions
    from dynamax.hidden_markov_model.models.initial import StandardHMMInitialState
    from dynamax.hidden_markov_model.models.poisson_hmm import ParamsPoissonHMM  # initial, transitions, emissions
    from dynamax.hidden_markov_model.models.transitions import StandardHMMTransitions
    from dynamax.parameters import ParameterProperties

    if kind == "poisson":
        return PoissonHMM(S, N)

    class Emissions(HMMEmissions):  # type: ignore[misc]
        num_states, emission_shape = S, (N,)

        def distribution(self, params: Any, state: Any, inputs: Any = None) -> Any:
            f = _glm.LEAST + (1 - _glm.LEAST) / (1 + jnp.exp(-inputs @ params.W[state]))
            return tfd.Independent(tfd.Poisson(f), reinterpreted_batch_ndims=1)

        def initialize(self, key: Any = None, method: str = "prior", **more: Any) -> Any:
            W = 0.3 * jr.normal(key, (S, N + 1, N))
            return Weights(W.at[:, -1].set(jnp.asarray(bias))), Weights(ParameterProperties())

        def log_prior(self, params: Any) -> Any:
            return -0.5 * (params.W**2).sum()  # of standard deviation 1, as the authors of the HMM-GLM have it

    class Glm(HMM):  # type: ignore[misc]
        inputs_shape = (N + 1,)

        def __init__(self) -> None:
            super().__init__(
                S, StandardHMMInitialState(S), StandardHMMTransitions(S), Emissions(optax.adam(STEP), STEPS)
            )

        def initialize(self, key: Any) -> Any:
            one, two, three = jr.split(key, 3)
            each = [
                self.initial_component.initialize(one),
                self.transition_component.initialize(two),
                self.emission_component.initialize(three),
            ]
            return ParamsPoissonHMM(*(p for p, _ in each)), ParamsPoissonHMM(*(q for _, q in each))

    return Glm()


def fitted(kind: str, data: _em.Data, truth: Network) -> tuple[_em.Model, float]:
    """The best of the draws as a model of ours, and the CPU time of all, s."""
    import jax.numpy as jnp
    import jax.random as jr

    S, N = len(truth.W), data.X.shape[1]
    sequences = int(data.segment[-1]) + 1
    X, H = data.X.reshape(sequences, -1, N), data.H.reshape(sequences, -1, N + 1)
    bias = _glm.unlinked(X.mean(axis=(0, 1)), _glm.SIGMOID)
    began, best, at = time.process_time(), -np.inf, None
    for draw in range(DRAWS):
        m = model(kind, S, N, bias)
        params, props = m.initialize(jr.PRNGKey(draw))
        if kind == "poisson":  # its own start ends in one state: rates about the mean instead
            rates = X.mean(axis=(0, 1)) * np.random.default_rng(draw).uniform(0.7, 1.3, (S, N))
            params = params._replace(emissions=params.emissions._replace(rates=jnp.asarray(rates)))
        inputs = {"inputs": jnp.asarray(H)} if kind == "glm" else {}
        params, trace = m.fit_em(params, props, jnp.asarray(X), num_iters=ITERATIONS, verbose=False, **inputs)
        if float(trace[-1]) > best:
            best, at = float(trace[-1]), params
    assert at is not None
    took = time.process_time() - began
    if kind == "glm":
        W = np.asarray(at.emissions.W, float)
    else:
        W = np.zeros((S, N + 1, N))
        W[:, -1] = _glm.unlinked(np.asarray(at.emissions.rates, float), _glm.SIGMOID)
    Pi, p0 = np.asarray(at.transitions.transition_matrix, float), np.asarray(at.initial.probs, float)
    return _em.Model(W, np.ones((S, N)), Pi / Pi.sum(axis=1, keepdims=True), p0 / p0.sum()), took


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="states_dynamax", description="dynamax beside us, on the same networks.")
    parser.add_argument("--trials", type=int, default=3, metavar="N", help="networks drawn (3)")
    given = parser.parse_args(argv)
    try:
        import dynamax  # noqa: F401
        import jax
    except ImportError:
        print("states_dynamax: this needs dynamax: .venv/bin/pip install dynamax", file=sys.stderr)
        return 1
    jax.config.update("jax_enable_x64", True)
    rows: dict[str, list[dict[str, float]]] = {}
    for trial in range(given.trials):
        learn, test, zt, base, truth = halves(trial)
        for kind, word in (("poisson", "dynamax, Poisson HMM"), ("glm", "dynamax, HMM-GLM by gradient")):
            m, took = fitted(kind, learn, truth)
            found = m.posterior(test, _glm.SIGMOID).gamma.argmax(axis=1)
            one = np.eye(len(m.Pi))  # of a state in a bin; these differ least where most bins are right
            m = m.order(_hmm.matched(one[:, zt], one[:, found]))
            rows.setdefault(word, []).append(scores_of(m, test, zt, base) | {f"fit of {DRAWS}, CPU s": took})
        show(f"network of 5 states and 20 neurons: mean of {trial + 1} trials", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
