"""What a lab fears, on purpose: processes killed at random times, outlets that come and go, hours of load.

    python -m rheobase.tools.chaos kill --runs 100     SIGKILL of each process of a run, at a random time
    python -m rheobase.tools.chaos outlet --times 50   an LSL outlet killed and restarted under a new uid
    python -m rheobase.tools.chaos soak --minutes 30   load without end: losses, ages, memory

Each says what it saw and exits with 1 where something was not as it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
import yaml

from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import fine_timer, now, wait_until
from rheobase.stream.link import Receiver
from rheobase.stream.node import Source

OUT = rich.console.Console(highlight=False)
HOLD = 0.2
"""s: `hold` of the outlet."""
BEGIN = 180.0
"""s in which a run must have begun, on a busy machine too."""

GRAPH: dict[str, Any] = {
    "name": "chaos",
    "nodes": {
        "array": {"type": "signal", "channels": 256, "rate": 1000, "chunk": 1, "process": "acquire"},
        "rates": {"type": "bins", "in": "array", "width": 0.02, "how": "mean"},
        "z": {"type": "zscore", "in": "rates", "window": 60},
        "pick": {"type": "pick", "in": "z", "channels": ["ch0", "ch1"]},
        "out": {"type": "zmq_out", "in": "pick", "hold": HOLD, "safe": -1000, "process": "outlet"},
        "rec": {"type": "record", "in": ["array", "pick"], "process": "record"},
        "view": {"type": "view", "in": ["rates", "pick"], "process": "view"},
    },
}


LABELS = ("acquire", "main", "outlet", "record", "view")
"""Its processes."""


class Load(Source):
    """Numbers of int16 at a pace, made beforehand: a load that costs next to nothing to make."""

    channels: int = 1024
    """Channels."""
    rate: float = 30000.0
    """Hz."""
    chunk: int = 30
    """Samples in a block."""

    def start(self, *inputs: Spec) -> Spec:
        return Spec(rate=self.rate, channels=numbered("ch", self.channels), dtype="int16")

    def blocks(self) -> Iterator[Block | None]:
        fine_timer()
        rng = np.random.default_rng(0)
        made = [rng.integers(-1000, 1000, (self.chunk, self.channels), np.int16) for _ in range(64)]
        begin, k = now(), 0
        steps = np.arange(self.chunk) / self.rate
        while True:
            times = begin + k * self.chunk / self.rate + steps
            wait_until(times[-1])
            yield Block(made[k % 64], times, k * self.chunk)
            k += 1


class Listener:
    """A reader of the outlet: the last value that was not safe, and when the first safe one came after it."""

    def __init__(self, address: str) -> None:
        self.receiver = Receiver(address)
        self.times: list[tuple[float, bool]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        while not self.ended.is_set():
            try:
                block = self.receiver.receive(0.05)
            except StreamError:
                return
            if block is not None:
                self.times.append((now(), bool(block.data[-1, 0] == -1000)))

    def safe_after(self, t: float) -> float:
        """s from the last real sample before the first safe one behind t."""
        real = [a for a, safe in self.times if not safe]
        since = max((a for a in real), default=t)
        first = next((a for a, safe in self.times if safe and a >= since), None)
        return float("nan") if first is None else first - since


def command(folder: Path, graph: dict[str, Any], *more: str, inside: Sequence[str] = ()) -> subprocess.Popen[str]:
    """A run of a graph, in a process group of its own, every process marked by its environment. inside: the command
    that runs it.
    """
    (folder / "g.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    (folder / "tmp").mkdir()  # what other runs of this machine leave lying is no concern of ours
    env = {**os.environ, "RHEO_CHAOS": str(folder), "QT_QPA_PLATFORM": "offscreen", "TMPDIR": str(folder / "tmp")}
    return subprocess.Popen(
        [
            *inside,
            sys.executable,
            "-m",
            "rheobase.stream",
            "run",
            str(folder / "g.yaml"),
            "--folder",
            str(folder / "run"),
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        start_new_session=True,
    )


def marked(folder: Path) -> dict[int, str]:
    """Processes of this run that live: pid -> label (the runner: "")."""
    found = {}
    for p in Path("/proc").glob("[0-9]*"):
        try:
            if f"RHEO_CHAOS={folder}".encode() in (p / "environ").read_bytes():
                words = (p / "cmdline").read_bytes().decode().split("\0")
                found[int(p.name)] = words[4] if len(words) > 4 and "child" in words[2] else ""
        except OSError:
            continue
    return found


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it came to that in time."""
    end = now() + seconds
    while now() < end:
        if done():
            return True
        time.sleep(0.02)
    return done()


