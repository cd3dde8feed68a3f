"""Metrics of remaining life, and the C-MAPSS study in small."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rheobase.devices.replay import Replay
from rheobase.nodes.averages import Averages
from rheobase.nodes.mlp import MLP
from rheobase.nodes.regime_scale import RegimeScale
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import StreamError
from rheobase.tools import engines, lives
from rheobase.tools.engines import COLUMNS


def test_golden_metrics(golden: Path) -> None:
    g = np.load(golden / "rul_metrics.npz")
    true, told = g["true"], g["pred"]
    np.testing.assert_allclose(lives.scores(told - true), g["S"], rtol=0, atol=1e-10)
    m = lives.metrics(told, true)
    assert m["S"] == pytest.approx(33.476599595, abs=1e-8)
    for mine, word in ((m["mae"], "MAE"), (m["rmse"] ** 2, "MSE"), (m["mape"], "MAPE"), (m["accuracy"], "Acc"),
                       (m["early"] / 100, "FPR"), (m["late"] / 100, "FNR")):  # fmt: skip
        assert mine == pytest.approx(float(g[word]), abs=1e-10)
    assert lives.score([0.0]) == 0 and lives.score([10.0]) > lives.score([-10.0])


def test_quantiles_and_crps() -> None:
    G = np.array([np.linspace(0.9, 0, 10), np.where(np.arange(10) < 4, 1.0, 0.0)])  # uniform on 0..9; always 4
    q = lives.quantiles(G, np.eye(2))
    np.testing.assert_array_equal(q, [np.arange(10), np.full(10, 4)])
    true = np.array([4.5, 7.0])
    draws = np.arange(10)[:, None] - np.arange(10)
    exact = np.abs(np.arange(10) - 4.5).mean() - 0.5 * np.abs(draws).mean()
    assert lives.crps(q[:1], true[:1]) == pytest.approx(exact, abs=0.1)
    assert lives.crps(q[1:], true[1:]) == pytest.approx(3.0), "a point is judged by its absolute error"
    assert lives.covered(q[:, 0], q[:, -1], true) == (0.5, 4.5)


def test_the_mean_of_networks_is_one_network() -> None:
    pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    X, Z = rng.standard_normal((300, 3)) + 5, rng.standard_normal((300, 1))
    made = [MLP(**engines.NETWORKS, seed=k).fit(X[k::2], Z[k::2], like={"best": np.array(2)}) for k in range(2)]
    expected = np.mean([m.predict(X) for m in made], axis=0)
    np.testing.assert_allclose(engines.merged(made).predict(X), expected, rtol=0, atol=1e-10)


def test_a_fleet_is_replayed_side_by_side(data: Callable[[str], Path]) -> None:
    path = data("cmapss/test_FD001.txt.gz")
    node = Replay(file=str(path), times="1", by="unit", channels=COLUMNS)
    spec = node.start()
    assert spec.channels == COLUMNS
    blocks = list(node.blocks())
    x, t = np.concatenate([b.data for b in blocks]), np.concatenate([b.times for b in blocks])
    raw = np.loadtxt(path)
    assert (np.diff(t) >= 0).all() and len(x) == len(raw) and {b.segment for b in blocks} == {0}
    assert x[:100, 0].tolist() == list(range(1, 101)), "all engines have a first cycle"
    np.testing.assert_array_equal(x[x[:, 0] == 7], raw[raw[:, 0] == 7][:, [0, *range(2, 26)]])
    with pytest.raises(StreamError, match=r"by: .* has no column 'unitt'; did you mean 'unit'"):
        Replay(file=str(path), times="1", by="unitt", channels=COLUMNS).start()
    with pytest.raises(StreamError, match="times: say which column"):
        Replay(file=str(path), by="ch0").start()


def test_a_table_with_names_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("cycle,engine,p\n1,5,0.5\n2,5,0.6\n1,6,0.7\n")
    node = Replay(file=str(tmp_path / "x.csv"), times="cycle", by="engine")
    assert node.start().channels == ("unit", "p")
    [b] = node.blocks()
    assert b.data.tolist() == [[5, 0.5], [6, 0.7], [5, 0.6]] and b.times.tolist() == [1, 1, 2]


@pytest.mark.slow
def test_a_filter_knows_more_than_a_line(data: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The study on 24 engines with two small networks, two folds: on engines left out the filter is about as good as
    the networks that it is made of, a line on the last sample is not, and calibrated intervals hold."""
    pytest.importorskip("torch")
    monkeypatch.setenv("RHEOBASE_DATA", str(data("cmapss/train_FD001.txt.gz").parent.parent))
    monkeypatch.setattr(engines, "NETWORKS", engines.NETWORKS | {"members": 1, "hidden": 16})
    monkeypatch.setattr(engines, "EPOCHS", 8)
    whole, test = engines.read("FD001")
    assert len(test.last) == 100 and test.life[test.last][:3].tolist() == [112, 98, 69]
    some = whole.unit <= 24
    e = engines.Engines(whole.X[some], whole.unit[some], whole.life[some])
    fold, rows = engines.folds(e.unit, 2), engines.moments(e)
    scale = RegimeScale().fit(e.X, e.life[:, None], segment=e.unit)
    X = engines.features(scale, Averages(over=engines.SPANS, age=True), e)
    _, H = engines.regressors(X, e, fold)
    settings: dict[str, Any] = engines.STATES | {"states": 14, "width": 10.0, "order": 0, "pool": 0.3}
    _, Y, u, _ = engines.filtered(H, e, fold, **settings)
    m = lives.metrics(Y[rows, 8], np.minimum(e.life, 125)[rows])
    alone = lives.metrics(125 * np.clip(H[rows, 0], 0, 1), np.minimum(e.life, 125)[rows])
    Z = scale.predict(e.X, e.unit)
    line = lives.metrics(np.clip(Ridge().fit(Z, 125 * e.capped).predict(Z)[rows, 0], 0, 125), 125 * e.capped[rows, 0])
    assert m["rmse"] < 1.15 * alone["rmse"]
    assert alone["rmse"] < line["rmse"]
    share, _ = engines.coverage_held_out(u, e, rows, settings)
    assert 0.85 < share < 0.95
