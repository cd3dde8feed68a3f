"""What else goes wrong in a lab, on purpose, to a whole run: each is said, and nothing recorded is lost.

    python -m rheobase.tools.faults [--only full,read-only,suspended,strangers,backwards,changed,cut] [--times 1]

full       the disk is full (a file size limit): the message says how much is safe, and that much is read again
read-only  the run directory cannot be written (a mount, for root; else its mode)
suspended  every process is stopped for 10 s and goes on: nothing is lost, nobody is blamed
strangers  peers without keys, with wrong ones, and a flood of connections: refused and counted, the reader gets all
backwards  an LSL outlet's clock goes back 5 s, and later on 5 s: a segment each, no sample lost or made up
changed    an LSL outlet comes back with another number of channels: the run ends and says so
cut        the network to an LSL outlet is gone for 5 s (network namespaces, for root): said within 1 s, live again,
           every sample once and in order, or missing with a segment of its own

Each line says what was seen; exit code 1 where something was not as it must be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.table
import zmq
from numpy.typing import NDArray

from rheobase.devices.replay import Replay
from rheobase.stream.block import StreamError
from rheobase.stream.clock import now
from rheobase.stream.keys import Door, key_pair, write_keys
from rheobase.stream.link import Receiver
from rheobase.tools.chaos import BEGIN, command, marked, numbers, wait

SMALL: dict[str, Any] = {
    "name": "faults",
    "nodes": {
        "array": {"type": "signal", "channels": 64, "rate": 1000, "chunk": 1, "process": "acquire"},
        "rates": {"type": "bins", "in": "array", "width": 0.02, "how": "mean"},
        "rec": {"type": "record", "in": ["array", "rates"], "process": "record"},
    },
}
AWAY = 10.0
"""s for which a machine is suspended."""
CUT = 5.0
"""s for which a network is."""

Seen = tuple[str, list[str]]
"""What was seen, and what of it was wrong."""


def recorded(folder: Path) -> dict[str, int]:
    """Samples of each stream of the recording, as far as it is readable. Raises AssertionError on a hole."""
    found = {}
    for name, seq in numbers(folder / "run" / "recording.xdf"):
        assert seq == list(range(len(seq))), f"the recording of {name!r} has holes"
        found[name] = len(seq)
    return found


def grows(folder: Path, size: int = 200_000) -> bool:
    """Whether it has recorded so many bytes."""
    file = folder / "run" / "recording.xdf"
    return file.exists() and file.stat().st_size > size


def finish(process: subprocess.Popen[str], folder: Path, wrong: list[str]) -> str:
    """Its last words in one line, once it has ended by itself."""
    try:
        said = process.communicate(timeout=BEGIN)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        said = process.communicate()[0]
        wrong.append(f"did not end within {BEGIN:g} s")
    time.sleep(0.3)
    if left := marked(folder):
        wrong.append(f"processes that still live: {left}")
    if "Traceback" in said:
        wrong.append("a traceback")
    return " ".join(said.split())


def full(folder: Path) -> Seen:
    """Files may grow to 2 MB and no more."""
    wrong: list[str] = []
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
    try:
        process = command(folder, SMALL, "--for", "60")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = finish(process, folder, wrong)
    told = re.search(r"recording\.xdf: File too large after \d+ bytes; safe on disk: (\d+) samples of 'array'", said)
    there = recorded(folder).get("array", 0)
    if process.returncode != 1 or not told:
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    elif there < int(told[1]):
        wrong.append(f"{told[1]} are said to be safe")
    return f"ended; {told[1] if told else '?'} samples said to be safe, {there} read again", wrong


def read_only(folder: Path) -> Seen:
    """Nothing can be written where the run is to go."""
    wrong: list[str] = []
    (folder / "run").mkdir()
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", str(folder / "run")],  # noqa: S607
        capture_output=True,
        check=False,
    ).returncode
    if not mounted:
        if os.getuid() == 0:
            return "not tried: root writes everywhere, and may not mount here", wrong
        (folder / "run").chmod(0o555)
    try:
        process = command(folder, SMALL, "--for", "60")
        said = finish(process, folder, wrong)
    finally:
        if mounted:
            subprocess.run(["umount", str(folder / "run")], check=False)  # noqa: S607
    if process.returncode != 1 or not re.search(r"rheo: \S+/run/config.yaml: (Read-only|Permission)", said):
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    return said[-90:], wrong


def suspended(folder: Path) -> Seen:
    """SIGSTOP to all, SIGCONT 10 s later."""
    wrong: list[str] = []
    process = command(folder, SMALL, "--for", "20")
    if not wait(lambda: grows(folder), BEGIN):
        wrong.append("did not begin")
    pids = sorted(marked(folder))
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(AWAY)
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)
    said = finish(process, folder, wrong)
    tables = json.loads((folder / "run" / "tables.json").read_text())
    there, gave = recorded(folder), tables["samples"]
    if process.returncode or not tables["ok"] or tables["restarts"]:
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    wrong += [f"{there[k]} of {gave[k]} samples of {k!r} are recorded" for k in there if there[k] != gave[k]]
    causes = [s["cause"] for s in tables["stalls"] if s["process"] == "run"]
    if causes != ["suspended"]:
        wrong.append(f"stalls: {tables['stalls']}")
    return f"stall told: {causes}; {there['array']} of {gave['array']} samples recorded", wrong


def strangers(folder: Path) -> Seen:
    """One with the key reads; others try to."""
    wrong: list[str] = []
    for name in ("lab", "robot", "stranger"):
        write_keys(name, folder)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    graph = json.loads(json.dumps(SMALL))
    graph["nodes"]["out"] = {
        "type": "zmq_out", "in": "array", "address": f"tcp://127.0.0.1:{port}", "process": "outlet", "keep": 60000,
        "keys": str(folder / "lab.key_secret"), "peers": [str(folder / "robot.key")],
    }  # fmt: skip
    process = command(folder, graph, "--for", "15")
    door = Door(str(folder / "robot.key_secret"), [str(folder / "lab.key")])
    friend = Receiver(f"tcp://127.0.0.1:{port}", door=door)
    got, over = [0], threading.Event()

    def read() -> None:
        while not over.is_set() and not friend.ended:
            block = friend.receive(0.1)
            got[0] += len(block) if block is not None else 0

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait(lambda: got[0] > 200, BEGIN)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    others = []
    for keyed in (False, True):
        other = context.socket(zmq.PULL)
        other.linger = 0
        if keyed:
            other.curve_publickey, other.curve_secretkey = key_pair(str(folder / "stranger.key_secret"))
            other.curve_serverkey = door.peers[0]
        other.connect(f"tcp://127.0.0.1:{port}")
        others.append(other)
    flood, end = 0, now() + 8.0
    while now() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5) as s:
            s.sendall(os.urandom(4096))
            flood += 1
    theirs = sum(bool(other.poll(0)) for other in others)
    context.destroy(0)
    finish(process, folder, wrong)
    over.set()
    reader.join(5)
    friend.close()
    door.close()
    tables = json.loads((folder / "run" / "tables.json").read_text())
    gave, health = tables["samples"]["array"], tables["health"].get("out", {})
    if theirs:
        wrong.append("a stranger got something")
    if process.returncode or not tables["ok"]:
        wrong.append(f"exit code {process.returncode}")
    if got[0] + friend.dropped < gave or friend.dropped or recorded(folder)["array"] != gave:
        wrong.append(f"{gave} given, {recorded(folder)['array']} recorded, {got[0]} read, {friend.dropped} missing")
    if not health.get("refused"):
        wrong.append(f"nobody was refused: {health}")
    return f"{flood} floods, {health.get('refused')} refused; {got[0]} of {gave} samples reached the reader", wrong


OUTLET = """
import sys, time, numpy as np, pylsl
name, channels, jumps = sys.argv[1], int(sys.argv[2]), [float(w) for w in sys.argv[3:]]
info = pylsl.StreamInfo(name, "EEG", channels, 250, "float32", "faults:" + name)
outlet = pylsl.StreamOutlet(info, chunk_size=10)
begin, k = pylsl.local_clock(), 0
while True:
    for j in range(10):
        t = begin + (k + j) / 250
        shift = sum(d for d, after in zip((-5.0, 5.0), jumps) if k + j >= after)
        outlet.push_sample(np.full(channels, k + j, np.float32), t + shift)
    k += 10
    time.sleep(max(0.0, begin + k / 250 - pylsl.local_clock()))
