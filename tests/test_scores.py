"""Metrics and error bars of decoders."""

import numpy as np
import pytest
import rich.console
import scipy.signal
import scipy.stats
from numpy.typing import NDArray

from rheobase.stream.block import Spec
from rheobase.tools.scores import (
    LEVELS,
    Row,
    Scores,
    accuracy,
    auc,
    log_score,
    maae,
    median_error,
    nrmse,
    r2,
    resampled,
)

F = NDArray[np.float64]


def noise(rng: np.random.Generator, T: int, a: float) -> F:
    """(T, 1) of mean 0 and variance 1, each a times the one before and something new."""
    found: F = scipy.signal.lfilter([np.sqrt(1 - a * a)], [1, -a], rng.standard_normal((T, 1)), axis=0)
    return found


def row(name: str, Y: F, Z: F, times: F) -> Row:
    return Row(name, "", {"nrmse": [nrmse(Y, Z)]}, 0.0, 0, Y, {"nrmse": resampled(nrmse, Y, Z, times)})


def test_metrics() -> None:
    Z = np.array([[1.0, 0], [0, 2], [-1, 0], [0, -1]])
    assert nrmse(np.zeros((4, 2)), Z) == 1
    assert nrmse(Z, Z) == maae(3 * Z, Z) == 0
    assert maae(-Z, Z) == pytest.approx(np.pi)
    quarter = np.array([[0, -1.0], [1, 0], [0, 1], [1, 0]])  # turned by -90, -90, -90 and 90 degrees
    assert maae(quarter, Z) == pytest.approx(np.pi / 2)
    assert r2(Z, Z) == 1
    assert r2(np.tile(Z.mean(axis=0), (4, 1)), Z) == 0
    assert nrmse(Z + np.array([3.0, 4.0]), Z) == pytest.approx(np.sqrt(25 / 7 * 4))
    assert median_error(Z + np.array([[3.0, 4], [0, 1], [0, 2], [0, 9]]), Z) == 3.5


def test_the_log_score_is_the_mean_log_density() -> None:
    rng = np.random.default_rng(0)
    Z, mu = rng.standard_normal((2, 5, 3))
    L = rng.standard_normal((5, 3, 3))
    Sigma = L @ L.transpose(0, 2, 1) + np.eye(3)
    each = [scipy.stats.multivariate_normal(m, S).logpdf(z) for z, m, S in zip(Z, mu, Sigma, strict=True)]
    assert log_score(Z, mu, Sigma) == pytest.approx(np.mean(each))
    Z[1] = np.nan
    assert log_score(Z, mu, Sigma) == pytest.approx(np.mean([each[k] for k in (0, 2, 3, 4)]))


def test_error_bars_hold_what_they_say_although_neighbours_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of 200 s at 10 Hz of noise that forgets within 1 s, 60 times over: its 95 % interval holds 0 in most.
    Moving blocks of 10 s are a little too sure; blocks of one sample would be wrong in half."""
    monkeypatch.setattr("rheobase.tools.scores.DRAWS", 200)
    rng = np.random.default_rng(1)
    times, Z = np.arange(2000) / 10, np.zeros((2000, 1))

    def mean(Y: F, Z: F) -> float:
        return float(np.mean(Y - Z))

    held = {1.0: 0, 100.0: 0}
    for _ in range(60):
        Y = noise(rng, 2000, 0.9)
        for stretch in held:
            # times that are 100 times as far apart make blocks of one sample
            low, high = np.quantile(resampled(mean, Y, Z, times * stretch), [0.025, 0.975])
            held[stretch] += low <= 0 <= high
    assert held[1.0] >= 51
    assert held[100.0] <= 36


def test_differences_are_paired() -> None:
    """Two decoders whose errors are nearly the same are told apart, although either's own interval holds both."""
    rng = np.random.default_rng(0)
    Z, times = noise(rng, 1000, 0.9), np.arange(1000) / 10
    error = noise(rng, 1000, 0.9)
    a, b, c = (row(n, Z + k * error, Z, times) for n, k in (("a", 0.5), ("b", 0.51), ("c", 0.5)))
    scores = Scores("x", ["nrmse"])
    (low, high), best = a.interval("nrmse") or (0, 0), b.scores["nrmse"][0]
    assert low < best < high
    assert not scores.as_good(b, a, "nrmse")
    assert scores.as_good(c, a, "nrmse")