def kill_once(folder: Path, label: str, rng: random.Random) -> dict[str, Any]:
    """One run, one process killed. Returns what was seen, `wrong` among it."""
    graph = json.loads(json.dumps(GRAPH))
    address = f"ipc://{folder}/out"
    graph["nodes"]["out"]["address"] = address
    graph["processes"] = {"view": {"restart": 0}}  # a window that dies ends no run unless told to
    listener = Listener(address)
    process = command(folder, graph)
    wrong: list[str] = []
    try:
        if not wait(lambda: any(not safe for _, safe in listener.times), BEGIN):
            return {"wrong": [f"nothing came within {BEGIN:g} s"]}
        time.sleep(rng.uniform(0.2, 3.0))
        pids = {name: pid for pid, name in marked(folder).items() if name}
        killed = now()
        os.kill(pids[label], signal.SIGKILL)
        said, _ = process.communicate(timeout=60)
        ended = now() - killed
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it takes its processes with it
            wait(lambda: process.poll() is not None, 20)
            process.kill()
    time.sleep(0.3)
    listener.ended.set()
    listener.thread.join(2)
    listener.receiver.close()
    if f"process '{label}' died: signal SIGKILL" not in " ".join(said.split()):
        wrong.append(f"the message does not say who died: {said[-300:]!r}")
    if left := marked(folder):
        wrong.append(f"processes that still live: {left}")
    if homes := list((folder / "tmp").glob("rheo-*")):
        wrong.append(f"sockets that are left: {homes}")
    tables = json.loads((folder / "run" / "tables.json").read_text())
    for row in tables["losses"]:
        source, target = row["edge"].split(" -> ")
        places = graph["nodes"]
        ends = {places[source].get("process", "main"), places[target].get("process", "main")}
        if label not in ends and row["policy"] == "block" and not row["whole"]:
            wrong.append(f"lost between processes that lived: {row}")
    safe = listener.safe_after(killed)
    if not safe <= HOLD + 0.1:
        wrong.append(f"safe after {safe:.3f} s")
    wrong += _recording(folder / "run" / "recording.xdf", label, tables)
    return {"wrong": wrong, "safe": safe, "ended": ended}


