"""The level, or the time, of an alarm for a rate of false alarms: python -m rheobase.tools.alarm FILE --target 2

From a recording of when all is well: the first half says what is normal, the second how many alarms there would have
been. Below the table stands the alarm as a config has it; NAME is what gives that channel. Without a file it does so
with signals that it makes, and with the training engines of C-MAPSS while they are new.

Where the signal is smooth, near Gaussian and its autocorrelation falls without swinging, the law of level crossings
(`crossings.py`) gives the rate, however low. Else an autoregressive model of the signal, with its own errors drawn
again, is run for a million samples and more, and alarms are counted; below what that shows, log rate goes on as a line
in level^2, as Rice's law has it.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import rich.console
import rich.table
from numpy.typing import NDArray

from rheobase.devices.replay import Replay
from rheobase.nodes.alarm import SLACK, Alarm
from rheobase.stream.block import Array, StreamError
from rheobase.stream.fuse import apply
from rheobase.stream.node import nearest
from rheobase.tools.crossings import curvature, lawful, rice, stays

F = NDArray[np.float64]
Side = Literal["above", "below", "either"]
LONG, LONGEST = 1_000_000, 8_000_000
"""Samples simulated; most of them."""
ENOUGH = 50
"""Alarms counted, at least, for a rate to be believed."""
ORDER = 40
"""Largest order of the autoregressive model; the one of least AIC is taken."""
GAUSSIAN = 0.3
"""Largest excess kurtosis and skewness, in absolute value, that the law is used for."""


@dataclasses.dataclass(frozen=True)
class Normal:
    """What is normal: mean, sd, an autoregressive model z_t = sum a_k z_{t-k} + e of the standardised signal, errors e
    to draw from, its autocorrelation r at steps of dt s, and why the law does not hold ("" where it does)."""

    mean: float
    sd: float
    a: F
    e: F
    r: F
    dt: float
    why: str


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """level (from the centre, in the unit of the signal), hold s, expected false alarms a second, how they were
    found. Rounded such that there are no more of them for that."""

    level: float
    hold: float
    centre: float
    expected: float
    how: str
    side: Side = "above"

    def config(self) -> str:
        """The node in a config, but for the name of its input."""
        numbers = f"level: {self.level:.15g}, centre: {self.centre:.15g}, hold: {self.hold:.15g}"
        side = "" if self.side == "above" else f", side: {self.side}"
        return f"alarm: {{type: alarm, in: NAME, {numbers}{side}}}"


def normal(xs: Sequence[F], rate: float) -> Normal:
    """What is normal, from stretches of a signal when all is well. Raises StreamError where there is too little."""
    whole = np.concatenate(xs)
    whole = whole[np.isfinite(whole)]
    if len(whole) < 10 * ORDER or not whole.std() > 0:
        raise StreamError(f"{len(whole)} samples that vary are too few, {10 * ORDER} are the least")
    mean, sd = float(whole.mean()), float(whole.std())
    zs = [np.nan_to_num((x - mean) / sd) for x in xs]
    c = np.array([sum(float(z[k:] @ z[: len(z) - k]) for z in zs if len(z) > k) for k in range(ORDER + 1)]) / len(whole)
    c /= c[0]
    a: Array = np.zeros(0)
    best = math.inf
    for p in range(1, ORDER + 1):
        R = c[np.abs(np.subtract.outer(np.arange(p), np.arange(p)))]
        fit = np.linalg.solve(R + 1e-9 * np.eye(p), c[1 : p + 1])
        aic = len(whole) * math.log(max(1 - float(fit @ c[1 : p + 1]), 1e-12)) + 2 * p
        if aic < best:
            a, best = fit, aic
    p = len(a)
    e = np.concatenate([z[p:] - sum(a[k] * z[p - 1 - k : len(z) - 1 - k] for k in range(p)) for z in zs if len(z) > p])
    r = _autocorrelation(a, max(2000, 20 * p))
    z = (whole - mean) / sd
    why = lawful(r, 1.3)
    if max(abs(float(np.mean(z**3))), abs(float(np.mean(z**4)) - 3)) > GAUSSIAN:
        why = "it is not Gaussian"
    return Normal(mean, sd, a, e - e.mean(), r, 1 / rate, why)


def calibrate(
    n: Normal, target: float, *, hold: float | None = None, level: float | None = None,
    side: Side = "above", seed: int = 0,
) -> Calibrated:  # fmt: skip
    """For `target` false alarms a second on that side: the level for a hold (s), or the hold for a level (in the unit
    of the signal, from its mean). Raises StreamError where no level, or no hold, gives so few."""
    if not target > 0 or (hold is None) == (level is None):
        raise StreamError("needs a target above 0 a second, and either the hold or the level")
    digits = 3 - math.floor(math.log10(n.sd))
    centre = round(n.mean, digits)
    off = abs(centre - n.mean)
    law = None if n.why else _law(n, 2 if side == "either" else 1)
    z = np.empty(0) if law else _simulated(n, target, side, seed)
    how = "law" if law else "simulation"
    if level is None:
        given = hold or 0.0
        tells = (lambda v: law(v, given)) if law else _counts_by_level(z, given, n.dt)
        u = _solve(tells, target, 0.0, 12.0, "level")
        return Calibrated(_up(u * n.sd + off, digits), given, centre, tells(u), how, side)
    fixed = (level - off) / n.sd
    tells = (lambda h: law(fixed, h)) if law else _counts_by_hold(z, fixed, n.dt)
    found = _solve(tells, target, 0.0, 500 * n.dt * max(1, len(n.a)), "hold")
    return Calibrated(level, _up(found, 1 - math.floor(math.log10(n.dt))), centre, tells(found), how, side)


def count(xs: Sequence[F], c: Calibrated, rate: float) -> int:
    """Alarms in stretches of a signal, by the node itself."""
    node, total = Alarm(level=c.level, hold=c.hold, centre=c.centre, side=c.side), 0
    for x in xs:
        on = apply(node, x, rate=rate).data[:, 0]
        total += int(on[0] + np.count_nonzero(np.diff(on) > 0))
    return total


def _up(x: float, digits: int) -> float:
    """Rounded up to so many digits behind the point."""
    near = round(x, digits)
    return near if near >= x else round(near + 10.0**-digits, digits)


def _law(n: Normal, sides: int) -> Callable[[float, float], float]:
    r = n.r[: max(50, int(np.argmax(n.r < 1e-4)) or len(n.r))]
    t, lambda_2 = np.arange(len(r)) * n.dt, curvature(n.r, n.dt)
    fine = np.linspace(0, t[-1], max(2000, 2 * len(r)))
    smooth = _spline(t, r, fine)
    return lambda u, hold: sides * rice(u, lambda_2) * float(stays(hold, fine, smooth, u, lambda_2)[0])


def _simulated(n: Normal, target: float, side: Side, seed: int) -> F:
    """The model's signal, as seen from that side, long enough for twice `ENOUGH` alarms where that is not too long."""
    from scipy.signal import lfilter

    rng, size = np.random.default_rng(seed), LONG
    while size < LONGEST and size * n.dt * target < 2 * ENOUGH:
        size *= 2
    z = lfilter([1.0], np.r_[1.0, -n.a], rng.choice(n.e, size + 1000))[1000:]
    z /= z.std()
    seen: dict[str, F] = {"above": z, "below": -z, "either": np.abs(z)}
    return seen[side]