def test_no_error_bars_where_the_test_part_is_short() -> None:
    rng = np.random.default_rng(0)
    Z = rng.standard_normal((499, 1))
    short = row("a", 0 * Z, Z, np.arange(499) / 10)
    assert short.interval("nrmse") is None
    assert not Scores("x", ["nrmse"]).as_good(short, short, "nrmse")
    Z = rng.standard_normal((500, 1))
    assert row("a", 0 * Z, Z, np.arange(500) / 10).interval("nrmse") == (1, 1)


def test_rows_that_are_missing_are_left_out_of_the_draws() -> None:
    Z, times = np.ones((1000, 1)), np.arange(1000) / 10
    Y = np.where(np.arange(1000)[:, None] % 3 == 0, np.nan, 0.5)
    assert row("a", Y, Z, times).interval("nrmse") == (0.5, 0.5)


def test_the_tables_tell_what_is_known() -> None:
    Z, times = np.ones((1000, 2)), np.arange(1000) / 10
    scores = Scores("x", ["nrmse", "median_error"])
    scores.spec, scores.times, scores.Z = Spec(rate=10, channels=("a", "b"), unit="px"), times, Z
    for name, k in (("plain", 0.5), ("sure", 0.25)):
        each = {"nrmse": [1 - k, 1 - k], "median_error": [9.0]}
        scores.rows.append(Row(name, "kind", each, 1.5, 0, k * Z, {"nrmse": resampled(nrmse, k * Z, Z, times)}))
    scores.rows[1].coverage, scores.rows[1].nees, scores.rows[1].log_score = {k: k - 1.5 for k in LEVELS}, 1.25, -3.5
    assert scores.best(scores.rows).name == "plain"
    told = scores.to_dict()
    assert told["plain"]["interval"] == {"nrmse": (0.5, 0.5)}
    assert "coverage" not in told["plain"]
    assert (told["sure"]["coverage"][90], told["sure"]["nees"], told["sure"]["log_score"]) == (88.5, 1.25, -3.5)
    console = rich.console.Console(record=True, width=120)
    scores.show(console)
    text = console.export_text()
    for word in ("median error, px", "0.5000 ± 0.0000", "48.5", "88.5", "93.5", "1.25", "-3.500"):
        assert word in text


def test_accuracy_and_auc() -> None:
    Z = np.array([[0.0, 1], [1, 0], [1, 1], [0, 0], [1, 0]])
    Y = np.array([[0.1, 0.9], [0.4, 0.8], [0.9, 0.95], [0.4, 0.1], [0.8, 0.2]])
    assert accuracy(Y, Z) == 8 / 10
    assert auc(Y, Z) == pytest.approx(np.mean([5.5 / 6, 1.0]))
    assert auc(-Y, Z) == pytest.approx(1 - np.mean([5.5 / 6, 1.0]))
    assert np.isnan(auc(Y, np.ones_like(Z)))


def test_rows_that_came_in_chunks_of_one_time_are_resampled_too() -> None:
    rng = np.random.default_rng(0)
    Z, t = rng.standard_normal((3000, 1)), np.arange(3000) / 20
    plain = resampled(r2, Z + 0.1, Z, t)
    chunked = resampled(r2, Z + 0.1, Z, np.repeat(t[::10], 10))
    assert len(chunked) == len(plain) > 0 and 0.8 < np.std(chunked) / np.std(plain) < 1.25
    assert len(resampled(r2, Z, Z, np.zeros(3000))) == 0
