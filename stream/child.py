"""The life of a child process of a run, and how an engine is driven."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from rheobase.stream import checkpoint, clock
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.graph import from_dict
from rheobase.stream.link import Receiver, Sender
from rheobase.stream.node import Sink, blame
from rheobase.stream.options import Process
from rheobase.stream.pulse import BEAT, SINCE, Pulse
from rheobase.stream.shared import RingReceiver, RingSender

log = logging.getLogger("rheobase")

GRACE = 5.0
"""s: a process that was told to end and for so long gets nothing done is killed."""
KEEP = 1.0
"""s between two checkpoints."""
LEAVE = 1.0
"""s that an engine has to end in when something beside it went wrong."""


def drive(engine: Engine, watch: Callable[[], None]) -> None:
    """Run an engine in a thread while `watch` is called now and then; a window owns this, the main, thread.

    What `watch` raises ends it, though the engine may hang.
    """
    gc.collect()
    gc.freeze()  # a full collection would stop the loop for tens of ms
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        clock.fine_timer()
        try:
            clock.real_time(engine.options.cpu, engine.options.priority)
            engine.run()
        except BaseException as e:  # noqa: BLE001 it is raised in the main thread
            errors.append(e)
        finally:
            done.set()

    def look() -> None:
        try:
            while not done.wait(0.05):
                watch()
        except Exception as e:  # noqa: BLE001 it is raised in the main thread
            errors.append(e)
            done.set()

    thread = threading.Thread(target=work, name="engine", daemon=True)
    thread.start()
    windows = [p.node for p in engine.here.values() if isinstance(p.node, Sink) and type(p.node).loop is not Sink.loop]
    watcher = threading.Thread(target=look, daemon=True)
    try:
        if windows:
            watcher.start()
            with blame(windows[0]):
                windows[0].loop(done.is_set)
        else:
            look()
    except Exception:
        engine.stop()
        thread.join(GRACE)
        raise
    done.wait()
    if errors:
        engine.stop()
        thread.join(LEAVE)
        raise errors[0]
    thread.join()


def counted(engine: Engine) -> dict[str, Any]:
    """What an engine has counted so far, as plain values."""
    return {
        "nodes": dict(engine.counts),
        "ages": {k: a.table() for k, a in engine.ages.items() if a.n},
        "histograms": {
            k: {str(i): int(a.counts[i]) for i in a.counts.nonzero()[0]}
            for k, a in engine.ages.items()
            if a.n and engine.options.restart  # to go on with
        },
        "late": dict(engine.late),
        "missed": dict(engine.missed),
        "swapped": engine.swapped,
        "health": {k: h for k, p in engine.here.items() if (h := getattr(p.node, "health", None))},
        "states": {k: s for k, n in engine.sources.items() if (s := getattr(n, "state", None))},
        "notes": {k: s for k, p in engine.here.items() if (s := getattr(p.node, "note", None))},
        "sent": {
            s.address: {"sent": s.sent, "lost": s.lost, "missing": s.missing, "waits": s.waits}
            for senders in engine.senders.values()
            for s in senders
        },
        "received": {
            r.address: {"received": r.received, "dropped": r.dropped, "gaps": r.gaps, "ended": r.ended}
            for r in engine.receivers.values()
        },
    }


def where(pulse: Pulse, names: Sequence[str]) -> str:
    """What a process was at, as its pulse says."""
    number, seq, t = pulse.where()
    if not t:
        return ""
    state = "has had" if pulse.slots[SINCE] else "had last"
    return f": node {names[number]!r} {state} sample {seq} (of {t:.3f} s)"


class Lines:
    """JSON lines from a socket that does not block."""

    def __init__(self, s: socket.socket, label: str = "") -> None:
        self.socket, self.label, self.closed, self.rest = s, label, False, b""

    def read(self) -> list[dict[str, Any]]:
        try:
            got = self.socket.recv(1 << 16)
        except OSError:
            got = b""
        if not got:
            self.closed = True
        *whole, self.rest = (self.rest + got).split(b"\n")
        return [json.loads(line) for line in whole if line]


def child() -> None:
    """The life of a child process: its orders come on the socket that argv[1] names."""
    s = socket.socket(fileno=int(sys.argv[1]))
    faulthandler.enable()  # a crash, or the end by force of a hang, leaves every thread's place in the log
    with contextlib.suppress(AttributeError, ValueError):
        faulthandler.register(signal.SIGUSR1)
    lines = Lines(s)
    send_lock = threading.Lock()

    def say(what: dict[str, Any]) -> None:
        with send_lock, contextlib.suppress(OSError):  # the parent is gone: `obey` sees it
            s.sendall(json.dumps(what).encode() + b"\n")

    def hear() -> Iterator[dict[str, Any]]:
        while not lines.closed:
            yield from lines.read()

    orders = hear()
    order = next(orders)
    sys.path[:] = order["path"]
    engine: Engine | None = None
    go, bye, stopped = threading.Event(), threading.Event(), threading.Event()
    ready = False
    try:
        engine = _engine(order, lambda what: say({"tell": what}))
        running = engine

        def obey() -> None:
            for told in orders:
                if "moved" in told:
                    running.moved |= told["moved"]
                if "dead" in told:
                    running.dead |= set(told["dead"])
                if "stop" in told:
                    stopped.set()
                    running.stop()
                if "told" in told:
                    running.hear(told["told"])
                if "go" in told or "stop" in told:
                    go.set()
                if "bye" in told:
                    bye.set()
            # the parent is gone: so are we, in good order if we can
            running.stop()
            go.set()
            time.sleep(GRACE)
            os._exit(1)

        threading.Thread(target=obey, daemon=True).start()
        running.start()
        if running.attempt:
            checkpoint.restore(running, Path(order["kept"]))
        ready = True
        say(
            {
                "ready": True,
                "specs": {k: msgspec.to_builtins(x) for k, x in running.specs.items()},
                "virtual": running.virtual,
            }
        )
        go.wait()
        last = kept = 0.0

        def watch() -> None:
            nonlocal last, kept
            now = time.monotonic()
            running.pulse.slots[BEAT] = time.monotonic_ns()
            if now - last > 0.5:
                last = now
                say({"counted": counted(running)})
            checkpoint.save(running, Path(order["kept"]))
            if running.options.restart and now - kept > KEEP:
                kept, running.keep = now, True

        drive(running, watch)
        say({"done": True, "counted": counted(running)})
        bye.wait()
    except BaseException as e:  # noqa: BLE001 the parent names it
        with contextlib.suppress(OSError):  # the log may lie on a disk that is full
            traceback.print_exc()
        if stopped.is_set() and not ready:  # another died while this one waited for it
            say({"done": True})
            os._exit(0)
        text = str(e) if isinstance(e, StreamError) else f"{type(e).__name__}: {e}"
        if engine is not None:
            say({"counted": counted(engine)})
        say({"failed": text})
        with contextlib.suppress(Exception):
            if engine is not None:
                engine.close(say_end=not engine.options.restart)
        bye.wait(GRACE)
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # threads of sources may still wait on a device


def _engine(order: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> Engine:
    label, edges = order["process"], order["edges"]
    pulse = Pulse(Path(order["pulse"]), len(edges))
    engine: Engine

    def senders(name: str, spec: Spec, virtual: bool) -> Sequence[Sender]:
        return [sender(k, e, spec, virtual) for k, e in enumerate(edges) if e["source"] == name and e["from"] == label]

    def sender(k: int, e: dict[str, Any], spec: Spec, virtual: bool) -> Sender:
        kept, name = pulse.edge(k), e["address"]

        def gone() -> bool:
            return name in engine.dead

        if e["ring"]:
            return RingSender(e["at"], e["bell"], spec, k, virtual, gone, kept, name)
        return Sender(e["at"], spec, e["policy"], e["keep"], k, virtual, gone, kept=kept, name=name)

    def receiver(k: int, e: dict[str, Any]) -> Receiver:
        kept, spec, name = pulse.edge(k), known(e["source"]), e["address"]
        if e["ring"]:
            return RingReceiver(e["at"], e["bell"], kept, spec, name)
        return Receiver(e["at"], e["policy"], e["keep"], kept=kept, spec=spec, name=name)

    def known(source: str) -> tuple[Spec, bool] | None:
        """What a process before this one knew of a stream: it is said once."""
        said = order["specs"].get(source)
        return (msgspec.convert(said[0], Spec), said[1]) if said else None

    receivers = {(e["target"], e["input"]): receiver(k, e) for k, e in enumerate(edges) if e["to"] == label}
    engine = Engine(
        from_dict(order["config"], only=label),
        label,
        receivers,
        senders,
        outward=[e["source"] for e in edges if e["from"] == label],
        folder=Path(order["folder"]) if order["folder"] else None,
        speed=order["speed"],
        config=order["config"],
        tell=tell,
        options=msgspec.convert(order["options"], Process),
        pulse=pulse,
        attempt=order["attempt"],
        wait=order["wait"],
    )
    return engine
