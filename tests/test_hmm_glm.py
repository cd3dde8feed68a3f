"""Switching GLM: golden numbers, every path counted, the live node against the whole recording, recovery."""

import dataclasses
import decimal
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rheobase.nodes import _adapt, _em, _glm, _hmm
from rheobase.nodes.hmm_glm import HmmGlm, connectivity
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop
from rheobase.tools.states import network

F = NDArray[np.float64]
NONE = np.zeros((0, 1))


@pytest.fixture
def tiny(golden: Path) -> Any:
    return np.load(golden / "hmmglm_tiny_S3_N4_T60.npz")


@pytest.fixture
def paths(golden: Path) -> Any:
    return np.load(golden / "hmm_enumeration_S3_T8.npz")


def model(tiny: Any, link: str) -> _em.Model:
    W, b = (tiny["in_W"] / 2, tiny["in_b"] - 1) if link == "exp" else (tiny["in_W"], tiny["in_b"])
    full = np.concatenate([W.transpose(0, 2, 1), np.tile(b, (3, 1, 1))], axis=1)
    return _em.Model(full, np.ones((3, 4)), tiny["in_Pi"], np.full(3, 1 / 3))


def seen(X: F, law: int, phi: F, segment: F | None = None) -> _em.Data:
    segment = np.zeros(len(X), int) if segment is None else segment
    return _em.Data(X, _glm.design(X, np.zeros((len(X), 0)), phi, NONE, segment, law), segment)


def drawn(T: int = 300, S: int = 2, N: int = 3, seed: int = 0, stay: float = 0.95) -> tuple[F, NDArray[np.int64]]:
    """Counts (T, N) of neurons whose rates differ a lot between S states, and the states."""
    rng = np.random.default_rng(seed)
    z = np.zeros(T, int)
    for t in range(1, T):
        z[t] = z[t - 1] if rng.random() < stay else rng.integers(S)
    rate = np.exp(rng.normal(0, 1, (S, N)))
    return rng.poisson(rate[z]).astype(float), z


def steps(node: HmmGlm, X: F, rate: float = 10.0, segment: F | None = None) -> Loop:
    """A loop of the node alone that has taken X."""
    loop = Loop([node], [-1], [0])
    names = node.header["in"].get("channels") or tuple(f"x{i}" for i in range(X.shape[1]))
    loop.start(Spec(rate=rate, channels=names))
    loop.process(Block(X, np.arange(len(X)) / rate))
    return loop


