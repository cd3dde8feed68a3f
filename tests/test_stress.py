"""Nodes that disturb a stream on purpose: seeded, with a truth, the identity where there is nothing to do; and the
table of `rheo stress`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.nodes._chance import below, chance, uniform
from rheobase.nodes.channel_swap import ChannelSwap
from rheobase.nodes.dropout import Dropout
from rheobase.nodes.gain_step import GainStep
from rheobase.nodes.jitter import Jitter
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.regime import Regime
from rheobase.stream.block import Spec, StreamError, numbered
from rheobase.stream.cli import main
from rheobase.stream.fuse import apply
from rheobase.stream.node import Kernel
from rheobase.tools.scores import nrmse

N, C = 4000, 5
SPEC = Spec(rate=100, channels=numbered("x", C))


def noise(n: int = N) -> np.ndarray:
    return np.random.default_rng(8).standard_normal((n, C))


def run(node: Kernel, x: np.ndarray) -> np.ndarray:
    return np.asarray(apply(node, x, SPEC).data)


def test_chance_is_even_and_known() -> None:
    """The first numbers by the paper's recurrence, in exact integers; then the moments of many."""
    s = chance(3)
    a, b = map(int, s)
    for _ in range(5):
        a, b = a * 40014 % 2147483563, b * 40692 % 2147483399
        z = a - b
        assert uniform(s) == (z if z > 0 else z + 2147483562) / 2147483563.0
    u = np.array([uniform(s) for _ in range(N)])
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 3 / np.sqrt(12 * N)
    assert abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 3 / np.sqrt(N)
    assert {below(s, 4) for _ in range(200)} == {0, 1, 2, 3}


NOTHING: list[Kernel] = [
    Dropout(p=0), Dropout(p=1, share=0), ChannelSwap(p=0), GainStep(p=0), GainStep(p=1, size=1), Jitter(p=0),
    Jitter(p=0, reorder=True), Regime(angle=0), Regime(at=1e9),
]  # fmt: skip


@pytest.mark.parametrize("node", NOTHING, ids=repr)
def test_nothing_to_do_is_the_identity(node: Kernel) -> None:
    x = noise(200)
    x[20, 1], x[30, 2], x[40, 3] = np.nan, -np.inf, -0.0
    assert run(node, x).tobytes() == x.tobytes()


SOME: list[tuple[type[Kernel], dict[str, Any]]] = [
    (Dropout, {"p": 0.3, "length": 4, "share": 0.5, "fill": "random"}),
    (ChannelSwap, {"p": 0.01}),
    (GainStep, {"p": 0.01}),
    (Jitter, {"p": 0.4}),
    (Regime, {"at": 3, "every": 2}),
]


@pytest.mark.parametrize("kind, values", SOME)
def test_a_seed_says_all_and_the_truth_disturbs_nothing(kind: type[Kernel], values: dict[str, Any]) -> None:
    x = noise()
    y, same, other = (run(kind.make(**values, seed=s), x) for s in (7, 7, 13))
    with_truth = run(kind.make(**values, seed=7, truth=True), x)
    assert y.tobytes() == same.tobytes() == np.ascontiguousarray(with_truth[:, :C]).tobytes()
    assert y.tobytes() != other.tobytes()
    untouched = (y == x).all(axis=1)
    assert (untouched == (with_truth[:, C] == 0)).all(), "the truth and what was done are not one"
    assert 0.05 < untouched.mean() < 0.95 or kind in (ChannelSwap, GainStep)
    assert kind.make(**values, truth=True).start(SPEC).channels == (*SPEC.channels, "disturbed")


@pytest.mark.parametrize("p, length", [(0.1, 1), (0.3, 5), (0.75, 20)])
def test_a_share_p_of_samples_drops_out(p: float, length: int) -> None:
    """Episodes are a renewal process: on for L samples, off for geometric(q) - 1; its share of time on, within 3 sd."""
    gone = np.isnan(run(Dropout(p=p, length=length), noise(3 * N))[:, 0])
    q = p / (p + length * (1 - p))
    cycles = len(gone) / (length + (1 - q) / q)
    sd = p * np.sqrt((1 - q) / q**2) / (length + (1 - q) / q) / np.sqrt(cycles)
    assert abs(gone.mean() - p) < 3 * sd
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone, [0]])))
    assert set((edges[1::2] - edges[::2])[:-1] % length) == {0}


def test_what_comes_instead() -> None:
    x = noise()
    x[::50, 2] = np.nan
    truth = np.isnan(run(Dropout(p=0.4, length=3, share=0.5), x)) & ~np.isnan(x)
    y = run(Dropout(p=0.4, length=3, share=0.5, fill="zero"), x)
    assert (y[truth] == 0).all()
    out = y == 0
    held, last = x.copy(), np.full(C, np.nan)
    for k in range(N):
        last = np.where(~out[k] & np.isfinite(x[k]), x[k], last)
        held[k] = np.where(out[k], last, x[k])
    np.testing.assert_array_equal(run(Dropout(p=0.4, length=3, share=0.5, fill="hold"), x), held)
    any_number = run(Dropout(p=1, fill="random", size=3), x)
    assert abs(any_number).max() <= 3
    assert abs(any_number.std() - np.sqrt(3)) < 0.05, "the sd of a number from -3 to 3"


