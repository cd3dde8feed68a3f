"""Damaged frames and files by the million: what reads them raises StreamError, or reads; it does nothing else.

    python -m rheobase.tools.fuzz --frames 10000000 --files 100000

Each is a whole one with some bytes changed, cut out, put in, doubled, or set to extreme numbers, by a seeded
generator: a number and the seed make it again (`--seed S --only K`). An address space of `LIMIT` more than at the start
makes what takes more memory fail, and an alarm what takes more than `SLOW`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import resource
import signal
import struct
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rich.console

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.files import load_model, save_model
from rheobase.stream.graph import parse
from rheobase.stream.keys import public_key, write_keys
from rheobase.stream.link import Receiver, pack, pack_end, pack_spec, unpack

LIMIT = 256 << 20
"""Bytes that reading may take above what is there: the smallest frames and files here are some hundred."""
SLOW = 10.0
"""s of the processor that one may take (of the clock, a busy machine would be blamed on it)."""
EXTREMES = [
    0,
    1,
    127,
    128,
    255,
    1 << 15,
    1 << 16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 62,
    (1 << 63) - 1,
    (1 << 64) - 1,
]
WORDS = [
    b"\0" * 8,
    b"\xff" * 8,
    b"[" * 3000,
    b"{" * 3000,
    b"nan",
    b"1e999",
    b"-1",
    b"&a [*a,*a]",
    b"RHEO",
    b"XDF:",
    b"PK\3\4",
]

Read = Callable[[bytes], None]


def mutate(rng: np.random.Generator, whole: bytes) -> bytes:
    """One to four changes of some bytes."""
    made = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, len(made) + 1))
        kind = rng.integers(0, 7)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del made[at:]
        elif kind == 2:
            del made[at : at + int(rng.integers(1, 40))]
        elif kind == 3:
            made[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif kind == 4:
            n = int(rng.integers(1, 200))
            made[at:at] = made[max(0, at - n) : at]
        elif kind == 5:
            width = int(rng.choice([1, 2, 4, 8]))
            value = EXTREMES[rng.integers(0, len(EXTREMES))] & ((1 << 8 * width) - 1)
            made[at : at + width] = value.to_bytes(width, "little")
        else:
            word = WORDS[rng.integers(0, len(WORDS))]
            made[at : at + (len(word) if rng.integers(0, 2) else 0)] = word
    return bytes(made)


def frames() -> tuple[list[bytes], Read]:
    """Whole frames, and what reads one."""
    spec = Spec(rate=1000, channels=("a", "b"), dtype="float32")
    text = Spec(rate=0, channels=("word",), dtype="str")
    x = Block(np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3.0), 40, 1)
    words = Block(np.array([["go"], ["stöp"]], object), np.arange(2.0))
    whole = [pack(x, "float32"), pack(words, "str"), pack_spec(spec), pack_spec(text), pack_end(43)]
    receivers = [Receiver(f"inproc://fuzz{k}") for k in range(2)]
    for r, s in zip(receivers, (spec, text), strict=True):
        r._take(pack_spec(s))

    def read(message: bytes) -> None:
        with contextlib.suppress(StreamError):
            frame = unpack(message)
            if frame.block is not None:
                got = frame.block
                if got.data.shape[0] != len(got.times) or got.data.nbytes > 8 * len(message):
                    raise AssertionError(f"{got.data.shape} of {len(got.times)} from {len(message)} bytes")
        for r in receivers:
            with contextlib.suppress(StreamError):
                r._take(message)

    return whole, read


def files(folder: Path) -> dict[str, tuple[list[bytes], Read]]:
    """Format -> whole files, and what reads one."""
    node = Record()
    node.name, node.inputs, node.folder = "rec", ("a", "w"), folder
    node.start(Spec(rate=100, channels=("x", "y"), dtype="float32"), Spec(rate=0, channels=("w",), dtype="str"))
    for k in range(4):
        node.take(0, Block(np.full((5, 2), k, np.float32), np.arange(5) / 100 + k, 5 * k, k // 2))
        node.take(1, Block(np.array([["word"]], object), np.array([float(k)]), k))
    node.stop()
    own = (folder / "recording.xdf").read_bytes()
    foreign = own.replace(b"rheobase", b"somebody")
    arrays = {"w": np.arange(6.0).reshape(2, 3), "n": np.arange(4)}
    model = save_model(folder / "model.npz", arrays, {"node": "x", "in": {}, "out": {}}).read_bytes()
    packed = io.BytesIO()
    np.savez_compressed(packed, x=np.arange(60.0).reshape(20, 3), t=np.arange(20) / 10)
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as z:
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
        text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
        z.writestr("x.npy", head + text.ljust(117) + b"\n" + bytes(64))
    public, _ = write_keys("lab", folder)
    config = Path(__file__).parent.parent.joinpath("configs", "cursor.yaml").read_bytes()
    bombs = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for k, word in enumerate("bcdefghij"):
        bombs += f"{word}: &{word} [{','.join(['*' + 'abcdefghij'[k]] * 9)}]\n"
    laughs = (bombs + "nodes: {n: {type: bins, width: *j}}\n").encode()

    def on_disk(suffix: str, do: Callable[[str], object]) -> Read:
        path = folder / f"damaged{suffix}"

        def read(raw: bytes) -> None:
            path.write_bytes(raw)
            with contextlib.suppress(StreamError):
                do(str(path))

        return read

    def play(path: str) -> None:
        for name in streams(path, salvage=True):
            replay = Replay(file=path, stream=name, salvage=True, rate=10.0)
            replay.start()
            for _ in replay.blocks():
                pass

    def config_of(raw: bytes) -> None:
        with contextlib.suppress(StreamError, UnicodeDecodeError):
            parse(raw.decode())

    csv = b"t,x,y\n" + b"".join(b"%d,%d,1e3\n" % (k, k) for k in range(20))
    return {
        "xdf": ([own, foreign], on_disk(".xdf", play)),
        "npz": ([packed.getvalue(), bomb.getvalue()], on_disk(".npz", play)),
        "model": ([model], on_disk(".npz", load_model)),
        "csv": ([csv], on_disk(".csv", play)),
        "yaml": ([config, laughs], config_of),
        "key": ([public.read_bytes()], on_disk(".key", public_key)),
    }


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Little memory and little time for what is done within; each `tick` begins the time anew."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT, before[1]))
    old = signal.signal(signal.SIGPROF, _too_long)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_long(*_: object) -> None:
    raise AssertionError(f"took more than {SLOW:g} s")


def fuzz(what: str, whole: list[bytes], read: Read, n: int, seed: int, only: int | None = None) -> list[str]:
    """Read n damaged ones. Returns what went wrong, with the number that makes it again."""
    wrong: list[str] = []
    for raw in whole:
        read(raw)  # what is imported late is there then
    with bounded():
        for k in range(n) if only is None else [only]:
            if k % 1000 == 0 or what != "frame":
                signal.setitimer(signal.ITIMER_PROF, SLOW)
            rng = np.random.default_rng((seed, k))
            raw = mutate(rng, whole[k % len(whole)])
            try:
                read(raw)
            except BaseException as e:
                if isinstance(e, KeyboardInterrupt):
                    raise
                signal.setitimer(signal.ITIMER_PROF, SLOW)
                wrong.append(f"{what} {k}: {type(e).__name__}: {str(e)[:200]}")
                if only is not None:
                    raise
                if len(wrong) > 20:
                    break
    return wrong


def main() -> int:
    """From the command line. Returns the exit code: 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--files", type=int, default=2_000, help="of all formats together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", help="only this: frame, xdf, npz, model, csv, yaml, key")
    parser.add_argument("--only", type=int, help="only this number, with its traceback")
    given = parser.parse_args()
    console = rich.console.Console()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        jobs = {"frame": (*frames(), given.frames)}
        formats = files(Path(folder))
        jobs |= {k: (*v, given.files // len(formats)) for k, v in formats.items()}
        for what, (whole, read, n) in jobs.items():
            if given.what not in (None, what):
                continue
            began = time.monotonic()
            wrong = fuzz(what, whole, read, n, given.seed, given.only)
            bad += len(wrong)
            console.print(f"{what}: {n} in {time.monotonic() - began:.0f} s, {len(wrong)} wrong", highlight=False)
            for line in wrong:
                console.print(f"  {line}", highlight=False, markup=False)
    console.print(json.dumps({"wrong": bad}))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
