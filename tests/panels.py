"""Streams for every panel of the window, the same on every machine, and the panel that shows them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rheobase.devices.view import View, Window
from rheobase.nodes.task import TASK
from rheobase.stream.block import Block, Spec, numbered

T0 = 1000.0
"""s: the streams end here, long before now."""
Stream = tuple[Spec, np.ndarray]


def regular(rate: float, seconds: float) -> np.ndarray:
    return T0 - seconds + np.arange(1, round(rate * seconds) + 1) / rate


def waves(n: int = 12, rate: float = 250.0, seconds: float = 10.0, rhythm: float = 2.5e-5) -> Stream:
    """EEG-like: noise with a rhythm of 10 Hz that comes and goes, V."""
    t, rng = regular(rate, seconds), np.random.default_rng(1)
    x = rng.standard_normal((len(t), n)) * 8e-6
    x += rhythm * np.sin(2 * np.pi * 10 * t + np.arange(n)[:, None] / 3).T * (np.sin(t) > 0)[:, None]
    return Spec(rate=rate, channels=numbered("ch", n), unit="V"), x


def rates(n: int = 96, rate: float = 50.0, seconds: float = 10.0) -> Stream:
    t, rng = regular(rate, seconds), np.random.default_rng(2)
    mean = np.linspace(0.1, 3, n) * (1 + np.sin(t[:, None] + np.arange(n) / 9))
    return Spec(rate=rate, channels=numbered("n", n), unit="count"), rng.poisson(mean).astype(float)


def task(seconds: float = 10.0) -> Stream:
    t = regular(100.0, seconds)
    at = {c: i for i, c in enumerate(TASK)}
    x = np.zeros((len(t), len(TASK)))
    turn = 2 * np.pi * (t - t[0]) / 8
    x[:, at["cursor_x"]], x[:, at["cursor_y"]] = 0.08 * np.cos(turn), 0.08 * np.sin(turn)
    x[:, at["target_x"]] = np.where(t < T0 - 4, -0.12, 0.085)
    x[:, at["target_y"]] = np.where(t < T0 - 4, 0.0, 0.085)
    x[:, at["radius"]], x[:, at["number"]] = 0.012, 1 + (t >= T0 - 4)
    x[np.searchsorted(t, T0 - 4) - 1, at["outcome"]] = 1
    x[:, at["intended_x"]], x[:, at["intended_y"]] = -0.15 * np.sin(turn), 0.15 * np.cos(turn)
    return Spec(rate=100, channels=TASK, unit="m"), x


def velocity(covariance: bool) -> Stream:
    t = regular(50.0, 10.0)
    names: tuple[str, ...] = ("vx", "vy")
    x = np.column_stack([0.2 * np.sin(t), 0.15 * np.cos(1.3 * t)])
    if not covariance:
        return Spec(rate=50, channels=names, unit="m/s"), x
    rng = np.random.default_rng(3)
    x += 0.03 * rng.standard_normal(x.shape)
    spread = np.tile([0.0016, 0.0008, 0.0016], (len(t), 1)) * (1 + 0.5 * np.sin(t))[:, None]
    return Spec(rate=50, channels=(*names, "cov(vx,vx)", "cov(vx,vy)", "cov(vy,vy)"), unit="m/s"), np.hstack(
        [x, spread]
    )


def posterior(k: int = 4) -> Stream:
    t, rng = regular(20.0, 10.0), np.random.default_rng(4)
    on = (np.floor(t / 2.2) % k).astype(int)
    x = 6.0 * (np.arange(k) == on[:, None]) + 1.2 * rng.standard_normal((len(t), k)).cumsum(axis=0) / 8
    p = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    return Spec(rate=20, channels=(*numbered("p", k), "state")), np.column_stack([p, p.argmax(axis=1)])


def spikes(n: int = 24) -> Stream:
    t, rng = regular(200.0, 10.0), np.random.default_rng(5)
    on = (np.floor(t / 2.2) % 4).astype(int)
    often = 0.01 + 0.12 * (np.arange(n)[None] * 4 // n == on[:, None])
    return Spec(rate=200, channels=numbered("n", n), unit="count"), (rng.random((len(t), n)) < often).astype(float)


def life(units: int = 0, cycles: int = 150) -> Stream:
    """One engine, or a fleet whose units began at different times."""
    rng = np.random.default_rng(6)
    rows = []
    for u in range(max(units, 1)):
        end = 160 + rng.integers(0, 120)
        for c in range(max(10, cycles - 4 * u)):
            left = end - c
            health = 1 - (c / end) ** 3 + 0.02 * rng.standard_normal()
            state = min(3.0, np.floor(4 * (c / end) ** 2))
            middle = left * (1 + 0.1 * np.sin(c / 15))
            rul = [middle * 0.6, middle, middle * 1.35 + 5]
            rows.append((c, [u + 1.0] * bool(units) + [*rul, health, state]))
    rows.sort(key=lambda r: r[0])
    names = ("unit",) * bool(units) + ("rul_5", "rul_50", "rul_95", "health", "state")
    return Spec(rate=0, channels=names, unit="cycles"), np.array([x for _, x in rows])


def pose() -> Stream:
    t = regular(50.0, 10.0)
    turn = t / 3
    x = np.column_stack([np.cos(turn) * (2 + 0.3 * np.sin(t)), np.sin(turn) * 2, turn + np.pi / 2])
    return Spec(rate=50, channels=("x", "y", "heading"), unit="m"), x


def orientation() -> Stream:
    t = regular(50.0, 10.0)
    half = np.column_stack([0.6 + 0 * t, 0.3 + 0 * t]) / 2
    q = np.column_stack([np.cos(half[:, 0]), 0 * t, 0.3 * np.sin(half[:, 1]), np.sin(half[:, 0])])
    return Spec(rate=50, channels=("qw", "qx", "qy", "qz")), q


def words() -> Stream:
    x = np.array([["trial 7 begins"], ["target acquired"], ["cough"]], object)
    return Spec(rate=0, channels=("marker",), dtype="str"), x


SCENES: dict[str, tuple[dict[str, Callable[[], Stream]], Any]] = {
    # name: streams, what the config says of the panel
    "traces": ({"eeg": waves, "marks": words}, "traces"),
    "traces_128": ({"array": lambda: waves(128, rhythm=1e-4)}, "traces"),
    "image": ({"rates": rates}, "image"),
    "raster": ({"spikes": spikes}, "raster"),
    "spectrum": ({"eeg": waves}, {"kind": "spectrum", "of": "eeg", "channels": ["ch3", "ch0", "ch1", "ch2"]}),
    "spectrogram": ({"eeg": waves}, {"kind": "spectrogram", "of": "eeg"}),
    "cursor": (
        {"task": task, "decoded": lambda: velocity(True)},
        {"kind": "cursor", "of": ["task", "decoded"]},
    ),
    "path": ({"pose": pose}, "path"),
    "orientation": ({"imu": orientation}, "path"),
    "states": ({"states": posterior, "spikes": spikes}, {"kind": "states", "of": ["states", "spikes"]}),
    "connectivity": ({"states": posterior}, {"kind": "connectivity", "of": "states"}),
    "life": ({"engine": life}, "life"),
    "fleet": ({"fleet": lambda: life(40)}, "fleet"),
    "compare": (
        {"decoded": lambda: velocity(True), "truth": lambda: velocity(False)},
        {"kind": "compare", "of": ["decoded", "truth"]},
    ),
    "numbers": ({"decoded": lambda: velocity(True)}, "numbers"),
    "words": ({"markers": words}, "numbers"),
    "health": ({"eeg": waves, "rates": rates}, {"kind": "health", "of": ["eeg", "rates"]}),
}


def times_of(spec: Spec, n: int) -> np.ndarray:
    if spec.rate:
        return T0 + (np.arange(n) + 1 - n) / spec.rate
    return T0 + (np.arange(n) + 1 - n) * (3.0 if spec.dtype == "str" else 0.05)


def viewed(name: str, theme: str = "dark", model: str = "") -> View:
    """A view of one panel alone, that has taken its streams."""
    streams, entry = SCENES[name]
    entry = {"kind": entry, "of": next(iter(streams))} if isinstance(entry, str) else dict(entry)
    if model:
        entry |= {"model": model}
    v = View.make(panels={name: entry}, layout=[name], theme=theme)
    v.inputs = tuple(streams)
    given = {key: make() for key, make in streams.items()}
    v.start(*(spec for spec, _ in given.values()))
    for i, (spec, x) in enumerate(given.values()):
        t = times_of(spec, len(x))
        data = x if spec.dtype == "str" else x.astype(float)
        for a in range(0, len(t), 50):
            v.take(i, Block(data[a : a + 50], t[a : a + 50], a))
    return v


def shown(name: str, theme: str = "dark", size: tuple[int, int] = (480, 320), model: str = "") -> Window:
    """Its window, without the table of health, laid out and painted."""
    v = viewed(name, theme, model)
    if name == "health":
        for k, feed in enumerate(v.feeds):
            feed.ages.clear()
            feed.ages.extend(np.random.default_rng(k).gamma(4, 0.001 * (k + 1), 1000).tolist())
            feed.lost.append((T0 - 3 * k - 1.0, 7 + k))
    w = v.window()
    w.table.setVisible(False)
    w.status.setVisible(False)
    w.slider.setVisible(False)
    w.resize(*size)
    w.grab()  # lays it out
    w.paint()
    return w