def test_swapped_channels_are_a_permutation() -> None:
    x = noise(300)
    y = run(ChannelSwap(p=0.05, truth=True), x)
    for row, now in zip(x, y, strict=True):
        assert sorted(now[:C]) == sorted(row)
        assert (now[:C] != row).sum() == now[C]
    assert y[:, C].max() > 2, "some 15 swaps of five channels"
    with pytest.raises(StreamError, match="at least 2 channels"):
        ChannelSwap().start(SPEC.replace(channels=("a",)))


def test_gains_are_one_size_or_its_inverse() -> None:
    y = run(GainStep(p=0.02, size=3), noise() * 0 + 1)
    assert {round(v, 12) for v in y.ravel()} == {1.0, 3.0, round(1 / 3, 12)}
    assert 0 < (y[1:] != y[:-1]).any(axis=1).mean() <= 0.02 + 3 * np.sqrt(0.02 / N)
    assert (y[1:] != y[:-1]).sum(axis=1).max() == 1, "one channel at a time"


def test_a_regime_turns_pairs_of_channels() -> None:
    x = noise(1000)
    node = Regime(angle=0.5, gain=2, at=3, every=2, seed=4, truth=True)
    y = run(node, x)
    R = np.eye(C)
    order = np.random.default_rng(4).permutation(C)
    for a, b in order[: C - 1].reshape(-1, 2):
        R[np.ix_([a, b], [a, b])] = [[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]]
    on = np.array([k >= 300 and (k - 300) // 200 % 2 == 0 for k in range(1000)])
    clear = np.arange(1000) % 100 != 0  # at the very edge a sum of periods may lie on either side
    np.testing.assert_array_equal(y[clear, C], on[clear])
    np.testing.assert_allclose(y[clear & on, :C], 2 * x[clear & on] @ R.T, atol=1e-12)
    np.testing.assert_array_equal(y[clear & ~on, :C], x[clear & ~on])


@pytest.mark.parametrize("reorder", [False, True])
def test_samples_come_late(reorder: bool) -> None:
    k = np.arange(N)
    x = np.repeat(k[:, None], C, 1).astype(float)
    y = run(Jitter(p=0.5, most=4, reorder=reorder, truth=True), x)
    late = k - y[:, 0]
    np.testing.assert_array_equal(late, y[:, C])
    assert late[0] == 0 and late.min() == 0 and late.max() == 4
    if reorder:
        assert (np.diff(y[:, 0]) < 0).any()
        assert abs((late > 0).mean() - 0.5) < 3 * 0.5 / np.sqrt(N)
    else:
        assert (np.diff(y[:, 0]) >= 0).all(), "what has come does not go"
        # behind by m or more: the samples k ... k - m + 1 are each too late; P(d > i) = p (4 - i) / 4
        expected = [0.5, 0.5 * 0.375, 0.5 * 0.375 * 0.25, 0.5 * 0.375 * 0.25 * 0.125]
        for m, share in enumerate(expected, 1):
            assert abs((late >= m).mean() - share) < 4 * np.sqrt(share / N)


GRAPH = """
name: t
nodes:
  x:     {type: replay, file: x.csv, rate: 100}
  z:     {type: replay, file: z.csv, rate: 100}
  ridge: {type: ridge, in: x}
  kalman: {type: kalman, in: x}
eval: {truth: z, metrics: [nrmse, r2], train: [0, 20], test: [20, 30]}
"""


def test_the_table_of_rheo_stress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A walk of two dimensions in five channels. A decoder does worse the more is done to its input."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    z = np.zeros((3000, 2))
    for t in range(1, len(z)):
        z[t] = 0.95 * z[t - 1] + rng.standard_normal(2)
    np.savetxt("x.csv", z @ rng.standard_normal((2, C)) + rng.standard_normal((len(z), C)), delimiter=",")
    np.savetxt("z.csv", z, delimiter=",")
    Path("g.yaml").write_text(GRAPH)
    words = ["--only", "lost", "--only", "blackout", "--only", "commands"]
    assert main(["stress", "g.yaml", *words, "--seeds", "1,2", "--json", "s.json"]) == 0
    assert "nRMSE" in capsys.readouterr().out
    told = json.loads(Path("s.json").read_text())
    assert told["seeds"] == [1, 2]
    cells = {(r["decoder"], r["disturbance"], r["severity"]): r for r in told["rows"]}
    assert len(cells) == 2 * (1 + 3 * 3)
    score = {k: float(np.mean(r["scores"]["nrmse"])) for k, r in cells.items()}
    for name in ("ridge", "kalman"):
        assert score[name, "clean", 0] < score[name, "blackout", 0.1] + 1e-12 < score[name, "blackout", 0.5]
        assert score[name, "clean", 0] < score[name, "commands", 0.1] < score[name, "commands", 0.75]
    assert score["kalman", "lost", 0.1] < score["kalman", "lost", 0.75], "it goes on by its model where x is missing"
    clean = cells["kalman", "clean", 0]["scores"]["nrmse"]
    x, z = np.loadtxt("x.csv", delimiter=","), np.loadtxt("z.csv", delimiter=",")
    assert clean == [nrmse(Kalman().fit(x[:2000], z[:2000]).predict(x[2000:]), z[2000:])]
    assert main(["stress", "g.yaml", "--only", "lots"]) == 1
    assert "--only 'lots': no such disturbance; did you mean 'lost'?" in capsys.readouterr().err
    assert main(["stress", "g.yaml", "--seeds", "1,b"]) == 1
    assert "--seeds '1,b': write whole numbers" in capsys.readouterr().err