def _counts_by_level(z: F, hold: float, dt: float) -> Callable[[float], float]:
    """Alarms a second above u, held for hold s, k samples: the upcrossings by the least of the last k + 1 samples.

    A step of that from a up to b crosses all levels in [a, b): sorted, the steps give every level at once.
    """
    from scipy.ndimage import minimum_filter1d

    width, seconds = math.ceil(max(hold - SLACK, 0.0) / dt) + 1, len(z) * dt
    w = minimum_filter1d(z, width)
    up = w[1:] > w[:-1]
    froms, tos = np.sort(w[:-1][up]), np.sort(w[1:][up])

    def count(u: float) -> int:
        return int(np.searchsorted(froms, u, "right") - np.searchsorted(tos, u, "right"))

    def expected(u: float) -> float:
        m = count(u)
        if m >= ENOUGH or u <= 0:
            return m / seconds
        low, high = 0.0, u
        for _ in range(40):  # the highest level that is passed often enough
            mid = (low + high) / 2
            low, high = (mid, high) if count(mid) >= ENOUGH else (low, mid)
        before = math.sqrt(max(low**2 - 1, 0.0))
        near = max(count(low), 1)
        slope = min(math.log(near / max(count(before), 1)) / max(low**2 - before**2, 1e-9), -0.05)
        return near * math.exp(slope * (u * u - low * low)) / seconds

    return expected


