"""The one-hot prior: golden pieces, its gradient, connections found again."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rheobase.nodes import _em, _glm, _onehot
from rheobase.nodes.hmm_glm import HmmGlm
from rheobase.tools.states import network


def test_golden_gumbel_softmax_density(golden: Path) -> None:
    d = np.load(golden / "gumbel_softmax_density.npz")
    for k, tau in enumerate(d["in_tau"]):
        found = _onehot.log_gumbel_softmax(d["in_x"], d["in_a0"], tau)
        np.testing.assert_allclose(found, d[f"out_tau{k}"], rtol=0, atol=1e-10)


def test_the_density_is_one() -> None:
    """Summed over the simplex, in coordinates that reach into its corners."""
    v = np.linspace(-30, 30, 401)
    z = np.stack([*np.meshgrid(v, v), np.zeros((401, 401))], axis=-1)
    a = _onehot.softmax(z)
    for tau in (0.5, 1.0):
        log_p = _onehot.log_gumbel_softmax(a, np.array([0.2, 0.5, 0.3]), tau) + np.log(a).sum(axis=-1)
        np.testing.assert_allclose(np.exp(log_p).sum() * 0.15**2, 1, atol=1e-3)


def test_golden_pieces_of_the_priors(golden: Path) -> None:
    d = np.load(golden / "onehot_gauss_prior_pieces.npz")
    logits, raw = d["in_adj_logits"], d["in_strength_raw"]
    np.testing.assert_allclose(np.logaddexp(0, raw), d["out_strength"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(_onehot.weights(logits, raw), d["out_weight_softmax"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(_onehot.weights(logits, raw, hard=True), d["out_weight_hard"], rtol=0, atol=1e-10)
    a, a0 = _onehot.softmax(logits), _onehot.softmax(d["in_prior_logits"])
    paper = _onehot.log_gumbel_softmax(a, a0, 0.2).sum()
    np.testing.assert_allclose(paper, d["own_prior_ll_paper"], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(a.argmax(axis=-1) - 1, d["out_adjacency_index"])
    W = d["in_gW"]
    np.testing.assert_allclose(_em.shared(W), d["out_gauss_W0"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        _em.log_gaussian(W, _em.shared(W), float(d["out_gauss_std"])), d["out_gauss_prior_ll"], rtol=0, atol=1e-10
    )


def test_the_gradient_is_that_of_the_score() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 3, 4, 4))
    about = SimpleNamespace(J=root @ root.transpose(0, 1, 3, 2), lin=rng.normal(size=(2, 3, 4)))
    about.slope = lambda w: _onehot.Quadratic.slope(about, w)  # type: ignore[arg-type]
    z = [rng.normal(size=s) for s in ((2, 3, 3, 3), (2, 3, 3), (3, 3, 3), (2, 3))]
    found = _onehot.relaxed_gradient(about, z, 0.3)  # type: ignore[arg-type]
    for k in range(4):
        for at in list(np.ndindex(z[k].shape))[::5]:
            score = []
            for sign in (1, -1):
                moved = [a.copy() for a in z]
                moved[k][at] += sign * 1e-5
                score.append(_onehot.relaxed_score(about, moved, 0.3))  # type: ignore[arg-type]
            np.testing.assert_allclose(found[k][at], (score[0] - score[1]) / 2e-5, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_finds_connections_and_better_weights_than_a_gaussian_prior() -> None:
    X, _, truth = network(states=2, neurons=8, bins=3000, sequences=4, seed=1)
    x, segment = X.reshape(-1, 8), np.repeat(np.arange(4), 3000)
    found = {}
    for prior in ("gaussian", "onehot"):
        node = HmmGlm(states=2, link="sigmoid", prior=prior, restarts=2).fit(x, segment=segment)
        W = node.arrays["W"][:, :-1].transpose(0, 2, 1)
        at = [0, 1] if np.abs(W - truth.W).mean() < np.abs(W[::-1] - truth.W).mean() else [1, 0]
        found[prior] = np.abs(W[at] - truth.W).mean()
        if prior == "onehot":
            kinds = node.arrays["kinds"][at].argmax(axis=-1) - 1
            assert np.mean([(kinds[truth.kinds == k] == k).mean() for k in (-1, 0, 1)]) > 0.8
    assert found["onehot"] < 0.7 * found["gaussian"]
    m = _em.Model(*(node.arrays[k] for k in _em.Model._fields))
    data = _em.Data(x, _glm.design(x, np.zeros((len(x), 0)), node.arrays["phi"], np.zeros((0, 1)), segment, 0), segment)
    loose, q, a0 = _onehot.relaxed(data, m, _em.Prior(1 / 3, 0, np.zeros(8)), 0, steps=100)
    assert np.isfinite(loose.W).all() and q.shape == (2, 8, 8, 3) and np.allclose(a0.sum(axis=-1), 1)


def test_covariates_have_the_plain_prior() -> None:
    """One of an event that is never seen, too; and one neuron alone has a connection to itself."""
    rng = np.random.default_rng(0)
    event = (np.arange(1000) % 50 < 10).astype(float)
    X = rng.poisson(np.exp(-1.0 + 1.2 * event)[:, None], (1000, 3)).astype(float)
    node = HmmGlm(states=1, link="exp", prior="onehot", covariates=2).fit(np.column_stack([X, event, 0 * event]))
    W = node.arrays["W"][0]
    assert np.isfinite(W).all()
    np.testing.assert_allclose(W[3], 1.2, atol=0.25)
    np.testing.assert_allclose(W[5], -1.0, atol=0.25)
    assert np.isfinite(HmmGlm(states=1, link="exp", prior="onehot").fit(X[:, :1]).arrays["W"]).all()
