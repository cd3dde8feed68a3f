"""`rheo bench`: speed, each figure beside a floor that is measured in the same run.

The floors are the same arithmetic as a C loop (bench.c, gcc -O3 -march=native) and the same message through bare
ZeroMQ sockets. Ours and the floor take turns; a figure is the median of the turns, a ratio is the median of the
ratios of the turns, so that what else the machine does meanwhile falls on both.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import shutil
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from rheobase.devices.signal import Signal
from rheobase.nodes._decoder import Decoder
from rheobase.nodes.bandpass import Bandpass
from rheobase.nodes.bins import Bins
from rheobase.nodes.dkf import DKF
from rheobase.nodes.gaussian_process import GaussianProcess
from rheobase.nodes.gru import GRU
from rheobase.nodes.hiss import HiSS
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.logistic import Logistic
from rheobase.nodes.mlp import MLP
from rheobase.nodes.nadaraya_watson import NadarayaWatson
from rheobase.nodes.place_bayes import PlaceBayes
from rheobase.nodes.refit import ReFIT
from rheobase.nodes.ridge import Ridge
from rheobase.nodes.sequence import Sequence as Sequence_
from rheobase.nodes.unscented_kalman import UnscentedKalman
from rheobase.nodes.zscore import Zscore
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import fine_timer, now, wait_until
from rheobase.stream.engine import Engine
from rheobase.stream.fuse import Loop, cache_folder
from rheobase.stream.graph import Graph
from rheobase.stream.link import Receiver, Sender
from rheobase.stream.node import Count, Kernel, NotNegative, Source, kernel, nearest

TURNS = 15
"""How often ours and the floor take turns."""
BURST = 100
WARM = 20
"""Calls before the first that counts."""
PATIENCE = 10.0
"""s: the longest to wait for a message that must come."""


@dataclass(frozen=True)
class Row:
    """One figure. goal: the largest (or, with more=True, smallest) good value of `judged`, "ours" or "ratio"."""

    what: str
    ours: float
    unit: str
    floor: float = math.nan
    ratio: float = math.nan
    goal: float = math.nan
    judged: str = "ratio"
    more: bool = False

    @property
    def good(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        value = self.ratio if self.judged == "ratio" else self.ours
        if math.isnan(self.goal):
            return None
        return value >= self.goal if self.more else value <= self.goal


class Rate(NamedTuple):
    a: float


class Level(NamedTuple):
    s: NDArray[np.float64]


class OnePole(Kernel):
    """s <- s + a (x - s), y = s: about the least that a kernel can do."""

    a: NotNegative = 0.1
    """Share of the way to x that s goes in a sample."""

    def start(self, x: Spec) -> Spec:
        self.params = Rate(self.a)
        self.state = Level(np.zeros(x.n))
        return x

    @staticmethod
    @kernel
    def step(params, state, t, x, y):
        for i in range(x.shape[0]):
            state.s[i] += params.a * (x[i] - state.s[i])
            y[i] = state.s[i]
        return True


def fuse(scale: float = 1.0) -> list[Row]:
    """Five fused kernels against the same five in one C loop, and a single sample from Python."""
    return [*_chain(1, max(10, int(1_000_000 * scale)), scale), *_chain(96, max(10, int(20_000 * scale)), scale)]


def _chain(n: int, t: int, scale: float) -> list[Row]:
    rng = np.random.default_rng(1)
    x, y, times = rng.normal(size=(t, n)), np.empty((t, n)), np.arange(t) / 1000.0
    a, s = np.linspace(0.1, 0.5, 5), np.zeros((5, n))
    loop = Loop([OnePole(a=float(v)) for v in a], [-1, 0, 1, 2, 3], [4])
    loop.start(Spec(rate=1000, channels=numbered("x", n)))
    chain = floors()[f"chain_{n}"]
    [(_, out)] = loop.process(Block(x, times))
    call_c(chain, t, x, a, s, y)
    same(out.data, y)
    y_times = np.empty(t)
    ours, floor = turns(
        lambda: loop.run(*loop.p, *loop.s, times, x, loop.n_out, y_times, out.data),
        lambda: call_c(chain, t, x, a, s, y),
        scale,
    )
    above = statistics.median((o - f) / t / 5 for o, f in zip(ours, floor, strict=True)) * 1e9
    one, calls = Block(x[:1], times[:1]), max(10, int(5000 * scale))
    took, _ = turns(lambda: [loop.process(one) for _ in range(calls)], lambda: None, scale)
    word = "1 channel" if n == 1 else f"{n} channels"
    return [
        pair(f"five fused kernels, {word}, a sample", ours, floor, 1e9 / t, "ns"),
        Row("  a node a sample above its own arithmetic", above, "ns", goal=10.0, judged="ours"),
        Row("  a single sample from Python", statistics.median(took) / calls * 1e6, "us", goal=5.0, judged="ours"),
    ]


def decode(scale: float = 1.0) -> list[Row]:
    """A step of the Kalman filter and of the DKF on ridge regression, 96 channels, against C."""
    t = max(500, int(20_000 * scale))
    rows = []
    for d in (4, 6):
        X, Z = tuned(d, t)
        for name, node in (("Kalman", Kalman().fit(X, Z)), ("DKF", DKF(f={"type": "ridge", "alpha": 1.0}).fit(X, Z))):
            goal = 1.5 if isinstance(node, Kalman) else 2.0
            rows.append(_decode(f"{name}, d={d}, n=96, a step", node, X, d, scale, goal))
    return rows


def _decode(what: str, node: Decoder, X: NDArray[np.float64], d: int, scale: float, goal: float) -> Row:
    t = len(X)
    loop = Loop([node], [-1], [0])
    loop.start(Spec(rate=50, channels=numbered("x", 96)))
    times, y, y_times = np.arange(t) / 50.0, np.empty((t, d)), np.empty(t)
    [(_, out)] = loop.process(Block(X, times))
    p, a = node.params, node.arrays
    given: tuple[Any, ...]
    if isinstance(node, Kalman):
        f, given = f"kalman_{d}", (p.A, p.Gamma, a["S"], p.K, p.P, p.x_mean, p.z_mean)
    else:
        f, given = f"dkf_{d}", (p.f.W, p.f.b, p.f.x_mean, p.A, p.Gamma, p.Q, p.P, p.B, p.z_mean)
    c = floors()[f]
    call_c(c, t, X, *given, y)
    same(out.data, y)
    ours, floor = turns(
        lambda: loop.run(*loop.p, *loop.s, times, X, loop.n_out, y_times, out.data),
        lambda: call_c(c, t, X, *given, y),
        scale,
    )
    return pair(what, ours, floor, 1e6 / t, "us", goal=goal)


def decoders(scale: float = 1.0) -> list[Row]:
    """From a bin in `Loop.process` to the estimate out of it: single samples of 192 channels, from Python.

    One after the other, and 20 ms apart: by then other work may have pushed the model (and Python) out of the caches.
    """
    X, Z = tuned(2, max(800, int(4000 * min(1.0, scale * 10))), 192)
    rows = []
    for what, make in DECODERS if scale > 0.01 else DECODERS[::4]:  # each takes seconds to compile
        if what.startswith(TAUGHT) and importlib.util.find_spec("torch") is None:
            continue  # learning one needs torch
        counts = "counts" in what
        x = np.ascontiguousarray(np.abs(X).round() if counts else X)
        loop = Loop([make().fit(x, (Z > 0).astype(float) if "labels" in what else Z)], [-1], [0])
        loop.start(Spec(rate=50, channels=numbered("x", x.shape[1])))
        bins = [Block(x[k : k + 1], np.array([k / 50])) for k in range(len(x))]
        quiet()
        took = _process(loop, bins, max(100, int(5000 * scale)), 0.0)
        paced = _process(loop, bins, max(5, int(50 * scale)), 0.02)
        gc.unfreeze()
        p50, p99 = np.percentile(took, (50, 99))
        rows += [
            Row(f"{what}: p50", float(p50), "us"),
            Row("  p99", float(p99), "us", goal=200.0, judged="ours"),
            Row("  20 ms apart, p50", float(np.median(paced)), "us"),
        ]
    return rows


def _process(loop: Loop, bins: list[Block], calls: int, pause: float) -> NDArray[np.float64]:
    """us that each of so many calls took, the first few left out."""
    took = np.empty(calls + WARM)
    for k in range(len(took)):
        if pause and k >= WARM:
            time.sleep(pause)
        one = bins[k % len(bins)]
        start = time.perf_counter()
        loop.process(one)
        took[k] = time.perf_counter() - start
    return took[WARM:] * 1e6


def tuned(d: int, t: int, n: int = 96) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """n channels that are linear in a z (t, d) that wanders, and noise: X (t, n), Z."""
    rng = np.random.default_rng(3)
    Z = np.zeros((t, d))
    for k in range(1, t):
        Z[k] = 0.95 * Z[k - 1] + 0.3 * rng.normal(size=d)
    return Z @ rng.normal(size=(d, n)) + 3 * rng.normal(size=(t, n)), Z


def sequence(scale: float = 1.0) -> list[Row]:
    """Sequence models: see `bench_sequence.py`."""
    from rheobase.tools.bench_sequence import sequence

    return sequence(scale)


def hop(scale: float = 1.0) -> list[Row]:
    """One sample of 96 float32 at 1 kHz between two processes: `link.py` against bare PUSH and PULL.

    From an array in hand here (with its time; for ours as a block) to an array in hand there. The two take turns
    of `BURST` samples between the same two processes.
    """
    bursts = max(1, round(100 * scale))
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="rheo-bench-") as folder:
        addresses = f"ipc://{folder}/ours", f"ipc://{folder}/raw"
        word, other = spawn.Pipe()
        child = spawn.Process(target=_send_bursts, args=(*addresses, bursts, other), daemon=True)
        child.start()
        receiver = Receiver(addresses[0])
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        socket.set(zmq.RCVTIMEO, int(PATIENCE * 1000))
        socket.connect(addresses[1])
        receiver.wait_spec(30)
        quiet()
        ages = np.empty((2, bursts, BURST))
        word.send("begin")
        try:
            for burst in range(bursts):
                for k in range(BURST):
                    block = receiver.receive(PATIENCE)
                    ages[0, burst, k] = now() - block.times[0] if block else math.nan
                for k in range(BURST):
                    message = socket.recv()
                    np.frombuffer(message, np.float32, 96, 8)
                    ages[1, burst, k] = now() - struct.unpack_from("<d", message)[0]
        except zmq.Again:
            raise StreamError("hop: the sending process died") from None
        finally:
            gc.unfreeze()
            receiver.close()
            socket.close(0)
        word.send("end")
        child.join(30)
    late = ages[:, :, BURST // 10 :].reshape(2, -1)  # the first of a burst find cold caches
    rows = []
    for q, goal in ((50, 1.25), (99, 1.5)):
        ours, floor = np.percentile(late, q, axis=1) * 1e6
        what = f"hop of 96 float32 at 1 kHz between processes, p{q}"
        rows.append(Row(what, float(ours), "us", float(floor), float(ours / floor), goal))
    return rows


def _send_bursts(ours: str, raw: str, bursts: int, word: Any) -> None:
    data = np.random.default_rng(2).normal(size=(1, 96)).astype(np.float32)
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    socket.bind(raw)
    sender = Sender(ours, Spec(rate=1000, channels=numbered("x", 96), dtype="float32"))
    quiet()
    fine_timer()
    word.recv()
    t0 = now() + 0.1
    for burst in range(bursts):
        for k in range(BURST):
            block = Block(data, np.zeros(1), burst * BURST + k)
            wait_until(t0 + k / 1000)
            block.times[0] = now()
            sender.send(block)
        for k in range(BURST, 2 * BURST):
            wait_until(t0 + k / 1000)
            socket.send(struct.pack("<d", now()) + data.tobytes())
        t0 += 2 * BURST / 1000
    word.recv()
    sender.close()
    socket.close(0)


def pace(scale: float = 1.0) -> list[Row]:
    """How late the source `signal` gives single samples at 1 kHz, by sleep and then spin, and what that costs."""
    n = max(20, int(10_000 * scale))
    source = Signal(channels=96, rate=1000, chunk=1, seconds=n / 1000)
    source.start()
    quiet()
    cpu, begin = time.process_time(), now()
    late = np.array([now() - block.times[0] for block in source.blocks() if block is not None]) * 1e6
    share = (time.process_time() - cpu) / (now() - begin)
    gc.unfreeze()
    return [
        Row("paced source of 96 channels at 1 kHz, late by, p50", float(np.percentile(late, 50)), "us"),
        Row("paced source, late by, p99", float(np.percentile(late, 99)), "us", goal=50.0, judged="ours"),
        Row("paced source, share of one core", share * 100, "%"),
    ]


class Noise(Source):
    """A recording of 96 channels of float32 noise at 1 kHz that takes no memory: one second, again and again."""

    live: ClassVar[bool] = False

    n: Count = 1_000_000
    """Samples in all."""

    def start(self, *inputs: Spec) -> Spec:
        self.second = np.random.default_rng(4).normal(size=(1000, 96)).astype(np.float32)
        return Spec(rate=1000, channels=numbered("x", 96), dtype="float32")

    def blocks(self) -> Iterator[Block]:
        at = np.arange(1000) / 1000
        for a in range(0, self.n, 1000):
            yield Block(self.second, at + a / 1000, a).cut(0, min(1000, self.n - a))


def replay(scale: float = 1.0) -> list[Row]:
    """96 channels at 1 kHz through band-pass, bins, z-score and DKF, in a process of its own."""
    n = max(20_000, int(10_000_000 * scale))
    context = multiprocessing.get_context("spawn")
    ours, other = context.Pipe()
    child = context.Process(target=_replay, args=(n, other))
    child.start()
    took, before, after = ours.recv()
    child.join()
    return [
        Row(
            "replay: 96 channels, 1 kHz, 4 nodes, times real time",
            n / 1000 / took,
            "x",
            math.nan,
            math.nan,
            1000.0,
            "ours",
            more=True,
        ),
        Row(
            f"replay: resident memory grows over {n:.0e} samples by",
            (after - before) / 1e6,
            "MB",
            goal=1.0,
            judged="ours",
        ),
    ]


def _replay(n: int, answer: Any) -> None:
    X, Z = tuned(4, 5000)
    decoder = DKF(f={"type": "ridge", "alpha": 1.0}).fit(X, Z)
    graph = Graph("replay")
    graph.add("noise", Noise(n=n))
    graph.add("band", Bandpass(low=10, high=100), "noise")
    graph.add("bins", Bins(width=0.02, how="mean"), "band")
    graph.add("z", Zscore(window=60), "bins")
    graph.add("cursor", decoder, "z")
    seen, resident, begun = 0, [0.0, 0.0], [0.0]

    def count(block: Block) -> None:
        nonlocal seen
        seen += len(block)
        resident[1] = _resident()
        if seen <= n // 200:  # the first tenth fills caches and pools
            resident[0], begun[0] = resident[1], time.perf_counter()

    engine = Engine(graph, taps={"cursor": count})
    engine.start()
    quiet()
    engine.run()
    took = (time.perf_counter() - begun[0]) / (1 - (n // 200) / seen)
    answer.send((took, *resident))


def _resident() -> float:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


NEAR = 80.0
"""A length scale in the midst of the distances between the bins of `decoders`: all points count."""

DECODERS: list[tuple[str, Callable[[], Decoder]]] = [
    ("Kalman", Kalman),
    ("ReFIT", ReFIT),
    ("unscented Kalman", UnscentedKalman),
    ("ridge, 5 lags", lambda: Ridge(lags=5, alpha=1.0)),
    ("Nadaraya-Watson, 3000 points", lambda: NadarayaWatson(points=3000, variance=NEAR**2)),
    ("Gaussian process, 3000 points", lambda: GaussianProcess(sigma_f=1, ell=NEAR, sigma_n=1)),
    (
        "Gaussian process, 500 points",
        lambda: GaussianProcess(points=500, all_rows=True, sigma_f=1, ell=NEAR, sigma_n=1),
    ),
    ("multi-kernel, 8 points", lambda: GaussianProcess(kernel="multi", directions=8)),
    ("multi-kernel, 500 points", lambda: GaussianProcess(kernel="multi", points=500)),
    ("MLP, 5 lags", lambda: MLP(lags=5, epochs=1)),
    ("GRU", lambda: GRU(epochs=1)),
    ("logistic, 5 lags, labels", lambda: Logistic(lags=5, alpha=1.0)),
    ("HiSS, s4d / s4d", lambda: HiSS(epochs=1, chunks=8)),
    ("sequence, lstm", lambda: Sequence_(net="lstm", epochs=1)),
    ("place cells, counts", lambda: PlaceBayes(smooth=0.5)),
    ("DKF, ridge", lambda: DKF(f={"type": "ridge", "alpha": 1.0})),
    ("DKF, Nadaraya-Watson, 3000 points", lambda: DKF(f={"type": "nadaraya_watson", "points": 3000})),
    ("DKF, multi-kernel, 8 points", lambda: DKF(f={"type": "gaussian_process", "kernel": "multi", "directions": 8})),
]
"""What `decoders` measures: a decoder of each type, and the DKF on some."""

TAUGHT = ("MLP", "GRU", "HiSS", "sequence")
"""Those that torch learns."""


def view(scale: float = 1.0) -> list[Row]:
    """What a window costs (bench_view.py); nothing where none can be opened."""
    if importlib.util.find_spec("pyqtgraph") is None or importlib.util.find_spec("PySide6") is None:
        return []
    from rheobase.tools.bench_view import measure

    return measure(scale)


BENCHES: dict[str, Callable[[float], list[Row]]] = {
    "fuse": fuse,
    "decode": decode,
    "decoders": decoders,
    "sequence": sequence,
    "hop": hop,
    "pace": pace,
    "replay": replay,
    "states": lambda scale: list(importlib.import_module("rheobase.tools.bench_states").states(scale)),
    "fleet": lambda scale: importlib.import_module("rheobase.tools.bench_fleet").fleet(scale),  # which imports this
    "view": view,
}


def floors() -> ctypes.CDLL:
    """bench.c, compiled for this machine (once: kept beside the compiled loops).

    Raises StreamError where there is no gcc.
    """
    source = Path(__file__).with_name("bench.c")
    gcc = shutil.which("gcc")
    if gcc is None:
        raise StreamError("rheo bench compares with C loops and needs gcc: none is installed")
    built = subprocess.run([gcc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    text = f"{built} {_cpu()} {source.read_text()}"
    library = cache_folder() / f"bench_{hashlib.sha256(text.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        flags = ["-O3", "-march=native", "-shared", "-fPIC", "-Wall", "-Wextra"]
        done = subprocess.run([gcc, *flags, "-o", fresh, source, "-lm"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise StreamError(f"gcc could not compile {source.name}: {done.stderr.strip().splitlines()[0]}")
        fresh.replace(library)
    return ctypes.CDLL(str(library))


def call_c(f: Any, *given: Any) -> None:
    """Call a C function with whole numbers (long) and C-contiguous float64 arrays."""
    f(*(ctypes.c_void_p(g.ctypes.data) if isinstance(g, np.ndarray) else ctypes.c_long(g) for g in given))


def same(ours: NDArray[np.float64], floor: NDArray[np.float64]) -> None:
    """The floor must have done our arithmetic (gcc may contract a b + c, so not to the bit)."""
    np.testing.assert_allclose(ours, floor, rtol=1e-6, atol=1e-9)


def turns(ours: Callable[[], Any], floor: Callable[[], Any], scale: float) -> tuple[list[float], list[float]]:
    """Seconds that ours and the floor took, turn by turn."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(2, int(TURNS * min(1.0, scale * 5)))):
        for f, into in zip((ours, floor), took, strict=True):
            start = time.perf_counter()
            f()
            into.append(time.perf_counter() - start)
    return took


