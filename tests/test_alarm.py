"""The alarm, the law of level crossings, and the calibrator."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter

from rheobase.nodes.alarm import Alarm
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.fuse import apply
from rheobase.tools import alarm, crossings
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


def test_its_page(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    path = f"{tmp_path}/quiet.csv"
    x = lfilter([1.0], [1.0, -0.8], np.random.default_rng(0).standard_normal(20_000))
    np.savetxt(path, np.column_stack([x, -x]), delimiter=",", header="a,b", comments="")
    assert alarm.main([path, "--rate", "100", "--channel", "b", "--target", "1000"]) == 0
    assert "simulation" in capsys.readouterr().out
    assert alarm.main([path, "--rate", "100", "--channel", "c"]) == 1
    assert "no 'c'" in capsys.readouterr().err
    assert crossings.tail(0.0) == 0.5
