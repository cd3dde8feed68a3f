"""Edges in shared memory against ZeroMQ and a ring in C: `python -m rheobase.tools.bench_ring`."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import math
import mmap
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rheobase.stream.block import Block, Spec, StreamError, numbered
from rheobase.stream.clock import fine_timer, now, wait_until
from rheobase.stream.fuse import cache_folder
from rheobase.stream.link import Receiver, Sender
from rheobase.stream.shared import RingReceiver, RingSender

if TYPE_CHECKING:
    from rheobase.tools.bench import Row

BURST = 100
CHANNELS = 96
SLOT = 8 + 4 * CHANNELS
LARGE = 1 << 20
"""Bytes of a large block."""
PATIENCE = 10.0
SPEC = Spec(rate=1000, channels=numbered("x", CHANNELS), dtype="float32")
WIDE = Spec(rate=1000, channels=numbered("x", 1024), dtype="float32")


def floor() -> Any:
    """bench_ring.c, compiled for this machine."""
    source = Path(__file__).with_name("bench_ring.c")
    gcc = shutil.which("gcc")
    if gcc is None:
        raise StreamError("rheo bench compares with C and needs gcc: none is installed")
    library = cache_folder() / f"bench_ring_{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}.so"
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        subprocess.run([gcc, "-O3", "-march=native", "-shared", "-fPIC", "-o", fresh, source], check=True)
        fresh.replace(library)
    return ctypes.CDLL(str(library))


def _memory(path: str) -> tuple[mmap.mmap, Any]:
    size = 256 + 256 * SLOT
    with open(path, "r+b" if Path(path).exists() else "w+b") as f:
        f.truncate(size)
        memory = mmap.mmap(f.fileno(), size)
    return memory, ctypes.byref(ctypes.c_char.from_buffer(memory))


def ring(scale: float = 1.0) -> list[Row]:
    """A sample of 96 float32 at 1 kHz from one process to another, by ring, ZeroMQ and C in turns; and large blocks."""
    from rheobase.tools.bench import Row

    bursts = max(1, round(60 * scale))
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="rheo-bench-") as folder:
        word, other = spawn.Pipe()
        child = spawn.Process(target=_send, args=(folder, bursts, other), daemon=True)
        child.start()
        c, (memory, there) = floor(), _memory(f"{folder}/c")
        word.recv()
        socket = Receiver(f"ipc://{folder}/zmq")
        rings = RingReceiver(f"shm://{folder}/ring", f"{folder}/bell")
        wide = RingReceiver(f"shm://{folder}/wide", f"{folder}/bell")
        for r in (rings, socket, wide):
            r.wait_spec(30)
        x, age = ctypes.create_string_buffer(SLOT), ctypes.c_double()
        ages = np.full((3, bursts, BURST), np.nan)
        gc.collect()
        gc.freeze()
        try:
            word.send("begin")
            for burst in range(bursts):
                for way, receiver in enumerate((rings, socket)):
                    for k in range(BURST):
                        block = receiver.receive(PATIENCE)
                        ages[way, burst, k] = now() - block.times[0] if block else math.nan
                for k in range(BURST):
                    if not c.ring_read(ctypes.c_long(SLOT), there, x, ctypes.byref(age)):
                        raise StreamError("ring: the sending process died")
                    ages[2, burst, k] = age.value
            word.send("large")
            speeds = []
            for _ in range(max(1, round(20 * scale))):
                begin = 0.0
                for _ in range(200):
                    if wide.receive(PATIENCE) is None:
                        raise StreamError("ring: the sending process died")
                    begin = begin or now()
                speeds.append(199 * LARGE / (now() - begin) / 1e9)
        finally:
            gc.unfreeze()
        word.send("end")
        child.join(30)
        del there, memory
    late = ages[:, :, BURST // 10 :].reshape(3, -1)
    ours, other_, floor_ = (float(np.nanmedian(a)) * 1e6 for a in late)
    tail = [float(np.nanpercentile(a, 99)) * 1e6 for a in late]
    what = "hop of 96 float32 at 1 kHz by shared memory"
    return [
        Row(f"{what}, p50, to ZeroMQ ipc", ours, "us", other_, ours / other_, 0.25),
        Row(f"{what}, p50, to a C ring", ours, "us", floor_, ours / floor_, 2.0),
        Row(f"{what}, p99, to ZeroMQ ipc", tail[0], "us", tail[1], tail[0] / tail[1]),
        Row("blocks of 1 MiB by shared memory", statistics.median(speeds), "GB/s", goal=15.0, judged="ours", more=True),
    ]


def _send(folder: str, bursts: int, word: Any) -> None:
    c, (memory, there) = floor(), _memory(f"{folder}/c")
    rings = RingSender(f"shm://{folder}/ring", f"{folder}/bell", SPEC)
    wide = RingSender(f"shm://{folder}/wide", f"{folder}/bell", WIDE)
    word.send("ready")
    socket = Sender(f"ipc://{folder}/zmq", SPEC)
    data = np.random.default_rng(2).normal(size=(1, CHANNELS)).astype(np.float32)
    x = ctypes.create_string_buffer(SLOT)
    large = Block(np.zeros((LARGE // 4096, 1024), np.float32), np.zeros(LARGE // 4096))
    gc.collect()
    gc.freeze()
    fine_timer()
    word.recv()
    t0 = now() + 0.1
    for burst in range(bursts):
        for sender in (rings, socket):
            for k in range(BURST):
                block = Block(data, np.zeros(1), burst * BURST + k)
                wait_until(t0 + k / 1000)
                block.times[0] = now()
                sender.send(block)
            t0 = max(t0 + BURST / 1000, now())
        for k in range(BURST):
            wait_until(t0 + k / 1000)
            c.ring_write(ctypes.c_long(SLOT), there, x)
        t0 = max(t0 + BURST / 1000, now())
    word.recv()
    for k in range(200 * max(1, round(bursts / 3))):
        wide.send(large.replace(seq=k * len(large)))
    word.recv()
    del there, memory


if __name__ == "__main__":
    for row in ring():
        print(f"{row.what}: {row.ours:.2f} {row.unit}, floor {row.floor:.2f}, ratio {row.ratio:.2f} (goal {row.goal})")
