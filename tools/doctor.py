"""`rheo doctor`: whether this machine has what live runs need, and what to do where it has not.

A line for each: ok; warn, where something works less well or one part is missing; bad, where runs will fail.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rich.console
import rich.markup
import rich.table

from rheobase.stream import clock, fuse, ring
from rheobase.stream.files import known_data

OK, WARN, BAD = "ok", "warn", "bad"
COLOURS = {OK: "green", WARN: "yellow", BAD: "red"}

WITHIN = 2.0
"""s in which a stream of this machine must be found."""
WAITS = 300
"""Waits of 1 ms that are measured."""
BYTES = 64 << 20
"""Written to measure a disk."""
LEAST, FEW = 1e9, 20e9
"""Bytes that a disk must have left, and below which it is worth a word."""
SLOW = 50e6
"""Bytes a second; 1024 channels of int16 at 30 kHz are 61e6."""


class Found(NamedTuple):
    """How it is, what was seen, and what to do."""

    how: str
    seen: str
    advice: str = ""


def liblsl() -> Found:
    """The library that streams come by."""
    try:
        import pylsl
    except ImportError as e:
        return Found(WARN, f"pylsl: not installed ({e})", "pip install 'rheobase[lsl]'; other parts run without")
    except (OSError, RuntimeError) as e:
        return Found(
            BAD, f"pylsl finds no liblsl: {' '.join(str(e).split())[:80]}", "install liblsl, or set $PYLSL_LIB"
        )
    version = pylsl.library_version()
    seen = f"liblsl {version // 100}.{version % 100}, pylsl {importlib.metadata.version('pylsl')}"
    return Found(OK, seen) if version >= 116 else Found(WARN, seen, "1.16 or newer finds lost streams again")


def lsl_stream() -> Found:
    """An outlet of this machine, found and read by an inlet of it."""
    try:
        import pylsl
    except (ImportError, OSError, RuntimeError):
        return Found(WARN, "not tried: there is no liblsl")
    key, began = f"rheo-doctor-{uuid.uuid4().hex}", clock.now()
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("rheo doctor", "test", 1, 0, "double64", key))
    advice = (
        "let a firewall pass UDP 16571 and TCP and UDP 16572-16604, also multicast (224.0.0.183, 239.255.172.215); a "
        "VPN may take it away; or name peers in the [lab] KnownPeers of lsl_api.cfg ($LSLAPICFG)"
    )
    streams = pylsl.resolve_byprop("source_id", key, 1, WITHIN)
    took = clock.now() - began
    if not streams:
        return Found(BAD, f"an outlet of this machine was not found within {WITHIN:g} s", advice)
    inlet = pylsl.StreamInlet(streams[0], max_buflen=1, recover=False)
    try:
        inlet.open_stream(WITHIN)
        outlet.push_sample([42.0])
        sample, _ = inlet.pull_sample(WITHIN)
    except (TimeoutError, RuntimeError, pylsl.util.TimeoutError, pylsl.util.LostError) as e:
        return Found(BAD, f"an outlet was found, but not opened ({type(e).__name__})", advice)
    finally:
        inlet.close_stream()
    if not sample:
        return Found(BAD, "an outlet was found, but its sample never came", advice)
    config = os.environ.get("LSLAPICFG", "")
    return Found(OK, f"outlet found in {took:.2f} s, sample came" + (f" ($LSLAPICFG: {config})" if config else ""))


def one_clock() -> Found:
    """Whether LSL's clock is ours."""
    try:
        import pylsl
    except (ImportError, OSError, RuntimeError):
        return Found(OK, "monotonic; no liblsl to compare it with")
    before, theirs, after = clock.now(), pylsl.local_clock(), clock.now()
    apart = max(before - theirs, theirs - after, 0.0)
    if apart < 1e-3:
        return Found(OK, "LSL's clock and ours are one")
    return Found(BAD, f"LSL's clock is {apart:.3g} s from ours", "tell us your system and liblsl: ages would be wrong")


def timer() -> Found:
    """How late a wait of 1 ms ends."""
    late: list[float] = []

    def wait() -> None:
        clock.fine_timer()
        late.extend(clock.wait_until(clock.now() + 1e-3) for _ in range(WAITS))

    thread = threading.Thread(target=wait)
    thread.start()
    thread.join()
    median, p99 = np.quantile(late, [0.5, 0.99])
    seen = f"a wait of 1 ms ends {1e6 * median:.0f} us late (median), {1e6 * p99:.0f} us (p99)"
    return Found(OK, seen) if p99 < 1e-3 else Found(WARN, seen, "the machine is busy, or saves power: close what runs")


def real_time() -> Found:
    """Whether a loop may go before all other programs."""
    said: list[str] = []

    def ask() -> None:  # of this thread alone, which ends
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except (OSError, AttributeError) as e:
            said.append(str(getattr(e, "strerror", "") or "not on this system"))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    if not said:
        return Found(OK, "SCHED_FIFO is allowed")
    return Found(WARN, f"SCHED_FIFO: {said[0]}", "for `priority` in `processes`: CAP_SYS_NICE, or `ulimit -r 99`")