"""
LSL: dict[str, Any] = {
    "name": "faults",
    "nodes": {
        "eeg": {"type": "lsl", "stream": {"name": ""}, "process": "acquire", "wait": 30},
        "mean": {"type": "bins", "in": "eeg", "width": 0.04, "how": "mean"},
        "rec": {"type": "record", "in": ["eeg", "mean"], "process": "record"},
    },
}


def listening(folder: Path) -> tuple[dict[str, Any], str]:
    """A graph that records an LSL stream, and the name of that, which no other run has."""
    graph = json.loads(json.dumps(LSL))
    name = graph["nodes"]["eeg"]["stream"]["name"] = f"faults {os.getpid()} {folder.name}"
    return graph, name


def outlet(name: str, channels: int, *jumps: int, inside: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """An LSL outlet whose value is its count; its stamps go back 5 s at the first of `jumps`, on at the second."""
    return subprocess.Popen([*inside, sys.executable, "-c", OUTLET, name, str(channels), *map(str, jumps)])


def received(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The values of its first channel as they are recorded, and their segments."""
    node = Replay(file=str(folder / "run" / "recording.xdf"), stream="eeg")
    node.start()
    blocks = [b for b in node.blocks() if b is not None and len(b)]
    return np.concatenate([b.data[:, 0] for b in blocks]), np.concatenate([np.full(len(b), b.segment) for b in blocks])


