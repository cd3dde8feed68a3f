"""What a window costs: frames a second, where their time goes, memory, and how soon a key is answered.

    python -m rheobase.tools.bench_view          # 128 channels x 1 kHz, 10 s, image and cursor beside; 1024 x 30 kHz
    python -m rheobase.tools.bench_view --age    # a live graph with and without a window, in turns: the decoder's age

Painted off screen by Qt's raster engine, which is what a screen without a GPU gets, into a picture of the window.
Samples come from a thread of their own, as in a run.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.devices import view as module
from rheobase.devices.view import View
from rheobase.nodes.task import TASK
from rheobase.stream.block import Block, Spec, numbered
from rheobase.stream.clock import now
from rheobase.tools.bench import Row, show

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
SIZES = {"1280 x 720": (1280, 720), "1920 x 1080": (1920, 1080)}


class Feeder:
    """Gives a view its streams, in blocks of 10 ms, from a thread."""

    def __init__(self, view: Any, specs: Sequence[Spec]) -> None:
        self.view, self.specs, self.done = view, specs, threading.Event()
        rng = np.random.default_rng(0)
        self.noise = [rng.standard_normal((max(1, round(s.rate / 100)) * 20, s.n)) for s in specs]
        for s, x in zip(specs, self.noise, strict=True):
            if s.channels == TASK:  # a cursor that moves about one target
                x[:] = np.array([c.startswith(("cursor", "intended")) for c in TASK]) * 0.05 * x + 0.01
        self.at = [0] * len(specs)
        self.late = 0.0

    def fill(self, seconds: float) -> None:
        """So much of the past at once."""
        begin = now() - seconds
        for i, s in enumerate(self.specs):
            n = max(1, round(s.rate / 100))
            for k in range(int(seconds * s.rate) // n):
                self._give(i, n, begin + k * n / s.rate)

    def _give(self, i: int, n: int, t: float) -> None:
        s, k = self.specs[i], self.at[i] // n % 20
        self.view.take(i, Block(self.noise[i][k * n : (k + 1) * n], t + np.arange(n) / s.rate, self.at[i]))
        self.at[i] += n

    def run(self) -> None:
        due = now()
        while not self.done.is_set():
            for i, s in enumerate(self.specs):
                n = max(1, round(s.rate / 100))
                if s.rate >= 100 or int(due * 100) % round(100 / s.rate) == 0:
                    self._give(i, n, due)
            due += 0.01
            self.late = max(self.late, now() - due)
            time.sleep(max(0.0, due - now()))


def scene(big: bool) -> tuple[Any, Feeder, Any]:
    """A view, what feeds it, and its window."""
    names: tuple[str, ...]
    specs: tuple[Spec, ...]
    if big:
        names, specs = ("array",), (Spec(rate=30_000, channels=numbered("c", 1024), unit="V"),)
    else:
        names = ("array", "rates", "task")
        specs = (
            Spec(rate=1000, channels=numbered("c", 128), unit="V"),
            Spec(rate=50, channels=numbered("n", 128), unit="count"),
            Spec(rate=200, channels=TASK, unit="m"),
        )
    view = View.make(past=60.0)
    view.inputs = names
    view.start(*specs)
    feeder = Feeder(view, specs)
    feeder.fill(1.0 if big else 12.0)
    window = view.window()
    window.show()
    return view, feeder, window


def painted(view: Any, window: Any) -> float:
    """s from now until a frame is on the (unseen) screen."""
    from PySide6.QtWidgets import QApplication

    begin = time.perf_counter()
    with view.lock:
        window.paint()
    QApplication.processEvents()
    return time.perf_counter() - begin


def frames(seconds: float, size: tuple[int, int], profile: bool = False) -> tuple[float, float, float, str]:
    """Frames a second one after the other, CPU time of a frame (s), the longest (s), and the profile."""
    view, feeder, window = scene(False)
    window.resize(*size)
    thread = threading.Thread(target=feeder.run, daemon=True)
    thread.start()
    for _ in range(5):
        painted(view, window)
    took: list[float] = []
    profiler = cProfile.Profile()
    begin, cpu = time.perf_counter(), time.thread_time()
    if profile:
        profiler.enable()
    while not took or time.perf_counter() - begin < seconds:
        took.append(painted(view, window))
    profiler.disable()
    each = (time.thread_time() - cpu) / len(took)
    feeder.done.set()
    thread.join()
    window.close()
    told = ""
    if profile:
        stats = pstats.Stats(profiler)
        lines = []
        for (file, _, name), (_, _, own, total, _) in sorted(stats.stats.items(), key=lambda s: -s[1][2])[:16]:  # type: ignore[attr-defined]
            lines.append(
                f"{1e3 * own / len(took):8.2f} {1e3 * total / len(took):8.2f} ms a frame  {Path(file).name}:{name}"
            )
        told = "    own    total\n" + "\n".join(lines)
    return len(took) / sum(took), each, max(took), told


def answer(n: int, size: tuple[int, int]) -> tuple[list[float], float, float]:
    """1024 channels x 30 kHz: s from a key to its frame, each; bytes that the input keeps; how late its feeder came."""
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    view, feeder, window = scene(True)
    window.resize(*size)
    thread = threading.Thread(target=feeder.run, daemon=True)
    thread.start()
    keys = [Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_PageDown, Qt.Key.Key_Left, Qt.Key.Key_End]
    took = []
    for k in range(n):
        painted(view, window)
        begin = time.perf_counter()
        QTest.keyClick(window, keys[k % len(keys)])
        painted(view, window)
        took.append(time.perf_counter() - begin)
    feeder.done.set()
    thread.join()
    kept = float(view.feeds[0].bytes)
    window.close()
    return took, kept, feeder.late


def measure(scale: float = 1.0) -> list[Row]:
    """For `rheo bench view`."""
    rows = []
    for word, size in SIZES.items():
        rate, cpu, longest, _ = frames(4 * scale, size)
        rows.append(Row(f"128 x 1 kHz, image, cursor, {word}: frames", rate, "/s", goal=30, judged="ours", more=True))
        rows.append(Row(f"the same: CPU of a frame (longest frame {1e3 * longest:.0f} ms)", 1e3 * cpu, "ms"))
    took, kept, _ = answer(max(10, round(40 * scale)), SIZES["1280 x 720"])
    rows.append(
        Row("1024 x 30 kHz: key to frame, median", 1e3 * statistics.median(took), "ms", goal=100, judged="ours")
    )
    rows.append(Row("the same, longest", 1e3 * max(took), "ms", goal=100, judged="ours"))
    rows.append(Row("the same: memory of the input", kept / 1e6, "MB"))
    return rows


GRAPH = """
name: cost
nodes:
  raw:   {type: signal, rate: 1000, channels: 128, process: acquire}
  rates: {type: bins, in: raw, width: 0.02}
  z:     {type: zscore, in: rates}
  out:   {type: zmq_out, in: z, address: "ipc:///tmp/rheo-cost-%d"}