def _counts_by_hold(z: F, u: float, dt: float) -> Callable[[float], float]:
    """Alarms a second above u, held for h seconds."""
    edge = np.diff(np.concatenate([[0], (z > u).astype(np.int8), [0]]))
    samples = np.flatnonzero(edge < 0) - np.flatnonzero(edge > 0)  # of each stay
    return lambda h: int(np.count_nonzero(samples - 1 >= (h - SLACK) / dt)) / (len(z) * dt)


def _solve(f: Callable[[float], float], target: float, low: float, high: float, what: str) -> float:
    """Where a falling f comes down to the target; the first of those in a grid, then by halves."""
    grid = np.linspace(low, high, 61)
    at = next((k for k, v in enumerate(grid) if f(float(v)) <= target and (k > 0 or what == "hold")), None)
    if at is None:
        raise StreamError(f"no {what} gives as few as {target:g} false alarms a second")
    if at == 0:
        return low
    # a rate rises before it falls where the level is low: then the first point may lie below the target, too
    a, b = float(grid[at - 1]), float(grid[at])
    if f(a) <= target:
        rising = [float(v) for v in grid if f(float(v)) > target]
        if not rising:
            return a
        a, b = rising[-1], rising[-1] + float(grid[1] - grid[0])
    for _ in range(40):
        mid = (a + b) / 2
        a, b = (mid, b) if f(mid) > target else (a, mid)
    return b


def _autocorrelation(a: F, n: int) -> F:
    """Of an autoregressive model: r_k = sum_j a_j r_|k-j|, from Yule and Walker's equations."""
    p = len(a)
    M, v = np.eye(p), np.zeros(p)  # unknown r_1..r_p
    for k in range(1, p + 1):
        for j in range(1, p + 1):
            lag = abs(k - j)
            if lag == 0:
                v[k - 1] += a[j - 1]
            else:
                M[k - 1, lag - 1] -= a[j - 1]
    r = np.ones(n)
    r[1 : p + 1] = np.linalg.solve(M, v)
    for k in range(p + 1, n):
        r[k] = a @ r[k - p : k][::-1]
    return r


def _spline(t: Array, r: Array, at: Array) -> F:
    from scipy.interpolate import CubicSpline

    return np.asarray(CubicSpline(t, r, bc_type=((1, 0.0), "natural"))(at))