@pytest.mark.parametrize("law, link", list(enumerate(["sigmoid", "softplus", "exp"])))
def test_golden_history_rates_emissions_posteriors_and_path(tiny: Any, law: int, link: str) -> None:
    X, m = tiny["in_spikes"], model(tiny, link)
    phi = _glm.exponential(5)
    np.testing.assert_allclose(phi[0], tiny["in_basis"], rtol=0, atol=1e-12)
    data = seen(X, law, phi)
    np.testing.assert_allclose(data.H[:, :4], tiny["out_conv"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(_glm.means(data.H @ m.W, law), tiny[f"out_{link}_rates"], rtol=0, atol=1e-10)
    ell = m.emissions(data, law)
    np.testing.assert_allclose(ell, tiny[f"out_{link}_logemit"], rtol=0, atol=1e-10)
    known = m.posterior(data, law)
    np.testing.assert_allclose(known.gamma, tiny[f"out_{link}_gamma"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(known.filtered, tiny[f"own_{link}_filtered"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(known.likelihood, tiny[f"own_{link}_loglik"], rtol=0, atol=1e-10)
    xi = _hmm.pairwise(ell, m.Pi, known)
    np.testing.assert_allclose(xi, tiny[f"out_{link}_xi"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(known.xi, xi.sum(axis=0), rtol=0, atol=1e-10)
    np.testing.assert_allclose(
        known.xi / known.xi.sum(axis=1, keepdims=True), tiny[f"out_{link}_Pi_new"], rtol=0, atol=1e-10
    )
    np.testing.assert_array_equal(_hmm.viterbi(ell, m.Pi, m.p0), tiny[f"out_{link}_viterbi"])


def test_golden_enumeration_of_all_paths(paths: Any) -> None:
    ell, Pi, p0 = paths["in_logemit"], paths["in_Pi"], paths["in_p0"]
    known = _hmm.posterior(ell, Pi, p0)
    np.testing.assert_allclose(known.gamma, paths["own_enum_gamma"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(known.gamma, paths["out_ref_gamma"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(known.filtered, paths["own_enum_filtered"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(np.cumsum(known.log_p), paths["own_enum_prefix_loglik"], rtol=0, atol=1e-10)
    np.testing.assert_allclose(_hmm.pairwise(ell, Pi, known), paths["out_ref_xi"], rtol=0, atol=1e-10)
    np.testing.assert_array_equal(_hmm.viterbi(ell, Pi, p0), paths["out_ref_viterbi"])
    for t in range(8):
        back, i = min(2, 7 - t), min(t + 2, 7)
        gamma, beta, new = np.zeros(3), np.zeros(3), np.zeros(3)
        e = np.exp(ell - ell.max(axis=1, keepdims=True))
        _hmm.look_back(Pi, known.filtered, e, i, back, gamma, beta, new)
        np.testing.assert_allclose(gamma, paths["own_enum_fixedlag2"][t], rtol=0, atol=1e-10)


@pytest.mark.parametrize("link", ["softplus", "exp", "sigmoid"])
def test_the_stream_is_the_batch(link: str) -> None:
    """Filtered, smoothed by a lag, Viterbi, score and expected counts, with history, covariates and a missing bin."""
    X, _ = drawn(120)
    X = np.minimum(X, 3)
    U = (np.random.default_rng(1).random((120, 1)) < 0.1).astype(float)
    both = np.hstack([X, U])
    node = HmmGlm(states=2, link=link, covariates=1, reach=4, restarts=1, iterations=4, span=3).fit(both)
    both[50] = np.nan
    both[60, 1] = np.nan
    law, a, still = node.law, node.arrays, np.zeros(120, int)
    H = _glm.design(both[:, :3], both[:, 3:], a["phi"], a["psi"], still, law)
    assert H.shape[1] == 3 + 3 + 1
    m, data = _em.Model(a["W"], a["V"], a["Pi"], a["p0"]), _em.Data(both[:, :3], H, still)
    known = m.posterior(data, law)
    live = dataclasses.replace(node, rates=True, enter=0.0).hold(a, node.header["in"], {})
    Y = live.predict(both)
    np.testing.assert_allclose(Y[:, :2], known.filtered, rtol=0, atol=1e-10)
    np.testing.assert_allclose(Y[:, 3], known.log_p, rtol=0, atol=1e-10)
    p = np.vstack([m.p0, known.filtered[:-1] @ m.Pi])
    f = _glm.means(H @ m.W, law)
    np.testing.assert_allclose(Y[:, 4:], np.einsum("ts,stn->tn", p, f), rtol=0, atol=1e-10)
    ell = m.emissions(data, law)
    live.lag = 5
    Y = live.predict(both)
    for t in range(120):
        part = _hmm.posterior(ell[: t + 1], m.Pi, m.p0)
        at = max(0, t - 5)
        np.testing.assert_allclose(Y[t, :2], part.gamma[at], rtol=0, atol=1e-10)
        assert Y[t, 2] == _hmm.viterbi(ell[: t + 1], m.Pi, m.p0)[at]


def test_a_lag_of_the_whole_recording_is_full_smoothing(tiny: Any) -> None:
    X = tiny["in_spikes"]
    node = HmmGlm(states=3, restarts=1, iterations=3, lag=59).fit(X)
    m = _em.Model(*(node.arrays[k] for k in _em.Model._fields))
    gamma = m.posterior(seen(X, node.law, node.arrays["phi"]), node.law).gamma
    np.testing.assert_allclose(node.predict(X)[-1, :3], gamma[0], rtol=0, atol=1e-10)


def test_many_spikes_of_many_neurons_stay_finite_and_are_what_exact_arithmetic_says() -> None:
    rng = np.random.default_rng(0)
    X = rng.poisson(20, (30, 200)).astype(float)
    W = np.log(20 * rng.uniform(0.9, 1.1, (3, 1, 200)))
    m = _em.Model(W, np.ones((3, 200)), np.full((3, 3), 0.1) + 0.7 * np.eye(3), np.full(3, 1 / 3))
    known = m.posterior(seen(X, _glm.EXP, NONE), _glm.EXP)
    decimal.getcontext().prec = 60
    exact = decimal.Decimal
    alpha, total = [1 / exact(3)] * 3, exact(0)
    ell = m.emissions(seen(X, _glm.EXP, NONE), _glm.EXP)
    assert ell.max() < -300, "no emission of a bin is a number as a probability"
    for t in range(30):
        p = alpha if t == 0 else [sum(alpha[i] * exact(m.Pi[i, j]) for i in range(3)) for j in range(3)]
        u = [p[s] * exact(ell[t, s]).exp() for s in range(3)]
        alpha = [v / sum(u) for v in u]
        total += sum(u).ln()
        np.testing.assert_allclose(known.filtered[t], [float(v) for v in alpha], rtol=0, atol=1e-10)
    assert np.isfinite(known.gamma).all()
    np.testing.assert_allclose(known.likelihood, float(total), rtol=1e-12)
    for link, value in itertools.product(("exp", "softplus"), (0.0, 20.0, 1e6)):
        node = HmmGlm(states=2, link=link, history="none", restarts=1, iterations=1).fit(
            np.tile(np.minimum(X, 30), (8, 1))
        )
        Y = node.predict(np.full((20, 200), value))
        assert np.isfinite(Y).all() and np.allclose(Y[:, :2].sum(axis=1), 1)


@pytest.mark.parametrize("emission", ["poisson", "bernoulli", "gaussian"])
def test_each_iteration_raises_the_log_posterior(emission: str) -> None:
    X, _ = drawn(250)
    X = X + np.random.default_rng(2).normal(0, 0.3, X.shape) if emission == "gaussian" else X
    for link, sd, l1 in (("softplus", np.inf, 0.0), ("exp", 1 / 3, 0.0), ("sigmoid", 1 / 3, 3.0)):
        law = _glm.LAWS.index(link if emission == "poisson" else emission)
        data, prior = seen(X, law, _glm.cosines(4, 2)), _em.Prior(sd, l1, _glm.unlinked(X.mean(axis=0), law))
        begin = _em.noisy(_em.one_state(data, prior, law), data, 2, np.random.default_rng(1))
        _, trace = _em.em(data, begin, prior, law, 12)
        assert len(trace) > 4 and trace[-1] - trace[0] > 5
        assert np.diff(trace).min() > -1e-6 * abs(trace[0]), (link, sd, l1)


def test_states_may_be_renamed() -> None:
    X, _ = drawn(150, S=3)
    node = HmmGlm(states=3, restarts=1, iterations=3).fit(X)
    m, data = _em.Model(*(node.arrays[k] for k in _em.Model._fields)), seen(X, node.law, node.arrays["phi"])
    at = np.array([2, 0, 1])
    np.testing.assert_allclose(m.order(at).posterior(data, node.law).gamma, m.posterior(data, node.law).gamma[:, at])


def test_one_state_is_a_glm() -> None:
    """Against Newton's method, written out for one neuron."""
    X, _ = drawn(200)
    node = HmmGlm(states=1, link="exp", span=2).fit(X)
    H = seen(X, _glm.EXP, _glm.exponential(2)).H
    b0 = np.log(X.mean(axis=0))
    for n in range(3):
        w = np.array([0, 0, 0, b0[n]])
        pull = np.array([1 / 9, 1 / 9, 1 / 9, 1 / 4])
        for _ in range(50):
            f = np.exp(H @ w)
            w = w + np.linalg.solve((H.T * f) @ H + np.diag(pull), H.T @ (X[:, n] - f) - pull * (w - [0, 0, 0, b0[n]]))
        np.testing.assert_allclose(node.arrays["W"][0, :, n], w, rtol=0, atol=1e-5)
    assert (node.predict(X)[:, 0] == 1).all()


def test_a_silent_neuron_and_a_state_without_mass_stay_finite() -> None:
    X, _ = drawn(200)
    X[:, 1] = 0
    node = HmmGlm(states=4, link="exp", restarts=1, iterations=20).fit(X)
    assert all(np.isfinite(a).all() for a in node.arrays.values())
    m = _em.Model(*(node.arrays[k] for k in _em.Model._fields))
    prior = _em.Prior(1 / 3, 0.0, np.zeros(3))
    data = seen(X, node.law, node.arrays["phi"])
    gamma = np.zeros((200, 4))
    gamma[:, 0] = 1
    W0 = m.W[:, :-1].mean(axis=0)
    m = _em.improved(data, m, gamma, np.zeros((4, 4)), prior, node.law, {})
    np.testing.assert_allclose(m.W[3, :-1], W0 / (1 + (1 / 3) ** 2 / _glm.WIDE**2), atol=1e-9)
    np.testing.assert_allclose(m.Pi, 0.25)


def test_missing_bins_move_by_the_transitions_alone() -> None:
    X, _ = drawn(80)
    node = HmmGlm(states=2, restarts=1, iterations=5, history="none").fit(X)
    X[40:45] = np.nan
    Y, Pi = node.predict(X), node.arrays["Pi"]
    for t in range(40, 45):
        np.testing.assert_allclose(Y[t, :2], Y[t - 1, :2] @ Pi, rtol=0, atol=1e-12)
        assert abs(Y[t, 3]) < 1e-12
    fitted = HmmGlm(states=2, restarts=1, iterations=5, history="none").fit(X)
    assert np.isfinite(fitted.arrays["W"]).all()


def test_recovers_states_and_keeps_their_labels_in_a_refit() -> None:
    X, z = drawn(500, N=6, seed=3)
    node = HmmGlm(states=2, link="exp", history="none", restarts=2).fit(X)
    Y = node.predict(X)
    order = np.argsort(-np.bincount(z))
    np.testing.assert_array_equal(order, [0, 1] if (z == 0).sum() >= 250 else [1, 0])
    assert (order[Y[:, :2].argmax(axis=1)] == z).mean() > 0.95
    share = np.bincount(Y[:, 2].astype(int)) / 500
    assert share[0] > share[1], "states come in the order of their share"
    flipped = {k: node.arrays[k][[1, 0]] for k in ("W", "V", "p0")} | {"Pi": node.arrays["Pi"][::-1, ::-1].copy()}
    again = HmmGlm(states=2, link="exp", history="none").fit(X[:250], like=node.arrays | flipped)
    assert np.abs(again.arrays["W"] - flipped["W"]).max() < 0.5
    np.testing.assert_array_equal(_hmm.matched(node.arrays["W"], again.arrays["W"]), [1, 0])


def test_hysteresis_enters_a_state_only_when_it_is_sure() -> None:
    X, _ = drawn(300, stay=0.8, seed=5)
    node = HmmGlm(states=2, link="exp", history="none", restarts=1, decide="posterior", enter=0.0).fit(X)
    quick = node.predict(X)
    assert (quick[:, 2] == quick[:, :2].argmax(axis=1)).all()
    node.enter = 0.95
    slow = node.predict(X)
    label = slow[0, 2]
    for y in slow:
        best = y[:2].argmax()
        label = best if y[best] >= 0.95 else label
        assert y[2] == label
    assert (np.diff(slow[:, 2]) != 0).sum() < (np.diff(quick[:, 2]) != 0).sum()


def test_the_number_of_states_is_that_of_the_held_out_likelihood() -> None:
    X, _ = drawn(800, S=2, N=8, seed=1)
    node = HmmGlm(states=None, most=3, link="exp", history="none", restarts=2).fit(X)
    assert node.header["out"]["channels"] == ["p0", "p1"]


def test_bases_are_of_sum_one_and_strictly_past() -> None:
    for phi in (_glm.exponential(4), _glm.cosines(8, 3)):
        np.testing.assert_allclose(phi.sum(axis=1), 1)
    phi = _glm.cosines(12, 3)
    assert (np.diff(phi.argmax(axis=1)) > 0).all() and phi[0].argmax() == 0
    X = np.zeros((6, 1))
    X[1] = 1
    H = _glm.design(X, X, _glm.exponential(2), np.ones((1, 1)), np.array([0, 0, 0, 1, 1, 1]), _glm.EXP)
    np.testing.assert_allclose(H[:, 0], [0, 0, phi_1 := _glm.exponential(2)[0, 0], 0, 0, 0])
    assert phi_1 > 0.7 and H[:, 1].tolist() == X[:, 0].tolist()


def test_connectivity_is_from_the_last_axis_to_the_one_before() -> None:
    X, _, truth = network(states=1, neurons=5, bins=6000, sequences=1, seed=4)
    assert np.abs(truth.W).max() > 0.5 and np.abs(truth.W - truth.W.transpose(0, 2, 1)).max() > 0.5
    for words in ({"history": "exponential"}, {"history": "cosine", "bumps": 1}):
        node = HmmGlm(states=1, link="sigmoid", **words).fit(X[0])
        C = connectivity(node.arrays, node.header)
        assert C.shape == (1, 5, 5)
    node = HmmGlm(states=1, link="sigmoid").fit(X[0])
    assert np.corrcoef(connectivity(node.arrays, node.header).ravel(), truth.W.ravel())[0, 1] > 0.9
    assert connectivity(HmmGlm(states=2, history="none", restarts=1).fit(X[0, :200]).arrays, {}).shape == (2, 5, 5)


def test_forward_only_counts_of_steps_are_those_of_forward_backward(tiny: Any) -> None:
    m = model(tiny, "sigmoid")
    data = seen(tiny["in_spikes"], _glm.SIGMOID, _glm.exponential(5))
    known = m.posterior(data, _glm.SIGMOID)
    rho, new, counted = np.zeros((3, 3, 3)), np.zeros((3, 3, 3)), np.zeros((3, 3))
    for t in range(1, 60):
        _adapt.count_steps(rho, new, known.filtered[t - 1], known.filtered[t], m.Pi, 1.0, 1.0, counted)
    np.testing.assert_allclose(counted, known.xi, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_adapts_to_rates_and_transitions_that_change() -> None:
    """Half way each neuron fires as another did, and states last a fifth as long."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(0, 0.7, (2, 8)))
    other = rate * np.exp(rng.normal(0, 0.4, (2, 8)))
    z, X = np.zeros(24000, int), []
    for t in range(24000):
        stay = 0.98 if t < 6000 else 0.9
        z[t] = z[t - 1] if rng.random() < stay else 1 - z[t - 1]
        X.append(rng.poisson((rate if t < 6000 else other)[z[t]]))
    x = np.array(X, float)
    node = HmmGlm(states=2, link="exp", history="none", restarts=2).fit(x[:6000])
    at = _hmm.matched(np.log(rate)[:, None], node.arrays["W"])
    node.adapt, node.lag = 300.0, 10
    steps(node, x[6000:])
    W = node.state.adapt.W.reshape(1, 2, 8).transpose(1, 0, 2)[at]
    was = np.abs(node.arrays["W"][at][:, 0] - np.log(other)).mean()
    assert np.abs(W[:, 0] - np.log(other)).mean() < 0.25 * was
    assert np.abs(node.state.adapt.Pi.diagonal() - 0.9).max() < 0.03 < np.abs(node.arrays["Pi"].diagonal() - 0.9).min()


def test_what_adapts_begins_as_what_does_not_and_survives_a_gap() -> None:
    X, _ = drawn(200)
    node = HmmGlm(states=2, restarts=1, iterations=5).fit(X)
    still = node.predict(X)
    node.header["in"]["rate"] = 10.0
    node.adapt = 1e9
    loop = steps(node, X)
    W = node.state.adapt.W.copy()
    assert np.abs(W - node.params.W).max() < 1e-5
    loop.process(Block(X[:1], np.array([1000.0]), 0, 1))
    assert node.state.at[3] == 1, "the chain begins anew"
    assert np.abs(node.state.adapt.W - W).max() < 1e-6, "the weights stay"
    np.testing.assert_allclose(node.state.alphas[0, :2], still[0, :2], atol=1e-5)


def test_says_what_is_wrong() -> None:
    X, _ = drawn(100)
    for words, text in (
        (dict(prior="onehot", history="cosine"), "prior: one weight from neuron to neuron"),
        (dict(lag=-1), "lag: must not be below 0"),
        (dict(covariates=3), "covariates: 3 of 3 channels leave no neuron"),
    ):
        with pytest.raises(StreamError, match=text):
            HmmGlm(states=2, **words).fit(X)
    with pytest.raises(StreamError, match="takes counts"):
        HmmGlm(states=2).fit(X - 1)
    node = HmmGlm(states=2, restarts=1, iterations=1).fit(X)
    node.adapt = 5.0
    with pytest.raises(StreamError, match="adapt: needs bins of a regular"):
        node.predict(X)
    node.adapt = 0.05
    node.header["in"]["rate"] = 10.0
    with pytest.raises(StreamError, match=r"adapt: .* less than a bin"):
        node.predict(X)


@pytest.mark.slow
def test_the_network_of_the_paper_is_found() -> None:
    """S = 5, N = 20 as in Li et al., a fifth of the data: smoothed states nearly as the true model tells them."""
    X, z, truth = network(seed=0, bins=2500, sequences=6)
    node = HmmGlm(states=5, link="sigmoid", lag=10).fit(X[:4].reshape(-1, 20), segment=np.repeat(np.arange(4), 2500))
    order = _hmm.matched(truth.W, connectivity(node.arrays, {}))
    Y = node.predict(X[4:].reshape(-1, 20), segment=np.repeat([0, 1], 2500))
    late = Y[:, order].argmax(axis=1).reshape(2, 2500)[:, 10:]
    assert (late == z[4:, :-10]).mean() > 0.97


@pytest.mark.parametrize("M", [1, 3, 70])
@pytest.mark.parametrize("law", range(len(_glm.LAWS)))
def test_fisher_information_is_the_sum_over_samples(M: int, law: int) -> None:
    rng = np.random.default_rng(M)
    T, N = _glm.ROWS + 700, 2
    H, g = np.hstack([rng.standard_normal((T, M - 1)), np.ones((T, 1))]), rng.random(T)
    X, W, v = rng.integers(0, 2, (T, N)).astype(float), 0.1 * rng.standard_normal((M, N)), np.array([0.5, 2.0])
    X[rng.random((T, N)) < 0.1] = np.nan
    G, J = _glm.uphill(X, H, g, W, v, law), _glm.information(X, H, g, W, v, law)
    f = _glm.means(H @ W, law)
    up, weight = _glm.gradients(np.nan_to_num(X), f, _glm.slopes(H @ W, f, law), v, law)
    there = g[:, None] * np.isfinite(X)
    np.testing.assert_allclose(G, np.einsum("tm,tn->mn", H, there * up), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(J, np.einsum("tn,ti,tj->nij", there * weight, H, H, optimize=True), rtol=1e-9, atol=1e-9)


def test_values_are_learnt_in_any_unit_and_a_channel_that_stands_still_tells_nothing() -> None:
    rng = np.random.default_rng(0)
    z = np.repeat(np.arange(40) % 2, 25)
    X = np.array([[0.0, 1, 2], [1.5, -1, 1]])[z] + 0.5 * rng.standard_normal((1000, 3))
    node = HmmGlm(states=2, emission="gaussian", restarts=2)
    plain = node.fit(X).predict(X)[:, 2]
    assert max(np.mean(plain == z), np.mean(plain != z)) > 0.95
    for factor in (1e-6, 1e5):
        np.testing.assert_array_equal(node.fit(factor * X).predict(factor * X)[:, 2], plain)
    still = np.column_stack([X, np.full(1000, 0.1)])
    found = node.fit(still).predict(still)[:, 2]
    assert max(np.mean(found == z), np.mean(found != z)) > 0.95


def test_a_refit_of_values_goes_on_from_where_the_first_ended() -> None:
    rng = np.random.default_rng(1)
    X = 1000 * (np.repeat(np.arange(20) % 2, 50)[:, None] + 0.3 * rng.standard_normal((1000, 2)))
    node = HmmGlm(states=2, emission="gaussian", restarts=2)
    first = node.fit(X).arrays
    again = node.fit(X, like=first).arrays
    np.testing.assert_allclose(again["W"], first["W"], rtol=0.02, atol=5)
    assert len(again["trace"]) <= 4


def test_a_bin_that_is_impossible_in_every_state_does_not_stop_the_path() -> None:
    X, _ = drawn(200)
    node = HmmGlm(states=2, link="exp", restarts=1).fit(X)
    broken = X.copy()
    broken[50] = 1e305
    labels, clean = node.predict(broken)[:, 2], node.predict(X)[:, 2]
    assert np.mean(labels[60:] == clean[60:]) > 0.98
