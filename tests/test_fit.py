"""`rheo fit` and `rheo eval`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
import yaml
from numpy.typing import NDArray

from rheobase.nodes._decoder import Decoder
from rheobase.nodes.dkf import DKF
from rheobase.nodes.kalman import Kalman
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.engine import Engine, collect
from rheobase.stream.files import load_model
from rheobase.stream.graph import Graph, parse
from rheobase.tools.coverage import coverage, nees
from rheobase.tools.fit import Gathered, aligned, elapsed, evaluate, fit
from rheobase.tools.scores import maae, nrmse

F = NDArray[np.float64]

GRAPH = """
name: arm
nodes:
  spikes: {{type: replay, file: {0}/x.csv, rate: 10}}
  hand:   {{type: replay, file: {0}/z.csv, rate: {1}, channels: [vx, vy], unit: m/s}}
  past:   {{type: lags, in: spikes, k: 2}}
  kalman: {{type: kalman, in: past}}
  dkf:    {{type: dkf, in: spikes, f: ridge}}
eval: {2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 s of a hand at 10 Hz and what six channels saw of it, as CSV; and where the models go."""
    rng = np.random.default_rng(0)
    Z = np.zeros((600, 2))
    for t in range(1, 600):
        Z[t] = 0.9 * Z[t - 1] + rng.standard_normal(2)
    np.savetxt(tmp_path / "z.csv", Z, delimiter=",")
    np.savetxt(tmp_path / "x.csv", Z @ rng.standard_normal((2, 6)) + 2 * rng.standard_normal((600, 6)), delimiter=",")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arm(folder: Path, protocol: str = "{truth: hand, train: [0, 40], test: [40, 60]}", rate: int = 10) -> Graph:
    return parse(GRAPH.format(folder, rate, protocol), "arm.yaml")


def test_truth_is_interpolated_within_a_segment_and_exact_where_times_meet() -> None:
    times = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    Z = np.array([[0.0, 1], [10, 2], [np.nan, 3], [40, 4], [50, 5]])
    truth = Gathered(Spec(rate=1, channels=("a", "b")), Z, times, np.array([0, 0, 0, 1, 1]))
    got = aligned(truth, np.array([-0.1, 0.0, 0.25, 1.0, 1.5, 5.0, 10.0, 10.5, 11.5]))
    nan = np.nan
    expected = [[nan, nan], [0, 1], [2.5, 1.25], [10, 2], [nan, 2.5], [nan, nan], [40, 4], [45, 4.5], [nan, nan]]
    np.testing.assert_array_equal(got, expected)


def test_where_a_clock_was_set_back_each_pass_has_its_own_truth() -> None:
    """Seconds 0 to 9, then 5 to 14: what the truth was at second 7 was asked twice."""
    t = np.concatenate([np.arange(10.0), np.arange(5.0, 15.0)])
    segment = np.repeat([0, 1], 10)
    truth = Gathered(Spec(rate=1, channels=("a",)), np.arange(20.0)[:, None], t, segment)
    np.testing.assert_array_equal(aligned(truth, t, segment)[:, 0], np.arange(20.0))
    x = Gathered(truth.spec, truth.data, t, segment)
    np.testing.assert_array_equal(elapsed(x), [*range(10), *range(9, 19)])
    with pytest.raises(StreamError, match="a clock was set back 0 times in the features, 1 times in the truth"):
        aligned(truth, np.arange(15.0), np.zeros(15, int))


def test_evaluate_fits_on_the_train_part_and_starts_afresh_on_the_test_part(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = evaluate(arm(folder), folder / "out")
    X, Z = np.loadtxt(folder / "x.csv", delimiter=","), np.loadtxt(folder / "z.csv", delimiter=",")
    past = np.hstack([X, np.vstack([np.zeros(6), X[:-1]])])
    Y = Kalman().fit(past[:400], Z[:400]).predict(past[400:])
    row = scores.rows[0]
    assert (row.name, row.missing, len(scores.Z)) == ("kalman", 0, 200)
    assert row.scores["nrmse"] == [nrmse(Y, Z[400:])]
    assert row.scores["maae"] == [maae(Y, Z[400:])]
    assert (folder / "out" / "decoded.png").read_bytes()[:4] == b"\x89PNG"
    console = rich.console.Console(record=True, width=100)
    scores.show(console)
    text = console.export_text()
    assert f"{row.scores['nrmse'][0]:.4f}" in text and "decoded.png" in text


def test_a_decoder_with_a_covariance_is_scored_on_it(folder: Path) -> None:
    scores = evaluate(arm(folder), folder / "out")
    X, Z = np.loadtxt(folder / "x.csv", delimiter=","), np.loadtxt(folder / "z.csv", delimiter=",")
    mu, Sigma = DKF(f="ridge").fit(X[:400], Z[:400]).posterior(X[400:])
    kalman, dkf = scores.rows
    assert np.array_equal(dkf.Y, mu)
    assert dkf.coverage[90] == 100 * coverage(Z[400:], mu, Sigma)[0.9]
    assert dkf.nees == nees(Z[400:], mu, Sigma)
    assert 50 < dkf.coverage[90] < 100
    assert bool(kalman.coverage) == hasattr(Kalman, "posterior")


def test_the_floor_is_the_mean_of_the_training_truth(folder: Path) -> None:
    Z = np.loadtxt(folder / "z.csv", delimiter=",")
    scores = evaluate(arm(folder), folder / "out")
    assert scores.floor["nrmse"] == pytest.approx(nrmse(np.tile(Z[:400].mean(axis=0), (200, 1)), Z[400:]))
    assert "scores.html" in scores.notes[-1] and (folder / "out" / "scores.html").exists()


def test_seeds_are_fitted_one_after_the_other(folder: Path) -> None:
    protocol = "{truth: hand, train: [0, 40], test: [40, 60], metrics: [r2], seeds: 3}"
    scores = evaluate(arm(folder, protocol), folder / "out")
    numbers = {r.name: r.scores["r2"] for r in scores.rows}
    assert len(numbers["kalman"]) == 1
    assert len(set(numbers["dkf"])) == 3


def test_truth_at_another_rate(folder: Path) -> None:
    """The hand at 5 Hz: every second feature has a truth of its own, the others lie between two."""
    Z = np.loadtxt(folder / "z.csv", delimiter=",")
    np.savetxt(folder / "z.csv", Z[::2], delimiter=",")
    scores = evaluate(arm(folder, rate=5), folder / "out")
    np.testing.assert_allclose(scores.Z[0:198:2], Z[400:598:2], atol=1e-12)
    np.testing.assert_allclose(scores.Z[1:197:2], (Z[400:596:2] + Z[402:598:2]) / 2, atol=1e-12)


def test_fit_writes_a_model_that_runs(folder: Path) -> None:
    scores = fit(arm(folder, "{truth: hand}"), "dkf")
    assert [r.name for r in scores.rows] == ["dkf", "ridge, 1 lag", "ridge, 5 lags", "kalman"]
    assert len(scores.Z) == 120  # the last fifth
    arrays, header = load_model("models/arm_dkf.npz")
    assert header["rows"] == 480 and header["held_out"]["nrmse"] == scores.rows[0].scores["nrmse"]
    assert header["in"]["n"] == 6
    assert "models/arm_dkf.html" in scores.notes[-1] and Path("models/arm_dkf.html").exists()
    assert header["out"]["channels"] == ["vx", "vy"] and header["data"]["hand"].endswith("z.csv")
    graph = arm(folder)
    graph.set("dkf.model=models/arm_dkf.npz")
    live = collect(graph, ["dkf"])["dkf"]
    node = graph["dkf"]
    assert isinstance(node, Decoder)
    assert np.array_equal(live.data, node.predict(np.loadtxt(folder / "x.csv", delimiter=",")))
    assert np.array_equal(arrays["A"], node.arrays["A"])


def test_says_what_each_decoder_is(folder: Path) -> None:
    text = GRAPH.format(folder, 10, "{truth: hand}")
    text = text.replace("f: ridge", "f: {type: ridge, lags: 3}, nonpd: robust, seed: 4, covariance: true")
    rows = evaluate(parse(text), folder / "out").rows
    assert [r.what for r in rows] == ["kalman", "dkf: f ridge (lags 3), nonpd robust"]
    assert rows[1].Y.shape == (120, 2)


def test_fit_does_not_list_a_plain_decoder_beside_itself(folder: Path) -> None:
    text = GRAPH.format(folder, 10, "{truth: hand}").replace("type: kalman, in: past", "type: ridge, in: past, lags: 5")
    assert [r.name for r in fit(parse(text), "kalman").rows] == ["kalman", "ridge, 1 lag"]


@pytest.mark.parametrize(
    "protocol, message",
    [
        ("{}", r"arm\.yaml: eval: .*truth"),
        ("{truth: hnad}", "eval: truth: no node 'hnad'; did you mean 'hand'"),
        ("{truth: hand, trian: [0, 1]}", "eval: unknown key 'trian'; did you mean 'train'"),
        ("{truth: hand, train: [0, 40]}", "train and test: give both or neither"),
        ("{truth: hand, train: [0, 40], test: [90, 99]}", r"test: \[90, 99\] s holds no sample .* lasts 59\.9 s"),
        ("{truth: hand, train: [0, 40], test: [30, 60]}", "train and test overlap: 100 samples are in both"),
        ("{truth: hand, metrics: [rmse]}", "metrics: unknown metric 'rmse'; did you mean 'nrmse'"),
        ("{truth: hand, metrics: []}", "metrics: name one"),
        ("{truth: hand, seeds: 0}", "eval: .*>= 1"),
        ("{truth: spikes, metrics: [maae]}", "maae is an angle in a plane, and 'spikes' has 6 channels"),
        ("{truth: hand, figure: [kalmann]}", "figure: no decoder 'kalmann'; did you mean 'kalman'"),
    ],
)
def test_says_what_is_wrong_with_the_table(folder: Path, protocol: str, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        evaluate(arm(folder, protocol), folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "node, on, message",
    [
        ("past", None, r"node 'past' \(lags\) is not learnt"),
        ("kalmann", None, "no node 'kalmann'; did you mean 'kalman'"),
        ("kalman", "nothing.xdf", "no file 'nothing.xdf'"),
        ("kalman", ".", "not a run directory"),
        ("kalman", "x.csv", r"x\.csv: no stream for source 'spikes'"),
    ],
)
def test_says_what_cannot_be_fitted(folder: Path, node: str, on: str | None, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        fit(arm(folder), node, on)
    assert not (folder / "models").exists()


def test_a_live_graph_needs_a_recording(folder: Path) -> None:
    pytest.importorskip("pylsl")
    text = GRAPH.format(folder, 10, "{truth: hand}")
    text = text.replace("spikes: {type: replay", "spikes: {type: lsl, stream: {name: Array}} #")
    with pytest.raises(StreamError, match="node 'spikes' is live: give the recording to learn from"):
        fit(parse(text), "dkf")


def test_fit_on_a_run(folder: Path) -> None:
    """What a run recorded takes the place of the sources, and the result is the same."""
    plain = fit(arm(folder), "dkf")
    run = folder / "run"
    run.mkdir()
    recorded = parse(
        GRAPH.format(folder, 10, "{truth: hand}").split("  past:")[0] + "  rec: {type: record, in: [hand, spikes]}"
    )
    (run / "config.yaml").write_text(yaml.safe_dump(recorded.to_dict(), sort_keys=False))
    engine = Engine(recorded, folder=run)
    engine.start()
    engine.run()
    elsewhere = GRAPH.format("nowhere", 10, "{truth: hand, train: [0, 40], test: [40, 60]}")
    for on in ("run", "run/recording.xdf"):
        scores = fit(parse(elsewhere), "dkf", on)
        assert scores.rows[0].scores == plain.rows[0].scores
        assert load_model("models/arm_dkf.npz")[1]["data"] == on


LOOP = """
name: loop
nodes:
  spikes: {{type: replay, file: {0}/x.csv, rate: 10}}
  dkf:    {{type: dkf, in: spikes, f: ridge}}
  task:   {{type: task, in: {1}, control: {2}}}
  wanted: {{type: pick, in: task, channels: [intended_x, intended_y], unit: m/s}}
  rec:    {{type: record, in: [{3}]}}
eval: {{truth: wanted}}
"""


def test_the_truth_of_a_closed_loop_is_as_recorded(folder: Path) -> None:
    """The task hangs on the decoder that is to be fitted: what it did is in the recording."""
    closed = LOOP.format(folder, "dkf", "true", "spikes")
    for k, kept in enumerate(("spikes, task", "spikes")):
        text = LOOP.format(folder, "spikes", "false", kept).replace("  dkf:", "  unused: {type: lags, in: spikes} #")
        run = folder / f"run{k}"
        run.mkdir()
        engine = Engine(parse(text), folder=run)
        engine.start()
        engine.run()
    scores = fit(parse(closed), "dkf", "run0/recording.xdf")
    assert scores.spec.channels == ("intended_x", "intended_y")
    assert len(scores.Z) == 120
    assert load_model("models/loop_dkf.npz")[1]["rows"] == 480
    for on, says in ((None, "give the recording of a run"), ("run1/recording.xdf", "there is none of task, wanted")):
        with pytest.raises(StreamError, match=f"truth: 'wanted' comes of 'dkf' itself: .*{says}.* `rheo calibrate "):
            fit(parse(closed), "dkf", on)


def test_a_wrong_regressor_is_said_of_its_node(folder: Path) -> None:
    graph = arm(folder)
    graph.set("dkf.f=rige")
    with pytest.raises(StreamError, match=r"^node 'dkf' \(dkf\): f: unknown type 'rige'; did you mean 'ridge'"):
        fit(graph, "dkf")


@pytest.mark.slow
def test_flint(data: Callable[[str], Path], tmp_path: Path) -> None:
    """What takes no network of configs/m1_velocity.yaml, with the numbers of the authors' code where it is theirs."""
    from rheobase.stream.cli import find_graph

    data("flint2012_run1/x.csv")
    graph, names = find_graph("m1_velocity"), {"kalman", "ridge_5", "dkf_nw"}
    graph.places = {k: p for k, p in graph.places.items() if k in names | {"spikes", "hand"}}
    graph.options["eval"] |= {"figure": ["kalman", "dkf_nw"], "seeds": 1}
    found: dict[str, Any] = evaluate(graph, tmp_path).to_dict()
    assert names == found.keys()
    assert found["kalman"]["nrmse"][0] == pytest.approx(0.7647, abs=2e-4)
    assert found["kalman"]["maae"][0] == pytest.approx(0.8882, abs=5e-4)
    assert found["dkf_nw"]["nrmse"][0] <= 0.605
    assert found["dkf_nw"]["maae"][0] <= 0.770
    low, high = found["dkf_nw"]["interval"]["nrmse"]
    assert high - low == pytest.approx(0.06, abs=0.03)  # 100 s of test tell no more than this


@pytest.mark.slow
def test_a_sequence_model_is_scored_where_it_gives_an_estimate(tmp_path: Path) -> None:
    """Chunk by chunk, at the time that it is of; `missing` counts only what was due."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 2))
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "z.npz", z=np.roll(x[:, :1], 1, axis=0))
    lstm = "{type: lstm, width: 6, layers: 1}"
    text = f"""
name: seq
nodes:
  x: {{type: replay, file: {tmp_path}/x.npz, rate: 10, channels: [a, b]}}
  z: {{type: replay, file: {tmp_path}/z.npz, rate: 10}}
  hiss: {{type: hiss, in: x, low: {lstm}, high: {lstm}, k: 4, chunks: 5, epochs: 2, lookahead: 3, emit: sample}}
  plain: {{type: hiss, in: x, low: {lstm}, high: {lstm}, k: 4, chunks: 5, epochs: 2}}
eval: {{truth: z, metrics: [r2]}}
"""
    scores = evaluate(parse(text), tmp_path / "out")
    ahead, plain = scores.rows
    assert (plain.missing, int(np.isfinite(plain.Y).sum())) == (0, 120 // 4)
    assert (ahead.missing, int(np.isfinite(ahead.Y).sum())) == (0, 120 // 4), "a part of a chunk is no estimate of it"
    assert (tmp_path / "out" / "scores.html").exists()