def signals(seed: int = 0, n: int = 200_000) -> dict[str, tuple[list[F], float]]:
    """Name -> stretches and rate (Hz) of signals when all is well."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(seed)
    rough = lfilter([1.0], [1.0, -0.9], rng.standard_normal(n))
    smooth = rng.standard_normal(n)
    for _ in range(4):
        smooth = lfilter([0.1], [1.0, -0.9], smooth)
    heavy = lfilter([1.0], [1.0, -0.7], rng.standard_t(4, n))
    return {"smooth, 4 poles": ([smooth], 100.0), "rough, 1 pole": ([rough], 100.0), "heavy tails": ([heavy], 100.0)}


def engines() -> tuple[list[F], float]:
    """How far the sensors of new engines are from what they were: one-step errors of an AR-HMM on the health indicator,
    averaged over 5 cycles, while more than 125 cycles are to come. What it was learnt on is not used here."""
    from rheobase.nodes.arphmm import ARPHMM
    from rheobase.nodes.averages import Averages
    from rheobase.nodes.health import Health
    from rheobase.nodes.regime_scale import RegimeScale
    from rheobase.stream.fuse import apply
    from rheobase.tools.engines import read

    train, _ = read("FD001")
    learn = train.unit <= 40
    scale = RegimeScale().fit(train.X[learn], train.life[learn, None], segment=train.unit[learn])
    Z = scale.predict(train.X, train.unit)
    health = Health(smooth=1.0).fit(Z[learn], train.life[learn, None], segment=train.unit[learn])
    h = health.predict(Z, train.unit)
    node = ARPHMM(states=6, order=3).fit(h[learn], train.life[learn, None], segment=train.unit[learn])
    z = node.predict(h, train.unit)[:, 3]
    found = []
    for k in range(41, 101):
        rows = (train.unit == k) & (train.life > 125) & np.isfinite(z)
        if rows.sum() > 20:
            found.append(apply(Averages(over=(5.0,)), -z[rows]).data[5:, 0])
    return found, 1.0


def judged(name: str, xs: list[F], rate: float, target: float, **given: Any) -> tuple[list[str], Calibrated]:
    """A row of the table, and the alarm, as `calibrate` finds it: learnt on the one half, counted on the other."""
    if len(xs) == 1:
        xs = list(np.array_split(xs[0], 2))
    known, others = xs[::2], xs[1::2]
    n = normal(known, rate)
    c = calibrate(n, target, **given)
    seconds = sum(map(len, others)) / rate
    seen = count(others, c, rate)
    return [name, c.how, n.why, f"{c.level:.15g}", f"{c.hold:g}", f"{target * seconds:.1f}", str(seen),
            f"{seen / (target * seconds):.2f}"], c  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="alarm", description="The level of an alarm for a rate of false alarms.")
    parser.add_argument("file", nargs="?", help="a recording of when all is well, as `replay` reads it")
    parser.add_argument("--stream", default="", help="which stream of it")
    parser.add_argument("--channel", default="", help="which channel (the first)")
    parser.add_argument("--rate", type=float, default=0.0, help="Hz, where the file does not say")
    parser.add_argument("--times", default="", help="the array or column that holds the time of each sample, s")
    parser.add_argument("--target", type=float, default=1.0, metavar="N", help="false alarms an hour (1)")
    parser.add_argument("--side", choices=get_args(Side), default="above", help="of what is normal (above)")
    parser.add_argument("--hold", type=float, metavar="S", help="s that the level must be passed for (0)")
    parser.add_argument("--level", type=float, metavar="X", help="from what is normal: finds the hold for it instead")
    given = parser.parse_args(argv)
    table = rich.table.Table(title="False alarms, learnt on one half of what is healthy")
    for heading in ("signal", "by", "for", "level", "hold, s", "expected", "counted on the other half", "ratio"):
        table.add_column(heading, justify="left" if heading in ("signal", "by", "for") else "right")
    config = ""
    try:
        asked = _asked(given)
        if given.file:
            row, found = judged(*_recorded(given), given.target / 3600, **asked)
            table.add_row(*row)
            config = found.config()
        else:
            for name, (xs, rate) in signals().items():
                for hold in (0.0, 0.1):
                    table.add_row(*judged(name, xs, rate, 0.1, hold=hold)[0])
            xs, rate = engines()
            for hold in (0.0, 2.0):
                table.add_row(*judged("new engines (cycles)", xs, rate, 0.015, hold=hold)[0])
    except StreamError as e:
        print(f"alarm: {e}", file=sys.stderr)
        return 1
    rich.console.Console(width=160).print(table)
    if config:
        print(config)
    return 0


def _asked(given: argparse.Namespace) -> dict[str, Any]:
    """What `calibrate` is asked for. Raises StreamError that begins with the option."""
    hold = given.hold if given.level is not None or given.hold is not None else 0.0
    if not 0 < given.target < math.inf:
        raise StreamError(f"--target: must be more than 0, got {given.target:g}")
    if hold is not None and not 0 <= hold < math.inf:
        raise StreamError(f"--hold: must be 0 or more, got {hold:g}")
    if given.level is not None and not 0 < given.level < math.inf:
        raise StreamError(f"--level: must be more than 0, got {given.level:g}")
    if given.level is not None and hold is not None:
        raise StreamError("--hold: is found for a --level, so give one of them")
    return {"hold": hold, "level": given.level, "side": given.side}


def _recorded(given: argparse.Namespace) -> tuple[str, list[F], float]:
    """Name, samples and rate of a channel of a file."""
    source = Replay.make(file=given.file, stream=given.stream, rate=given.rate, times=given.times)
    spec = source.start()
    if not spec.rate:
        raise StreamError("--rate: the file does not say, and it must be known")
    channel = given.channel or spec.channels[0]
    if channel not in spec.channels:
        raise StreamError(f"channel: no {channel!r}{nearest(channel, spec.channels)}")
    x = np.concatenate([np.empty((0, spec.n)), *(b.data for b in source.blocks())])[:, spec.channels.index(channel)]
    return channel, [x.astype(float)], spec.rate


if __name__ == "__main__":
    sys.exit(main())