def shared_memory() -> Found:
    """Whether `edge: shm` works: a word in mapped memory, and sleep on it until another thread changes it."""
    if not ring.able():
        return Found(WARN, "no rings on this system", "nothing to do: edges go by ZeroMQ")
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    word = ring.Word(memory, 0)
    seen = word.value()
    waker = threading.Timer(0.02, word.ring)
    waker.start()
    began = clock.now()
    while word.value() == seen and clock.now() - began < 1:
        word.wait(seen, 1.0)
    waker.join()
    if word.value() == seen:
        return Found(BAD, "a futex did not wake its sleeper", "write `edge: zmq`")
    return Found(OK, "memory is mapped, a futex wakes its sleeper")


def disk() -> Found:
    """Space and speed of the folder that runs go to."""
    folder = Path("runs") if Path("runs").is_dir() else Path()
    free = shutil.disk_usage(folder).free
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".rheo-doctor-") as file:
            part, began = b"\0" * (1 << 20), time.perf_counter()
            for _ in range(min(BYTES, free // 2) >> 20):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            speed = file.tell() / (time.perf_counter() - began)
    except OSError as e:
        return Found(BAD, f"{folder.resolve()}: {e.strerror}", "run elsewhere, or give `--folder`")
    seen = f"{free / 1e9:.1f} GB free, {speed / 1e6:.0f} MB/s, in {folder.resolve()}"
    if free < LEAST:
        return Found(BAD, seen, "make room: a recording that fills the disk ends there")
    if free < FEW or speed < SLOW:
        return Found(WARN, seen, "little for long or broad recordings (1024 channels of int16 at 30 kHz: 61 MB/s)")
    return Found(OK, seen)


def screen() -> Found:
    """Qt, and whether a window can open."""
    if any(importlib.util.find_spec(m) is None for m in ("PySide6", "pyqtgraph")):
        return Found(WARN, "Qt: not installed", "pip install 'rheobase[view]', for `view` and pictures")
    there = sys.platform != "linux" or any(os.environ.get(k) for k in ("DISPLAY", "WAYLAND_DISPLAY"))
    env = os.environ | ({} if there else {"QT_QPA_PLATFORM": "offscreen"})
    code = "from PySide6 import QtCore, QtGui; a = QtGui.QGuiApplication([]); print(QtCore.qVersion())"
    try:
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return Found(WARN, "Qt: did not start within 60 s", "`rheo view` may not open")
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["no word why"])[0][:90]
        return Found(
            BAD, f"Qt does not start: {why}", "install what it names (Debian: libegl1 libxkbcommon0 libxcb-cursor0)"
        )
    seen = f"Qt {done.stdout.strip()}"
    return Found(OK, seen) if there else Found(WARN, f"{seen}, no screen", "pictures work (`rheo view --picture FILE`)")


def torch() -> Found:
    """What networks are trained with; they run without."""
    if importlib.util.find_spec("torch") is None:
        return Found(WARN, "not installed", "pip install 'rheobase[train]', to fit networks; fitted ones run without")
    return Found(OK, importlib.metadata.version("torch"))


def loops() -> Found:
    """Where compiled loops are kept."""
    folder = fuse.cache_folder()
    if folder.name.startswith("rheobase-loops-"):
        folder.rmdir()
        return Found(
            WARN, "the cache folder cannot be written", "set $RHEOBASE_CACHE: each start compiles anew, seconds"
        )
    files = [f for f in folder.glob("**/*") if f.is_file()]
    return Found(OK, f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e6:.0f} MB, in {folder}")


def data() -> Found:
    """Recorded data."""
    root = os.environ.get("RHEOBASE_DATA", "")
    there = sum(not where.startswith("http") for where in known_data().values())
    if root and not Path(root).is_dir():
        return Found(WARN, f"$RHEOBASE_DATA: {root} is no folder", "set it to where recorded data lie")
    if not root:
        return Found(OK, f"$RHEOBASE_DATA is not set; {there} files fetched, others are when they are asked for")
    return Found(OK, f"{there} files, {root} among where they lie")


CHECKS: dict[str, Callable[[], Found]] = {
    "liblsl": liblsl,
    "LSL": lsl_stream,
    "clock": one_clock,
    "timer": timer,
    "real time": real_time,
    "shared memory": shared_memory,
    "disk": disk,
    "screen": screen,
    "torch": torch,
    "compiled loops": loops,
    "data": data,
}


def doctor(console: rich.console.Console) -> int:
    """Check all, print a line for each. Returns the exit code: 1 where something is bad."""
    found: dict[str, Found] = {}
    for name, check in CHECKS.items():
        try:
            found[name] = check()
        except Exception as e:  # noqa: BLE001 a check that fails is a finding
            found[name] = Found(BAD, f"{type(e).__name__}: {e}", "tell us, please")
    table = rich.table.Table("", "", "seen", "what to do", title=f"Python {sys.version.split()[0]}, {sys.platform}")
    for name, f in found.items():
        table.add_row(f"[{COLOURS[f.how]}]{f.how}[/]", name, rich.markup.escape(f.seen), rich.markup.escape(f.advice))
    console.print(table)
    return 1 if any(f.how == BAD for f in found.values()) else 0
