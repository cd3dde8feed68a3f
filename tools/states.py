"""Studies of brain states and of jump processes: `python -m rheobase.tools.states NAME`, numbers with their baselines.

demo      the network of Li, Li, Wu (ICLR 2024) found again from its spikes: states, likelihood, weights, connections
insula    states of a rat's insula by the likelihood of held-out time, with and without coupling and events
ratchet   rates of a flashing ratchet from paths seen now and then
channel   rates of an ion channel against the dwell times of the file that it comes from
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.nodes import _em, _glm, _hmm, _jumps, _onehot
from rheobase.nodes.hmm_glm import HmmGlm, connectivity
from rheobase.stream.files import find

F = NDArray[np.float64]
OUT = rich.console.Console(width=None if sys.stdout.isatty() else 160)


@dataclasses.dataclass
class Network:
    """W (S, N, N) from the last axis to the one before, b (N,), Pi (S, S); kinds (S, N, N): -1, 0, 1; a0 (N, N, 3)."""

    W: F
    b: F
    Pi: F
    kinds: F
    a0: F


def network(
    states: int = 5, neurons: int = 20, bins: int = 5000, sequences: int = 20, seed: int = 0
) -> tuple[F, NDArray[np.int64], Network]:
    """Counts (Q, T, N) and states (Q, T) of the generator of Li et al., in the form of their notebook: connections
    drawn for each state from probabilities that the states share, strengths log(1 + 3 u), a sigmoid link.
    """
    rng = np.random.default_rng(seed)
    S, N, T = states, neurons, bins
    a0 = rng.dirichlet((0.2, 1.6, 0.2), (N, N))
    kinds = (rng.random((S, N, N, 1)) > np.cumsum(a0, axis=-1)).sum(axis=-1) - 1.0
    W = kinds * np.log(1 + 3 * rng.random((S, N, N)))
    b = 0.1 * (rng.random(N) - 0.5)
    Pi = np.full((S, S), 0.005) + (1 - 0.005 * S) * np.eye(S)
    z = np.zeros((sequences, T), np.int64)
    z[:, 0] = rng.integers(S, size=sequences)
    for t in range(1, T):
        z[:, t] = (rng.random((sequences, 1)) > np.cumsum(Pi[z[:, t - 1]], axis=1)).sum(axis=1).clip(0, S - 1)
    phi, X = _glm.exponential(5)[0], np.zeros((sequences, T, N))
    for t in range(T):
        h = np.zeros((sequences, N))
        for k in range(min(5, t)):
            h += phi[k] * X[:, t - 1 - k]
        u = np.einsum("qij,qj->qi", W[z[:, t]], h) + b
        X[:, t] = rng.poisson(1 / (1 + np.exp(-u)))
    return X, z, Network(W, b, Pi, kinds, a0)


def halves(seed: int) -> tuple[_em.Data, _em.Data, NDArray[np.int64], float, Network]:
    """Of a network, sequences to learn from, as many to test, the states (T,) of these, and their log-likelihood under
    the mean rates of what is learnt; and the network."""
    X, z, truth = network(seed=seed)
    half = len(X) // 2

    def data(part: F) -> _em.Data:
        x, at = part.reshape(-1, X.shape[2]), np.repeat(np.arange(len(part)), X.shape[1])
        return _em.Data(x, _glm.design(x, x[:, :0], _glm.exponential(5), np.zeros((0, 1)), at, _glm.SIGMOID), at)

    learn, test = data(X[:half]), data(X[half:])
    mean = learn.X.mean(axis=0)
    base = float((test.X * np.log(mean) - mean).sum() + _glm.constants(test.X, _glm.SIGMOID).sum())
    return learn, test, z[half:].ravel(), base, truth


def demo(trials: int = 3) -> None:
    """Train on the first half of the sequences of each trial, test on the rest."""
    rows: dict[str, list[dict[str, float]]] = {}
    for trial in range(trials):
        learn, data, zt, base, truth = halves(trial)
        N = data.X.shape[1]
        S = len(truth.W)
        true = np.concatenate([truth.W.transpose(0, 2, 1), np.tile(truth.b, (S, 1, 1))], axis=1)
        oracle = _em.Model(true, np.ones((S, N)), truth.Pi, np.full(S, 1 / S))
        rows.setdefault("the true model", []).append(scores_of(oracle, data, zt, base))
        for prior in ("gaussian", "onehot"):
            began = time.process_time()
            node = HmmGlm(states=S, link="sigmoid", prior=prior).fit(learn.X, segment=learn.segment)
            took = time.process_time() - began
            order = _hmm.matched(truth.W, connectivity(node.arrays, {}))
            m = _em.Model(*(node.arrays[k] for k in _em.Model._fields)).order(order)
            kinds = node.arrays["kinds"][order] if prior == "onehot" else None
            told = (
                scores_of(m, data, zt, base) | _weights(m, kinds, node.arrays.get("a0"), truth) | {"fit, CPU s": took}
            )
            rows.setdefault(f"EM, {prior} prior", []).append(told)
            if prior == "gaussian":
                p = _em.Prior(1 / 3, 0.0, _glm.unlinked(learn.X.mean(axis=0), _glm.SIGMOID))
                loose, q, a0 = _onehot.relaxed(learn, m, p, _glm.SIGMOID)
                told = scores_of(loose, data, zt, base) | _weights(loose, q, a0, truth)
                rows.setdefault("  then Gumbel-softmax, gradient", []).append(told)
        show(f"network of 5 states and 20 neurons: mean of {trial + 1} trials", rows)


def scores_of(m: _em.Model, data: _em.Data, z: NDArray[np.int64], base: float, lag: int = 10) -> dict[str, float]:
    """How well a model tells the states, filtered, `lag` bins later, from all; and nats a bin above Poisson rates."""
    ell = m.emissions(data, _glm.SIGMOID)
    known = _hmm.posterior(ell, m.Pi, m.p0, data.segment)
    e = np.exp(ell - ell.max(axis=1, keepdims=True))
    S, right = len(m.Pi), 0
    gamma, beta, new = np.zeros(S), np.zeros(S), np.zeros(S)
    ends = np.searchsorted(data.segment, data.segment, side="right") - 1
    for t in range(len(z)):
        last = min(t + lag, ends[t])
        _hmm.look_back(m.Pi, known.filtered, e, last, last - t, gamma, beta, new)
        right += int(gamma.argmax() == z[t])
    return {
        "smoothed %": 100 * float((known.gamma.argmax(axis=1) == z).mean()),
        "filtered %": 100 * float((known.filtered.argmax(axis=1) == z).mean()),
        f"lag {lag} %": 100 * right / len(z),
        "nats/bin": (known.likelihood - base) / len(z),
    }


def _weights(m: _em.Model, kinds: F | None, a0: F | None, truth: Network) -> dict[str, float]:
    """Errors of weights, and how many connections have the right sign (mean over the three kinds). Of a Gaussian prior
    a weight below 0.2 counts as none."""
    W = m.W[:, :-1].transpose(0, 2, 1)
    told = {"mean |dW|": float(np.abs(W - truth.W).mean()), "|dW|": float(np.linalg.norm(W - truth.W))}
    found = np.where(np.abs(W) < 0.2, 0, np.sign(W)) if kinds is None else kinds.argmax(axis=-1) - 1
    told["kinds %"] = 100 * balanced(found, truth.kinds)
    if kinds is not None and a0 is not None:
        told["a0 %"] = 100 * float((a0.argmax(axis=-1) == truth.a0.argmax(axis=-1)).mean())
        lifted = (a0 / kinds.mean(axis=(0, 1, 2))).argmax(axis=-1) - 1
        told["a0 balanced %"] = 100 * balanced(lifted, truth.a0.argmax(axis=-1) - 1)
    return told


def balanced(found: Any, true: Any) -> float:
    """Share of right answers, mean over the kinds -1, 0, 1."""
    return float(np.mean([(found[true == k] == k).mean() for k in (-1, 0, 1)]))


FORMS: dict[str, dict[str, Any]] = {
    "alone": {"history": "none"},
    "events": {"history": "none", "reach": 20, "bumps": 4},
    "coupling": {"history": "exponential", "sd": 0.1},
    "both": {"history": "exponential", "sd": 0.1, "reach": 20, "bumps": 4},
}
"""What states are made of. sd of coupling: of 1/3, 0.1 and 0.03 the best for the last fifth of what is learnt from."""


def insula(most: int = 4, forms: Iterable[str] = tuple(FORMS), seeds: int = 2) -> None:
    """First 70 % of the time to learn from, the rest to test; 50 ms bins. Of the seeds of each number of states, the
    gain of the likeliest fit, and the Rand index of the likeliest two."""
    from rheobase.devices.replay import Replay

    parts = []
    for field in ("Nrast", "Erast"):
        source = Replay(file="data:insula_glmhmm/insula.mat", events="RAW", times=field, rate=20)
        source.start()
        parts.append([np.concatenate(v) for v in zip(*((b.times, b.data) for b in source.blocks()), strict=True)])
    (t, X), (te, events) = parts
    U = np.zeros((len(t), events.shape[1]))
    at = np.round((te - t[0]) * 20).astype(int)
    inside = (at >= 0) & (at < len(t))
    U[at[inside]] = events[inside]
    both, cut = np.hstack([X, U]).astype(float), int(0.7 * len(t))
    rows: dict[str, list[dict[str, float]]] = {}
    for form in forms:
        C, one = U.shape[1] if "reach" in FORMS[form] else 0, np.nan
        x = both[:, : X.shape[1] + C]
        for S in range(1, most + 1):
            fits: list[tuple[float, NDArray[np.int64], float]] = []
            for seed in range(seeds if S > 1 else 1):
                node = HmmGlm(states=S, link="exp", seed=seed, iterations=100, covariates=C, **FORMS[form])
                node.fit(x[:cut])
                Y = node.predict(x)
                fits.append((float(Y[cut:, S + 1].sum()), Y[:cut, :S].argmax(axis=1), node.arrays["trace"][-1]))
                fits.sort(key=lambda f: -f[2])
                one = fits[0][0] if S == 1 else one
                told = {"bits/spike": (fits[0][0] - one) / np.log(2) / X[cut:].sum()}
                if len(fits) > 1:
                    told |= {"Rand": rand(fits[0][1], fits[1][1]), "nats apart": fits[0][2] - fits[1][2]}
                rows[f"{form}, {S}, {seed + 1} seeds"] = [told]
                show("insula: gain over one state in held-out time; adjusted Rand index of the two likeliest", rows)


def rand(a: Any, b: Any) -> float:
    """Adjusted Rand index of two labellings (Hubert, Arabie, J Classif 2:193, 1985): 1 the same, 0 by chance."""
    n = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(n, (a, b), 1)

    def two(v: F) -> float:
        return float((v * (v - 1) / 2).sum())

    rows, columns = two(n.sum(axis=1)), two(n.sum(axis=0))
    chance = rows * columns / two(n.sum(keepdims=True).ravel())
    return (two(n) - chance) / (0.5 * (rows + columns) - chance)


def ratchet(V: float = 1.0, r: float = 1.0, b: float = 1.0) -> F:
    """Q (6, 6) of the discrete flashing ratchet: three places on a potential of slope V that is on (0-2: from i to j at
    exp(-V (j - i) / 2)) or off (3-5: at b), and goes on and off at r.
    """
    Q = np.zeros((6, 6))
    i, j = np.nonzero(~np.eye(3, dtype=bool))
    Q[i, j], Q[i + 3, j + 3] = np.exp(-V * (j - i) / 2), b
    Q[[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]] = r
    return _jumps.generator(Q)


def paths(Q: F, n: int, times: F, rng: np.random.Generator) -> NDArray[np.int64]:
    """States (n, T) of n paths at these times, each from a state drawn at random."""
    z = rng.integers(len(Q), size=n)
    rest = -Q.diagonal()
    jump = np.cumsum(np.where(np.eye(len(Q), dtype=bool), 0, Q) / rest[:, None], axis=1)
    next_, found = rng.exponential(1 / rest[z]), np.empty((n, len(times)), np.int64)
    for k, t in enumerate(times):
        while (late := next_ <= t).any():
            z[late] = (rng.random((late.sum(), 1)) > jump[z[late]]).sum(axis=1).clip(0, len(Q) - 1)
            next_[late] += rng.exponential(1 / rest[z[late]])
        found[:, k] = z
    return found


def flashing() -> None:
    """100 looks at each path over 2.5 s; error of the 30 rates, mean of 5 draws."""
    Q, times, apart = ratchet(), np.linspace(0, 2.5, 100), ~np.eye(6, dtype=bool)
    rows: dict[str, list[dict[str, float]]] = {}
    for n in (30, 100, 300, 1000, 5000):
        for seed in range(5):
            z = paths(Q, n, times, np.random.default_rng(seed))
            N = np.zeros((1, 6, 6))
            np.add.at(N[0], (z[:, :-1], z[:, 1:]), 1)
            began = time.process_time()
            found = _jumps.em(times[1:2], N)[0]
            took = time.process_time() - began
            prior = _jumps.em(times[1:2], N, a0=0.5, b0=0.5)[0]
            error, held = (float(np.sqrt(((q - Q)[apart] ** 2).mean())) for q in (found, prior))
            rows.setdefault(f"{n} paths", []).append({"EM": error, "EM, 0.5 jumps in 0.5 s": held, "CPU s": took})
    show("flashing ratchet: RMSE of rates", rows)


def channel() -> None:
    """Open or shut, looked at every so often, against the dwell times of the file (simulated, shorter ones than 30 us
    left out by its authors)."""
    lasts, is_open = dwells(find("data:ion_channel/simC.scn").read_bytes())
    true = np.array([1 / lasts[is_open].mean(), 1 / lasts[~is_open].mean()])
    share = lasts[is_open].sum() / lasts.sum()
    rows = {"the file": [{"opens/s": true[1], "shuts/s": true[0], "open %": 100 * share}]}
    edges, rng = np.cumsum(lasts), np.random.default_rng(0)
    for step, kept in ((5e-6, 1.0), (1e-5, 1.0), (5e-5, 1.0), (1e-5, 0.5)):
        times = np.arange(0, edges[-1], step)
        times = times[rng.random(len(times)) < kept] if kept < 1 else times
        z = is_open[np.searchsorted(edges, times, side="right").clip(0, len(lasts) - 1)].astype(int)
        d, N = _jumps.pairs(times, z, 2, step, 100)
        Q = _jumps.em(d, N)[0]
        told = {"opens/s": Q[0, 1], "shuts/s": Q[1, 0], "open %": 100 * _jumps.stationary(Q)[1]}
        rows[f"every {step * 1e6:g} us" + (", half of them missing" if kept < 1 else "")] = [told]
    show(f"ion channel, {len(lasts)} intervals", rows)


def dwells(raw: bytes) -> tuple[F, NDArray[np.bool_]]:
    """Dwell times, s, of an SCN file (version -103: intervals in ms as float32, amplitudes as int16), and which of them
    are open."""
    version, offset, n = np.frombuffer(raw, "<i4", 3)
    assert version == -103, "another version of SCN"
    lasts = np.frombuffer(raw, "<f4", n, offset - 1).astype(float) / 1000
    return lasts, np.frombuffer(raw, "<i2", n, offset - 1 + 4 * n) != 0


def show(title: str, rows: dict[str, list[dict[str, float]]]) -> None:
    """Print a table of means."""
    columns = list(dict.fromkeys(k for each in rows.values() for row in each for k in row))
    table = rich.table.Table("", *columns, title=title)
    for name, each in rows.items():
        table.add_row(name, *(f"{np.mean([row[c] for row in each]):.4g}" if c in each[0] else "" for c in columns))
    OUT.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=["demo", "insula", "ratchet", "channel"])
    parser.add_argument("--trials", type=int, default=3, help="of demo")
    parser.add_argument("--most", type=int, default=4, help="states of insula")
    parser.add_argument("--forms", nargs="*", choices=list(FORMS), default=list(FORMS), help="of insula (all)")
    parser.add_argument("--seeds", type=int, default=2, help="fits of each number of states of insula")
    given = parser.parse_args()
    if given.study == "demo":
        demo(given.trials)
    elif given.study == "insula":
        insula(given.most, given.forms, given.seeds)
    elif given.study == "ratchet":
        flashing()
    else:
        channel()


if __name__ == "__main__":
    main()