def numbers(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Each stream of a recording, as far as it is readable, and the numbers of its samples."""
    for name in streams(str(file), salvage=True):
        node = Replay(file=str(file), stream=name, salvage=True)
        node.start()
        yield name, [k for b in node.blocks() if b is not None for k in range(b.seq, b.seq + len(b))]


def _recording(file: Path, label: str, tables: dict[str, Any]) -> list[str]:
    """What is wrong with what was recorded."""
    if not file.exists():
        return [] if label == "record" else ["there is no recording"]
    try:
        counts = {}
        for name, seq in numbers(file):
            counts[name] = len(seq)
            if label != "record" and seq != list(range(len(seq))):
                return [f"the recording of {name!r} has holes"]
    except StreamError as e:
        return [f"the recording cannot be read: {e}"]
    if label != "record":
        for row in tables["losses"]:
            source, target = row["edge"].split(" -> ")
            if target == "rec" and counts[source] != row["received"]:
                return [f"{row['received']} samples of {source!r} came, {counts[source]} are recorded"]
    return []


def kill(runs: int, seed: int, labels: Sequence[str] = LABELS) -> int:
    """Each process in turn."""
    rng = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {label: [] for label in labels}
    for k in range(runs):
        label = labels[k % len(labels)]
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            seen = kill_once(Path(folder), label, rng)
        found[label].append(seen)
        said = "; ".join(seen["wrong"]) or f"safe after {seen['safe']:.3f} s"
        OUT.print(f"{k}: {label} killed: {said}", markup=False)
    columns = ("killed", "runs", "wrong", "safe after, s: median", "max", "run ended after, s: median", "max")
    table = rich.table.Table(*columns, title="SIGKILL at a random time, 256 channels at 1 kHz")
    for label, each in [*found.items(), ("all", [seen for rows in found.values() for seen in rows])]:
        times = [seen.get(word, np.nan) for word in ("safe", "ended") for seen in each]
        safe, ended = np.split(np.array(times), 2)
        figures = [f"{f(x):.3f}" for x in (safe, ended) for f in (np.nanmedian, np.nanmax)] if each else [""] * 4
        table.add_row(label, str(len(each)), str(sum(bool(seen["wrong"]) for seen in each)), *figures)
    OUT.print(table)
    return 1 if any(seen["wrong"] for rows in found.values() for seen in rows) else 0


OUTLET = """
import sys, time, numpy as np, pylsl
info = pylsl.StreamInfo(sys.argv[1], "EEG", 8, 250, "float32", "chaos:" + sys.argv[1])
outlet = pylsl.StreamOutlet(info, chunk_size=10)
k, begin, n = int(sys.argv[2]), pylsl.local_clock(), 0
while True:
    n += 10  # stamps are those of samples that a steady device takes, however late this gets to say so
    outlet.push_chunk(np.full((10, 8), k, np.float32), begin + n / 250)
    time.sleep(max(0.0, begin + n / 250 - pylsl.local_clock()))
"""


def outlet(times: int, seed: int) -> int:
    """An outlet is killed, comes again under a new uid, and each time its samples are a new segment."""
    from rheobase.devices.lsl import Lsl

    rng = random.Random(seed)
    name = f"chaos {os.getpid()}"
    node = Lsl(stream={"name": name})
    node.name = "in"
    started = subprocess.Popen([sys.executable, "-c", OUTLET, name, "0"])
    node.start()
    seen: list[tuple[float, float, int]] = []
    states: list[tuple[float, str]] = []
    done = threading.Event()

    def read() -> None:
        for block in node.blocks():
            state = node.state
            if not states or states[-1][1] != state:
                states.append((now(), str(state)))
            if block is not None and len(block):
                seen.append((now(), float(block.data[0, 0]), block.segment))
            if done.is_set():
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    bad, noticed, back = 0, [], []
    try:
        for k in range(1, times + 1):
            if not wait(lambda k=k: bool(seen) and seen[-1][1] == k - 1, 30):  # type: ignore[misc]
                OUT.print(f"{k}: its samples did not come within 30 s")
                bad += 1
                break
            time.sleep(rng.uniform(0.3, 1.5))
            started.kill()
            killed = now()
            started.wait()
            time.sleep(rng.uniform(1.2, 2.5))
            begun = now()
            started = subprocess.Popen([sys.executable, "-c", OUTLET, name, str(k)])
            wait(lambda k=k: seen[-1][1] == k, 30)  # type: ignore[misc]
            stale = next((t for t, s in states if t > killed and s in ("stale", "lost")), float("nan"))
            noticed.append(stale - killed)
            back.append(seen[-1][0] - begun)
            OUT.print(f"{k}: seen after {noticed[-1]:.2f} s, back {back[-1]:.2f} s after it was started")
        done.set()
        reader.join(5)
        segments = {v: {s for _, w, s in seen if w == v} for _, v, _ in seen}
        if any(len(s) != 1 for s in segments.values()) or len({min(s) for s in segments.values()}) != len(segments):
            OUT.print(f"segments are not one for each outlet: {segments}")
            bad += 1
    finally:
        started.kill()
        node.stop()
    bad += sum(not t < 1.0 for t in noticed)
    OUT.print(
        f"{len(back)} restarts; change seen after {np.nanmax(noticed):.2f} s at most; back after {np.max(back):.2f}"
    )
    return 1 if bad else 0


def soak(minutes: float, channels: int, rate: float) -> int:
    """Nothing is lost, and memory stays what it is."""
    graph = json.loads(json.dumps(GRAPH))
    with tempfile.TemporaryDirectory(prefix="chaos-") as place:
        folder = Path(place)
        graph["nodes"]["out"]["address"] = f"ipc://{folder}/out"
        graph["nodes"]["array"] |= {"channels": channels, "rate": rate, "chunk": max(1, round(rate / 1000))}
        if channels * rate > 1e6:  # more normal numbers than a core makes in time
            graph["nodes"]["array"]["type"] = "rheobase.tools.chaos:Load"
        process = command(folder, graph, "--for", str(60 * minutes))
        use: dict[str, list[tuple[float, int, float]]] = {}
        ticks = os.sysconf("SC_CLK_TCK")
        try:
            while process.poll() is None:
                for pid, name in marked(folder).items():
                    try:
                        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                    except OSError:
                        continue
                    memory = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
                    cpu = (int(fields[11]) + int(fields[12])) / ticks
                    use.setdefault(name or "runner", []).append((now(), memory, cpu))
                time.sleep(min(1.0, 3 * minutes))
        finally:
            if process.poll() is None:  # nobody waits any more
                process.send_signal(signal.SIGINT)
            said = process.communicate()[0]
        tables = json.loads((folder / "run" / "tables.json").read_text())
        size = (folder / "run" / "recording.xdf").stat().st_size
    OUT.print(said[-3000:], markup=False)
    bad = process.returncode != 0
    table = rich.table.Table("process", "MB", "more over the second half", "of a core")
    for name, rows in use.items():
        half = rows[len(rows) // 2 :]
        growth = half[-1][1] / half[0][1] - 1
        share = (rows[-1][2] - rows[0][2]) / max(rows[-1][0] - rows[0][0], 1e-9)
        table.add_row(name, f"{half[-1][1] / 1e6:.0f}", f"{growth:+.2%}", f"{share:.0%}")
        bad |= growth > 0.01
    OUT.print(table)
    OUT.print(f"recorded {size / 1e6:.0f} MB; whole: {tables['ok']}")
    return 1 if bad or not tables["ok"] else 0


def main() -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    words = parser.add_subparsers(dest="what", required=True)
    sub = words.add_parser("kill")
    sub.add_argument("--runs", type=int, default=5)
    sub.add_argument("--only", action="append", choices=LABELS, help="a process; may be repeated (default: each)")
    sub.add_argument("--seed", type=int, default=0)
    sub = words.add_parser("outlet")
    sub.add_argument("--times", type=int, default=3)
    sub.add_argument("--seed", type=int, default=0)
    sub = words.add_parser("soak")
    sub.add_argument("--minutes", type=float, default=0.5)
    sub.add_argument("--channels", type=int, default=256)
    sub.add_argument("--rate", type=float, default=1000.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was begun is ended
    if given.what == "kill":
        return kill(given.runs, given.seed, given.only or LABELS)
    if given.what == "outlet":
        return outlet(given.times, given.seed)
    return soak(given.minutes, given.channels, given.rate)


if __name__ == "__main__":
    sys.exit(main())