def backwards(folder: Path) -> Seen:
    """The stamps of a stream go back 5 s, and 6 s later on again."""
    wrong: list[str] = []
    graph, name = listening(folder)
    stream = outlet(name, 8, 250 * 30, 250 * 36)
    try:
        process = command(folder, graph, "--for", "45")
        said = finish(process, folder, wrong)
    finally:
        stream.kill()
    values, segment = received(folder)
    if not (np.diff(values) == 1).all():
        wrong.append(f"{int((np.diff(values) != 1).sum())} samples are missing or made up")
    at = values[1:][np.diff(segment) != 0].astype(int).tolist()
    expected = [j for j in (250 * 30, 250 * 36) if values[0] < j <= values[-1]]
    if at != expected or len(at) != 2:
        wrong.append(f"segments begin at {at}, not at {expected}")
    if process.returncode:
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    return f"{len(values)} samples, each once; segments begin at samples {at}", wrong


def changed(folder: Path) -> Seen:
    """8 channels, then 9."""
    wrong: list[str] = []
    graph, name = listening(folder)
    stream = outlet(name, 8)
    try:
        process = command(folder, graph)
        if not wait(lambda: grows(folder, 20_000), BEGIN):
            wrong.append("did not begin")
        stream.kill()
        stream.wait()
        began = now()
        stream = outlet(name, 9)
        said = finish(process, folder, wrong)
        took = now() - began
    finally:
        stream.kill()
    if process.returncode != 1 or "came back with 9 channels, it had 8" not in said:
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    gave = json.loads((folder / "run" / "tables.json").read_text())["samples"]["eeg"]
    there = recorded(folder)["eeg"]
    if there != gave:
        wrong.append(f"{there} of {gave} samples are recorded")
    return f"named after {took:.1f} s; {there} of {gave} samples recorded", wrong


