"""The alarm, the law of level crossings, and the calibrator."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.signal import lfilter

from rheobase.nodes.alarm import Alarm
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply
from rheobase.tools import alarm
from rheobase.tools.crossings import curvature, lawful, persistence, rice, stays, tail

F = NDArray[np.float64]


def on(x: list[float], **given: object) -> list[int]:
    times = np.arange(len(x)) * 1.0
    y = apply(Alarm.make(**given), np.array(x)[:, None], Spec(rate=0, channels=("x",)), times).data
    return [int(v) for v in y[:, 0]]


def test_it_waits() -> None:
    x = [0, 2, 2, 2, 0, 2, 2, np.nan, 2, 1, 2]
    assert on(x, level=1) == [0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
    assert on(x, level=1, hold=2) == [0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0]


def test_sides() -> None:
    x = [0, 4, 0, -2, 0]
    assert on(x, level=1.5, side="above", centre=1) == [0, 1, 0, 0, 0]
    assert on(x, level=1.5, side="below", centre=1) == [0, 0, 0, 1, 0]
    assert on(x, level=1.5, side="either", centre=1) == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("rate", [30.0, 100.0, 250.0, 1000.0, 30_000.0])
def test_a_hold_is_always_as_many_samples(rate: float) -> None:
    """However the times are rounded, near 0 and as times of day."""
    n, rng = round(0.1 * rate), np.random.default_rng(0)
    for start in (*(0.0, 0.1, 1e3), *rng.uniform(0, 100, 20), *(1.7e9 + rng.uniform(0, 1e6, 20))):
        times = start + np.arange(n + 2) / rate
        y = apply(Alarm(level=1, hold=0.1), np.full(n + 2, 2.0), Spec(rate=rate, channels=("x",)), times).data
        assert int(np.count_nonzero(y == 0)) == n, start


@pytest.mark.parametrize("rate", [30.0, 100.0, 250.0, 1000.0])
@pytest.mark.parametrize("k", [0, 1, 3, 10])
def test_what_is_counted_is_what_the_node_does(rate: float, k: int) -> None:
    """At a hold of k samples, and of a little less and more."""
    z = lfilter([1.0], [1.0, -0.9], np.random.default_rng(2).standard_normal(20_000)) / 2.3
    z[:20] = z[-20:] = -1.0
    for hold in (k / rate, max(k - 0.4, 0.0) / rate, (k + 0.4) / rate):
        c = alarm.Calibrated(0.5, hold, 0.0, 0.0, "")
        seen = alarm.count([z], c, rate)
        assert seen > alarm.ENOUGH
        assert alarm._counts_by_level(z, hold, 1 / rate)(0.5) * len(z) / rate == pytest.approx(seen, abs=1e-6)
        assert alarm._counts_by_hold(z, 0.5, 1 / rate)(hold) * len(z) / rate == pytest.approx(seen, abs=1e-6)


@pytest.mark.parametrize("d, theta", [(1, 0.1203), (2, 0.1862), (3, 0.2358)])
def test_persistence_exponents_of_diffusion(d: int, theta: float) -> None:
    t = np.linspace(0, 80, 40_001)
    r = np.cosh(t / 2) ** (-d / 2)
    assert persistence(t, r, d / 8, -d / 4 * np.tanh(t / 2) * r) == pytest.approx(theta, abs=5e-5)


@pytest.mark.parametrize(
    "smooth, u, expected",
    [(True, 1.0, (0.792, 0.398, 0.078, 0.017)), (False, 2.0, (0.687, 0.404, 0.111, 0.026))],
    ids=["r = exp(-t^2 / 2)", "Matern 3/2"],
)
def test_how_long_stays_last(smooth: bool, u: float, expected: tuple[float, ...]) -> None:
    """At 1/2, 1, 2 and 3 mean stays, which simulations confirmed (0.796, 0.411, 0.083, 0.014 of the first)."""
    t = np.linspace(0, 30, 6001)
    r, slope = (np.exp(-(t**2) / 2), -t * np.exp(-(t**2) / 2)) if smooth else ((1 + t) * np.exp(-t), -t * np.exp(-t))
    mean = tail(u) / rice(u, 1.0)
    np.testing.assert_allclose(stays(mean * np.array([0.5, 1, 2, 3]), t, r, u, 1.0, slope), expected, atol=1e-3)


def test_rice_and_the_mean_stay_against_a_simulation() -> None:
    """A sum of 400 waves with the spectrum of r = exp(-t^2 / 2)."""
    rng = np.random.default_rng(0)
    dt, n, crossed, above = 0.1, 40_000, 0, 0
    for _ in range(4):
        x = np.zeros(n)
        for w, phase in zip(rng.standard_normal(400), rng.uniform(0, 2 * np.pi, 400), strict=True):
            x += np.cos(w * dt * np.arange(n) + phase) / np.sqrt(200)
        crossed += int(np.sum((x[1:] > 1) & (x[:-1] <= 1)))
        above += int(np.sum(x > 1))
    assert tail(0.0) == 0.5
    assert crossed / (4 * n * dt) == pytest.approx(rice(1.0, 1.0), rel=0.03)
    assert above * dt / crossed == pytest.approx(tail(1.0) / rice(1.0, 1.0), rel=0.03)


def test_where_the_law_does_not_hold_it_says_why() -> None:
    t = np.arange(400) * 0.02
    assert lawful(np.exp(-(t**2) / 2)) == ""
    assert curvature(np.exp(-(t**2) / 2), 0.02) == pytest.approx(1.0, abs=1e-4)
    assert "rough" in lawful(np.exp(-t))
    assert "swings" in lawful(np.exp(-(t**2) / 8) * np.cos(2 * t))
    assert "remembers" in lawful(np.exp(-(t**2) / 2000))
    assert "too fast" in lawful(0.3 ** np.arange(10.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind, hold", list(itertools.product(["smooth", "rough", "heavy"], [0.0, 0.1])))
def test_false_alarms_are_as_many_as_were_asked_for(kind: str, hold: float) -> None:
    """Learnt on the first half, counted on the second: within a factor 1.5 of 100 expected ones."""
    xs, rate = next(v for k, v in alarm.signals().items() if k.startswith(kind))
    known, other = np.array_split(xs[0], 2)
    n = alarm.normal([known], rate)
    assert (n.why == "") == (kind == "smooth")
    c = alarm.calibrate(n, 0.1, hold=hold)
    assert c.how == ("law" if kind == "smooth" else "simulation")
    assert 1 / 1.5 < alarm.count([other], c, rate) / (0.1 * len(other) / rate) < 1.5


def test_the_hold_for_a_level() -> None:
    xs, rate = alarm.signals()["smooth, 4 poles"]
    n = alarm.normal(xs, rate)
    by_hold = alarm.calibrate(n, 0.05, hold=0.1)
    by_level = alarm.calibrate(n, 0.05, level=by_hold.level)
    assert by_level.hold == pytest.approx(0.1, abs=2e-3)
    rare = alarm.calibrate(n, 1 / (30 * 86400), hold=0.1)
    assert rare.how == "law" and by_hold.level < rare.level < 10 * n.sd
    assert rare.expected == pytest.approx(1 / (30 * 86400), rel=1e-3)


def test_rates_too_low_to_be_counted_go_on_as_a_line_in_the_square() -> None:
    z = lfilter([1.0], [1.0, -0.9], np.random.default_rng(1).standard_normal(20_000))
    c = alarm.calibrate(alarm.normal([z], 100.0), 1e-5, hold=0.0)
    true = z.std()  # white noise of sd 1 through the pole has sd 2.29; P(x > level) must be of the order 1e-7 a sample
    assert 4.5 < c.level / true < 6.0


@pytest.mark.parametrize("given", [{}, {"hold": 0.0, "level": 1.0}])
def test_one_of_level_and_hold_is_asked_for(given: dict[str, float]) -> None:
    n = alarm.normal([np.random.default_rng(0).standard_normal(1000)], 10.0)
    with pytest.raises(StreamError, match="either the hold or the level"):
        alarm.calibrate(n, 1.0, **given)
    with pytest.raises(StreamError, match="too few"):
        alarm.normal([np.zeros(1000)], 10.0)
    with pytest.raises(StreamError, match="no hold gives as few"):
        alarm.calibrate(n, 1e-12, level=-3.0)


@pytest.mark.parametrize("side", ["above", "below", "either"])
def test_sides_of_what_is_normal(side: alarm.Side) -> None:
    """As many as were asked for pass either level, or the one; of a mirrored signal, below is above."""
    rng = np.random.default_rng(3)
    rough = lfilter([1.0], [1.0, -0.9], rng.standard_exponential(200_000))
    smooth, rate = alarm.signals()["smooth, 4 poles"]
    for x, hold in ((rough, 0.1), (smooth[0], 0.0)):
        known, other = np.array_split(x, 2)
        n = alarm.normal([known], rate)
        c = alarm.calibrate(n, 0.2, hold=hold, side=side)
        assert 1 / 1.5 < alarm.count([other], c, rate) / (0.2 * len(other) / rate) < 1.5
        again = alarm.calibrate(n, 0.2, level=c.level, side=side)
        assert hold - 1.01 / rate < again.hold < hold + 2e-3
        if side == "below":
            mirrored = alarm.calibrate(alarm.normal([-known], rate), 0.2, hold=hold)
            assert (mirrored.level, mirrored.centre) == (pytest.approx(c.level), pytest.approx(-c.centre))


def test_no_rounding_lets_more_alarms_through() -> None:
    """The centre lies at a nearest number of few digits: the level is as much further, and rounded up."""
    x = 1013.123456 + 0.0234 * np.random.default_rng(0).standard_normal(20_000)
    n = alarm.normal([x], 100.0)
    for side in ("above", "below", "either"):
        c = alarm.calibrate(n, 0.01, hold=0.0, side=side)
        exact = alarm.calibrate(dataclasses.replace(n, mean=0.0), 0.01, hold=0.0, side=side)
        assert (round(c.centre, 5), round(c.level, 5)) == (c.centre, c.level)
        assert exact.level - 1e-5 <= c.level - abs(c.centre - n.mean) <= exact.level + 1e-5
    assert alarm._up(0.1201, 3) == 0.121 and alarm._up(0.12, 3) == 0.12 and alarm._up(17_001.0, -1) == 17_010


@pytest.fixture
def quiet(tmp_path: Path) -> str:
    """A file of columns t, a, b = 100 - a."""
    x = lfilter([1.0], [1.0, -0.8], np.random.default_rng(0).standard_normal(20_000))
    path = f"{tmp_path}/quiet.csv"
    table = np.column_stack([np.arange(20_000) / 100, x, 100 - x])
    np.savetxt(path, table, delimiter=",", header="t,a,b", comments="", fmt="%.6f")
    return path


def copied(out: str) -> tuple[Alarm, int]:
    """The alarm of the line below the table, and how often it was counted."""
    *table, line = out.strip().splitlines()
    assert line.startswith("alarm: {type: alarm, in: NAME, level: ")
    words = yaml.safe_load(line)["alarm"]
    row = next(line for line in table if "simulation" in line)
    return Alarm.make(**{k: v for k, v in words.items() if k not in ("type", "in")}), int(row.split("│")[-3])


@pytest.mark.parametrize(
    "asked", [["--hold", "0.05"], ["--side", "below"], ["--level", "1.5"], ["--level", "2", "--side", "either"]]
)
def test_its_line_is_the_alarm_that_was_counted(
    quiet: str, capsys: pytest.CaptureFixture[str], asked: list[str]
) -> None:
    assert alarm.main([quiet, "--times", "t", "--channel", "b", "--target", "1000", *asked]) == 0
    node, seen = copied(capsys.readouterr().out)
    x = np.loadtxt(quiet, delimiter=",", skiprows=1)[10_000:, 2]
    on = apply(node, x, rate=100.0).data[:, 0]
    assert seen == on[0] + np.count_nonzero(np.diff(on) > 0) > 0
    assert abs(node.centre - 100) < 0.2 and 0.5 < node.level < 10
    if "--level" in asked:
        assert node.level == float(asked[1]) and node.hold > 0


@pytest.mark.parametrize(
    "asked, text",
    [
        (["--hold", "-1"], "--hold: must be 0 or more, got -1"),
        (["--hold", "nan"], "--hold: must be 0 or more, got nan"),
        (["--target", "0"], "--target: must be more than 0, got 0"),
        (["--target", "-2"], "--target: must be more than 0, got -2"),
        (["--level", "0"], "--level: must be more than 0, got 0"),
        (["--level", "1", "--hold", "0"], "--hold: is found for a --level, so give one of them"),
        (["--channel", "c"], "channel: no 'c'; there is a, b, t"),
        (["--times", "s"], "times: "),
        (["--times", "a"], "--rate: the file does not say, and it must be known"),
        ([], "rate: "),
    ],
)
def test_what_it_cannot_do_it_says_in_a_line(
    quiet: str, capsys: pytest.CaptureFixture[str], asked: list[str], text: str
) -> None:
    rate = ["--rate", "100"] if "--channel" in asked else []
    assert alarm.main([quiet, *rate, *asked]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"alarm: {text}") and said.count("\n") == 1