"""
VIEW = "  view:  {type: 'rheobase.tools.bench_view:Seen', in: [raw, z], process: view, picture: w.png}\n"


class Seen(View):
    """A window that somebody looks at, though it is off screen: every frame is painted."""

    def loop(self, stopped: Callable[[], bool]) -> bool:
        os.environ["XDG_CONFIG_HOME"] = str(self.folder)
        module.visible = lambda app: True
        return super().loop(stopped)

    def stop(self) -> None:
        print(f"frames: {sum(w.frames for w in self.windows)}", flush=True)


def ages(turns: int, seconds: float) -> None:
    """The age of the decoded stream with no window and with one, in turns."""
    import tempfile

    from rheobase.stream.graph import parse
    from rheobase.stream.run import run

    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for k in range(turns):
        for word in found if k % 2 else reversed(found):
            with tempfile.TemporaryDirectory() as home:
                text = GRAPH % os.getpid() + (VIEW if word == "with" else "")
                report = run(parse(text), Path(home) / "run", seconds)
                log = (Path(home) / "run" / "log.txt").read_text()
            found[word].append(report.ages["out"])
            a = report.ages["out"]
            told = "  ".join(f"{q} {1e3 * a[q]:.2f}" for q in ("p50", "p99", "max"))
            print(f"{word:8s} {told} ms  {log.strip()}", flush=True)
    for q in ("p50", "p99"):
        pairs = [b[q] / a[q] for a, b in zip(found["without"], found["with"], strict=True)]
        print(f"age {q} with a window / without, median of {turns} pairs: {statistics.median(pairs):.3f}")


def main() -> None:
    from rich.console import Console

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--age", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    if given.age:
        ages(given.turns, given.seconds)
        return
    show("view", measure(), Console())
    print(frames(4.0, SIZES["1280 x 720"], profile=True)[3])


if __name__ == "__main__":
    main()