def cut(folder: Path) -> Seen:
    """Two hosts, as the kernel sees it, and a cable between them that is pulled out and put in again."""
    wrong: list[str] = []
    if os.getuid() or not shutil.which("ip"):
        return "not tried: needs root, and iproute2", wrong
    here, there = (f"rheo{os.getpid()}{w}" for w in "ab")

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S607
        if done.returncode:
            raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")

    def state() -> str:
        try:
            return str(json.loads((folder / "run" / "live.json").read_text())["devices"]["eeg"]["state"])
        except (OSError, ValueError, KeyError):
            return ""

    graph, name = listening(folder)
    stream = None
    try:
        for host in (here, there):
            ip("netns", "add", host)
            ip("-n", host, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", here, "type", "veth", "peer", "name", "cable", "netns", there)
        for k, host in enumerate((here, there), 1):
            ip("-n", host, "addr", "add", f"10.77.0.{k}/24", "dev", "cable")
            ip("-n", host, "link", "set", "cable", "up")
            ip("-n", host, "route", "add", "default", "dev", "cable")
        stream = outlet(name, 8, inside=["ip", "netns", "exec", there])
        process = command(folder, graph, inside=["ip", "netns", "exec", here])
        if not wait(lambda: grows(folder, 20_000) and state() == "live", BEGIN):
            wrong.append("did not begin")
        ip("-n", here, "link", "set", "cable", "down")
        gone = now()
        told = wait(lambda: "is stale" in (folder / "run" / "log.txt").read_text(), CUT)
        noticed = now() - gone
        if not told or noticed > 1:
            wrong.append("was not said within 1 s")
        time.sleep(max(0.0, gone + CUT - now()))
        ip("-n", here, "link", "set", "cable", "up")
        ip("-n", here, "route", "replace", "default", "dev", "cable")
        healed = now()
        if not wait(lambda: state() == "live", 60):
            wrong.append(f"{state()} 60 s after the cable was put in")
        back = now() - healed
        time.sleep(3.0)
        os.kill(next(p for p, label in marked(folder).items() if not label), signal.SIGINT)
        said = finish(process, folder, wrong)
    finally:
        if stream:
            stream.kill()
            stream.wait()
        for host in (here, there):
            with contextlib.suppress(OSError):
                ip("netns", "del", host)
    if process.returncode:
        wrong.append(f"exit code {process.returncode}: {said[-200:]}")
    values, segment = received(folder)
    step, new = np.diff(values), np.diff(segment) != 0
    if (step < 1).any():
        wrong.append(f"{int((step < 1).sum())} samples are made up or out of order")
    if ((step > 1) != new).any():
        wrong.append(f"{int((step > 1).sum())} gaps, {int(new.sum())} new segments")
    return (
        f"said after {noticed:.2f} s, live {back:.1f} s after it was mended; {len(values)} samples, "
        f"{int(step.sum() - len(step))} missing, {1 + int(new.sum())} segments"
    ), wrong


FAULTS: dict[str, Callable[[Path], Seen]] = {
    "full": full,
    "read-only": read_only,
    "suspended": suspended,
    "strangers": strangers,
    "backwards": backwards,
    "changed": changed,
    "cut": cut,
}


def main() -> int:
    """From the command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default=",".join(FAULTS), help="with commas between them")
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    table, bad = rich.table.Table("fault", "seen", "wrong", title="faults on purpose"), 0
    for name in given.only.split(","):
        for _ in range(given.times):
            with tempfile.TemporaryDirectory(prefix="faults-") as folder:
                try:
                    seen, wrong = FAULTS[name](Path(folder))
                except (AssertionError, StreamError, OSError, ValueError) as e:
                    seen, wrong = "", [f"{type(e).__name__}: {e}"]
            bad += bool(wrong)
            table.add_row(name, seen, "; ".join(wrong) or "nothing")
    rich.console.Console(highlight=False).print(table)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