def pair(
    what: str, ours: Sequence[float], floor: Sequence[float], factor: float, unit: str, goal: float = math.nan
) -> Row:
    """The Row of turns."""
    ratio = statistics.median(o / f for o, f in zip(ours, floor, strict=True))
    return Row(what, statistics.median(ours) * factor, unit, statistics.median(floor) * factor, ratio, goal)


def quiet() -> None:
    """As the runner does before a device opens: no full garbage collection later."""
    gc.collect()
    gc.freeze()


def machine() -> dict[str, str]:
    """What was measured on, and with what."""
    words = ("numba", "numpy", "pyzmq", "rheobase")
    return {
        "cpu": f"{_cpu()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{w: version(w) for w in words},
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _plain(row: Row) -> dict[str, Any]:
    # JSON has no NaN
    return {k: None if v != v else v for k, v in asdict(row).items()} | {"good": row.good}


def show(name: str, rows: Sequence[Row], console: Console) -> None:
    """A table of figures."""
    table = Table(title=name, title_justify="left", show_edge=False)
    table.add_column("", overflow="fold")
    for head in ("ours", "floor", "ratio", "goal", ""):
        table.add_column(head, justify="right", no_wrap=True)
    for r in rows:
        goal = "" if r.good is None else f"{'>=' if r.more else '<='} {r.goal:g}{'' if r.judged == 'ours' else ' x'}"
        table.add_row(
            r.what,
            f"{r.ours:.4g} {r.unit}",
            "" if math.isnan(r.floor) else f"{r.floor:.4g} {r.unit}",
            "" if math.isnan(r.ratio) else f"{r.ratio:.2f}",
            goal,
            "" if r.good is None else "met" if r.good else "[bold red]missed[/]",
        )
    console.print(table)
    console.print()


def bench(names: Sequence[str] = (), scale: float = 1.0, json_file: str | Path | None = None) -> None:
    """Measure, print tables, and write the figures to a file where one is named.

    names  of `BENCHES` (default: all)
    scale  how long to measure; 1: about a minute for all

    Raises StreamError for a name that there is not, a scale that is not positive, or where gcc is missing.
    """
    for name in names:
        if name not in BENCHES:
            raise StreamError(f"no bench {name!r}{nearest(name, BENCHES)}")
    if not scale > 0:
        raise StreamError(f"--scale must be positive, got {scale:g}")
    console = Console()
    about = machine()
    console.print(", ".join(f"{v}" if k in ("cpu", "system") else f"{k} {v}" for k, v in about.items()), "\n")
    found = {}
    for name in names or BENCHES:
        with console.status(f"{name} ..."):
            rows = BENCHES[name](scale)
        show(name, rows, console)
        found[name] = [_plain(r) for r in rows]
    if json_file:
        Path(json_file).write_text(json.dumps({"machine": about, "scale": scale, "benches": found}, indent=1))
