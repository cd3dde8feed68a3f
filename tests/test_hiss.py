"""Hierarchical state-space models: their authors' numbers, chunks, gaps, learning."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from levels import KINDS, batch, held, mixer, small, weights
from numpy.typing import NDArray

from rheobase.nodes._decoder import Training
from rheobase.nodes._training import delayed, split
from rheobase.nodes.hiss import HiSS
from rheobase.nodes.ridge import Ridge
from rheobase.nodes.sequence import Sequence
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.fuse import Loop

F = NDArray[np.float64]
JIT = os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"
RING = [(low, KINDS[(i + 2) % len(KINDS)]) for i, low in enumerate(KINDS)]
"""Each kind once in each level: all 25 compiled take four minutes. All 25 are tried where nothing is compiled."""


def s4(w: dict[str, F], level: str) -> dict[str, F]:
    """A stack of the authors in our letters: their imaginary parts are negative."""
    layers = [{k.removeprefix(f"{level}.s4_layers.{i}."): v for k, v in w.items()} for i in range(2)]
    kernels = [{k.removeprefix("layer.kernel."): v for k, v in p.items()} for p in layers]
    found = {
        "log_dt": np.stack([k["inv_dt"][:, 0] for k in kernels]),
        "A_re": np.stack([k["A_real"] for k in kernels]),
        "A_im": -np.stack([k["A_imag"] for k in kernels]),
        "D": np.stack([p["layer.D"][0] for p in layers]),
        "W": np.stack([p["output_linear.0.weight"][:, :, 0].T for p in layers]),
        "w": np.stack([p["output_linear.0.bias"] for p in layers]),
        "g": np.stack([w[f"{level}.norms.{i}.weight"] for i in range(2)]),
        "b": np.stack([w[f"{level}.norms.{i}.bias"] for i in range(2)]),
        "L": kernels[0]["l_kernel"].astype(float),
    }
    for key in "BPC":
        both = np.stack([k[key][0] for k in kernels])
        found |= {f"{key}_re": both[..., 0].copy(), f"{key}_im": both[..., 1].copy()}
    return found


def mamba(w: dict[str, F], level: str) -> dict[str, F]:
    blocks = [
        mixer({k.removeprefix(f"{level}.layers.{i}.mixer."): v for k, v in w.items() if f".{i}.mixer." in k})
        for i in range(2)
    ]
    found = {k: np.stack([b[k] for b in blocks]) for k in blocks[0]}
    for ours, theirs in (("g", "weight"), ("b", "bias")):
        each = [w[f"{level}.layers.{i}.norm.{theirs}"] for i in range(2)]
        found[ours] = np.stack([*each, w[f"{level}.norm_f.{theirs}"]])
    return found


def authors(path: Path, high: str) -> tuple[HiSS, dict[str, F]]:
    """Their model with their weights, and what they say of it."""
    w = weights(path)
    arrays = {f"low.{k}": v for k, v in s4(w, "low_level").items()}
    stack = mamba(w, "high_level") if high == "mamba" else s4(w, "high_level")
    arrays |= {f"high.{k}": v for k, v in stack.items()}
    for ours, theirs in (("low.in", "low_level.embed"), ("low.out", "low_level.decoder"), ("high.out", "output")):
        arrays |= {f"{ours}_W": w[f"{theirs}.weight"].T, f"{ours}_b": w[f"{theirs}.bias"]}
    arrays |= {"x_mean": np.zeros(6), "x_scale": np.ones(6)}
    node = HiSS(
        k=int(w["chunk"]), low={"type": "s4", "width": 12, "layers": 2}, high={"type": high, "width": 8, "layers": 2}
    )
    return held(node, n=6, like=arrays), w


@pytest.mark.slow
@pytest.mark.parametrize("high", ["s4", "mamba"])
def test_equals_the_authors(high: str, golden: Path) -> None:
    node, w = authors(golden / f"hiss_s4_{high}.npz", high)
    for x, y in zip(w["x"], w["y"], strict=True):
        Y = node.predict(x)
        assert np.abs(Y[4::5] - y).max() < 1e-10
        assert np.isnan(np.delete(Y, np.s_[4::5], axis=0)).all(), "an estimate within a chunk"
        assert np.abs(batch(node, x) - y).max() < 1e-10
        assert np.abs(batch(node, x, "float32") - y).max() < 1e-4 * np.abs(y).max()
    assert np.abs(np.diff(w["raw"], axis=1) - w["x"][:, 1:, 3:]).max() < 1e-12, "the second half are deltas"


@pytest.mark.slow
def test_the_low_level_begins_afresh_with_each_chunk(golden: Path) -> None:
    """Its output at every sample is the authors', who zero it at each chunk; run on, it is another."""
    node, w = authors(golden / "hiss_s4_s4.npz", "s4")
    low = {f"net.{k.removeprefix('low.')}": v for k, v in node.arrays.items() if k.startswith("low.")}
    ends = {k: node.arrays[k] for k in ("x_mean", "x_scale")}
    alone = held(Sequence(net={"type": "s4", "width": 12, "layers": 2}, chunks=5), n=6, d=8, like=low | ends)
    x, want = w["x"][0], w["low_level_features"][0]
    assert np.abs(alone.predict(x, np.arange(40) // 5) - want).max() < 1e-10
    assert np.abs(alone.predict(x) - want).max() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("low, high", RING if JIT else [(a, b) for a in KINDS for b in KINDS])
def test_every_pair_streams_what_it_is_in_one_piece(low: str, high: str) -> None:
    pairs(low, high)


@pytest.mark.skipif(JIT, reason="compiled, each takes seconds: RING has every kind in each level")
@pytest.mark.parametrize("low, high", [(a, b) for a in KINDS for b in KINDS])
def test_all_pairs_uncompiled(low: str, high: str) -> None:
    pairs(low, high)


def pairs(low: str, high: str) -> None:
    X = np.random.default_rng(0).standard_normal((33, 3))
    node = held(HiSS(low=small(low), high=small(high), k=4, chunks=8))
    Y = node.predict(X)
    assert np.flatnonzero(np.isfinite(Y[:, 0])).tolist() == list(range(3, 32, 4)), "the last chunk is not over"
    assert np.abs(Y[3::4] - batch(node, X[:32])).max() < 1e-12
    X[20:] += 1.0
    assert np.array_equal(node.predict(X)[:20], Y[:20], equal_nan=True), "knows the future"


def model(**more: Any) -> HiSS:
    """The one that the tests below compile."""
    return held(HiSS(low=small("lstm"), high=small("s4d"), k=4, chunks=8, **more))


def test_an_estimate_for_each_sample_is_marked_and_changes_nothing() -> None:
    X = np.random.default_rng(1).standard_normal((30, 3))
    whole, each = model().predict(X), model(emit="sample").predict(X)
    assert each[:, -1].tolist() == [float(t % 4 != 3) for t in range(30)]
    assert np.array_equal(each[3::4, :2], whole[3::4])
    assert np.isfinite(each).all()
    out = model(emit="sample").start(Spec(rate=50, channels=("a", "b", "c")))
    assert (out.rate, out.channels) == (50, ("z0", "z1", "partial"))


def test_a_gap_begins_a_new_chunk() -> None:
    X = np.random.default_rng(2).standard_normal((30, 3))
    both = model().predict(X, np.repeat([0, 1], [10, 20]))
    assert np.flatnonzero(np.isfinite(both[:, 0])).tolist() == [3, 7, 13, 17, 21, 25, 29]
    assert np.array_equal(both[10:], model().predict(X[10:]), equal_nan=True)


def test_missing_values_count_as_their_mean_and_a_chunk_without_any_is_missing() -> None:
    X = np.random.default_rng(3).standard_normal((16, 3))
    node = model()
    holed, filled = X.copy(), X.copy()
    holed[5, 1], filled[5, 1] = np.nan, node.arrays["x_mean"][1]
    assert np.array_equal(node.predict(holed), node.predict(filled), equal_nan=True)
    holed[8:12], filled[8:12] = np.inf, node.arrays["x_mean"]
    Y, want = node.predict(holed), node.predict(filled)
    assert np.isnan(Y[11]).all()
    assert np.array_equal(Y[15], want[15])


def test_the_rate_of_what_comes_out() -> None:
    loop = Loop([model(lookahead=3)], [-1], [0])
    out = loop.start(Spec(rate=50, channels=("a", "b", "c"), delay=0.1))[0]
    assert (out.rate, out.delay) == (12.5, pytest.approx(0.1 + 3 / 50))
    given = loop.process(Block(np.zeros((9, 3)), np.arange(9) / 50, 0, 0))[0][1]
    assert given.times.tolist() == [3 / 50, 7 / 50], "an estimate comes with the last sample of its chunk"


# Learning.


def world(T: int = 1200, seed: int = 0) -> tuple[F, F]:
    """z: what a leak keeps of the size of x, at odd scales; x holds nothing of it but its own past."""
    X, z = np.random.default_rng(seed).standard_normal((T, 2)), np.zeros((T, 1))
    for t in range(1, T):
        z[t] = 0.95 * z[t - 1] + np.abs(X[t, 0])
    return 100 * X + 7, 0.01 * z - 3


def learner(**more: Any) -> HiSS:
    usual = dict(low=small("lstm", layers=1), high=small("s4d", layers=1), k=4, chunks=10, epochs=3, batch=8)
    return HiSS(**(usual | more))


@pytest.mark.slow
def test_learns_what_no_linear_decoder_can() -> None:
    pytest.importorskip("torch")
    X, Z = world(4000)
    more = dict(high=small("lstm", layers=1), chunks=20, epochs=40, learning_rate=0.02, dropout=0.0)
    node = learner(**more).fit(X[:3000], Z[:3000])
    rows = np.s_[83:1000:4]  # those that end a chunk, once the memory has filled
    errors = [np.mean((k.predict(X[3000:])[rows] - Z[3000:][rows]) ** 2) for k in (node, Ridge(lags=40).fit(X, Z))]
    assert errors[0] < 0.5 * errors[1], "though ridge has seen the test rows"


def test_the_same_each_time_and_another_with_another_seed() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    first, second, other = (learner(seed=s).fit(X, Z).arrays for s in (0, 0, 1))
    assert all(np.array_equal(first[k], second[k]) for k in first)
    assert not np.array_equal(first["low.W"], other["low.W"])


def test_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    X, Z = world()
    want = learner(epochs=4).fit(X, Z).arrays
    file, node, seen = str(tmp_path / "learning.pt"), learner(epochs=4), []

    def stopped(epoch: int, epochs: int, error: float) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    node.resume = file
    node.told = stopped  # type: ignore[misc, assignment]
    with pytest.raises(KeyboardInterrupt):
        node.fit(X, Z)
    again = learner(epochs=4, resume=file)
    again.told = lambda epoch, epochs, error: seen.append(epoch)  # type: ignore[misc, assignment]
    found = again.fit(X, Z).arrays
    assert seen == [3, 4], "epochs 1 and 2 were kept; 3 was stopped before it was"
    assert all(np.array_equal(found[k], want[k]) for k in want)
    for other in ({"low": small("lstm", layers=2)}, {"seed": 1}, {"epochs": 5}, {"noise": 0.1}):
        with pytest.raises(StreamError, match="is of another fit"):
            learner(**{"epochs": 4, "resume": file} | other).fit(X, Z)
    with pytest.raises(StreamError, match="is of another fit"):
        learner(epochs=4, resume=file).fit(X, 2 * Z)
    Path(file).write_bytes(b"no such thing")
    with pytest.raises(StreamError, match=r"resume: .* cannot be read"):
        learner(resume=file).fit(X, Z)
    with pytest.raises(StreamError, match=r"resume: .* cannot be read"):
        learner(resume=str(tmp_path)).fit(X, Z)
    with pytest.raises(StreamError, match=r"resume: .* cannot be"):
        learner(resume=f"{file}/within/a.file").fit(X, Z)


def test_channels_dropped_and_noise_change_what_is_learnt() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    plain = learner().fit(X, Z).arrays
    for more in ({"channel_dropout": 0.5}, {"noise": 1.0}, {"dropout": 0.0}):
        assert not np.array_equal(plain["low.W"], learner(**more).fit(X, Z).arrays["low.W"]), more


def test_turned_channels_are_turned_together() -> None:
    """Learnt from one direction, with random yaw it does as well in any other; without, it does not."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(2000) + 3, 0.1 * rng.standard_normal(2000)])
    Z, inputs = 2 * X, Spec(rate=10, channels=("ax", "ay"))
    errors = []
    for turn in ((), (("ax", "ay"), ("vx", "vy"))):
        more = dict(turn=turn, chunks=10, batch=8, epochs=15, dropout=0.0, learning_rate=0.01)
        node = Sequence(net={"type": "lstm", "width": 8, "layers": 1}, **more)
        node.fit(X, Z, inputs=inputs, outputs=Spec(rate=10, channels=("vx", "vy")))
        errors.append(np.nanmean((node.predict(X[:, ::-1] * [1, -1]) - Z[:, ::-1] * [1, -1]) ** 2))
    assert errors[1] < 0.1 * errors[0]


@pytest.mark.parametrize(
    "turn, message",
    [
        ([("ax", "az")], r"turn: no channel 'az'"),
        ([("ax", "vx")], "turn: 'ax' and 'vx' are of different streams"),
        ([("vx", "vy")], "turn: no pair of the input is turned"),
        ([("ax", "ay"), ("ay", "ax")], "turn: a channel stands in it twice"),
        ([("ax", "ax")], "turn: a channel stands in it twice"),
    ],
)
def test_channels_that_cannot_be_turned(turn: list[tuple[str, str]], message: str) -> None:
    X = np.random.default_rng(0).standard_normal((400, 2))
    inputs, outputs = (Spec(rate=10, channels=(f"{c}x", f"{c}y")) for c in "av")
    with pytest.raises(StreamError, match=message):
        learner(turn=tuple(turn)).fit(X, X, inputs=inputs, outputs=outputs)


def test_channels_of_one_name_are_turned_on_both_sides() -> None:
    node = learner(turn=(("vx", "vy"),))
    node.header = {"in": {"channels": ["vx", "vy"]}, "out": {"channels": ["vx", "vy"]}}
    assert node._turned() == ([(0, 1)], [(0, 1)])


def test_a_channel_that_stood_still_in_learning_does_no_harm_when_it_moves() -> None:
    """Its standard deviation is 1e-17 by rounding; divided by that, a change of 1e-4 would be all there is."""
    pytest.importorskip("torch")
    X, Z = world(600)
    X = np.column_stack([X, np.full(len(X), 0.1)])
    node = learner(epochs=1).fit(X, Z)
    moved = X + np.eye(X.shape[1])[-1] * 1e-4
    assert np.nanmax(np.abs(node.predict(moved) - node.predict(X))) < 1e-2


def test_the_delay_of_a_lookahead_is_a_time() -> None:
    """Learnt at 50 Hz, 10 samples are 0.2 s, however fast what it runs on comes."""
    node = held(Sequence(net=small("s4d"), lookahead=10, chunks=40))
    for rate in (25.0, 50.0, 100.0):
        assert node.start(Spec(rate=rate, channels=("a", "b", "c"))).delay == pytest.approx(0.2)
    with pytest.raises(StreamError, match="was fitted at 50 Hz, and this input is irregular"):
        node.start(Spec(rate=0, channels=("a", "b", "c")))


def test_what_it_learns_from() -> None:
    """The last share of each of five pieces judges; rows of other segments are never within a window."""
    learn, judge = split(np.repeat([0, 1], [1000, 30]), 0.2, 20)
    assert learn == [(0, 160), (200, 360), (400, 560), (600, 760), (800, 960), (1000, 1030)]
    assert judge == [(160, 200), (360, 400), (560, 600), (760, 800), (960, 1000)]
    with pytest.raises(
        StreamError, match=r"held_out: 0.2 of the longest segment, 90 samples, is less than a span of 20"
    ):
        split(np.zeros(90, np.int64), 0.2, 20)
    Z = np.arange(6.0)[:, None]
    late, rows = delayed(Training(Z, Z, np.ones(6, bool), np.array([0, 0, 0, 1, 1, 1])), 2)
    assert late[[2, 5], 0].tolist() == [0, 3]
    assert rows.tolist() == [False, False, True, False, False, True]


def test_what_cannot_be_judged_is_not_given_out_as_learnt() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    _, judge = split(np.zeros(len(X), np.int64), 0.15, 40)
    assert judge
    blind = Z.copy()
    for i, e in judge:
        blind[i:e] = np.nan
    with pytest.raises(StreamError, match="held_out: nothing of what is held out has a truth"):
        learner().fit(X, blind)
    seen: list[int] = []
    node = learner(learning_rate=1e30)
    node.told = lambda epoch, epochs, error: seen.append(epoch)  # type: ignore[misc, assignment]
    with pytest.raises(StreamError, match="learning diverged: a smaller learning_rate"):
        node.fit(X, Z)
    assert len(seen) < 2, "what can be known at once is said at once"


def test_epochs_of_an_earlier_fit_are_kept() -> None:
    pytest.importorskip("torch")
    X, Z = world()
    seen: list[float] = []
    node = learner()
    node.told = lambda epoch, epochs, error: seen.append(error)  # type: ignore[misc, assignment]
    found = node.fit(X, Z, like={"best": np.array(2.0)}).arrays
    assert (len(seen), float(found["best"])) == (2, 2.0)
    assert np.isnan(seen).all(), "nothing is held out"


@pytest.mark.parametrize(
    "more, message",
    [
        ({"low": "s4x"}, "low: type: unknown value 's4x'"),
        ({"dropout": 1.0}, "dropout: 1 leaves nothing"),
        ({"held_out": 1.0}, "held_out: 1 leaves nothing"),
        ({"channel_dropout": 1.0}, "channel_dropout: 1 leaves nothing"),
        ({"high": {"type": "transformer", "context": 64}}, "high: context: 64 is more than the"),
        ({"lookahead": -1}, "lookahead: -1 is negative"),
    ],
)
def test_what_is_wrong_is_said_before_it_starts(more: dict[str, Any], message: str) -> None:
    with pytest.raises(StreamError, match=message):
        learner(**more).check()


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(StreamError, match=r"needs the package torch: pip install 'rheobase\[train\]'"):
        learner().fit(*world(300))


def test_a_gpu_that_is_not_there() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(StreamError, match="device: there is no GPU"):
        learner(device="cuda").fit(*world(300))
