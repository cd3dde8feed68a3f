"""The watch over the processes of a run.

A child starts its nodes, says it is ready, and waits until all are; then samples flow. It is told to stop, or finds
its inputs at their end, finishes what is on its way, says what it counted, and leaves when all have. A child that dies
closes its control socket, which is seen at once; what it was at, and what it had counted, is in its `Pulse`. It is
started again from its last checkpoint where the config says so (`options.py`); else the others are stopped. While it
is away, its outlets say what is safe from here.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from rheobase.stream import clock
from rheobase.stream.block import Interrupted, Spec, StreamError
from rheobase.stream.child import GRACE, Lines, where
from rheobase.stream.graph import Graph
from rheobase.stream.link import RECEIVER_WORDS, SENDER_WORDS, START
from rheobase.stream.live import Live, Seen
from rheobase.stream.node import Sink, Source
from rheobase.stream.options import Process, processes
from rheobase.stream.pulse import BEAT, SINCE, Pulse
from rheobase.stream.report import Report, Status
from rheobase.stream.ring import able

log = logging.getLogger("rheobase")

HANG = 10.0
"""s without progress after which a hang is named, where its process sets no limit of its own."""
AWAY = 1.0
"""s: where this process itself was away for longer (a suspended machine), nobody else is blamed for silence."""


class Child:
    """What the parent knows of one process."""

    def __init__(self, label: str, options: Process, pulse: Path, edges: int) -> None:
        self.label, self.options = label, options
        self.pulse = Pulse(pulse, edges)
        self.path = pulse
        self.attempt = 0
        self.starts: list[float] = []
        self.begin = 0.0
        """When it is started again; 0: it runs, or never will."""
        self.why = ""
        """Why it was ended by force."""
        self.named = False
        self.specs: dict[str, Any] = {}
        self.standing_in: list[Sink] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.control: socket.socket | None = None


class Children:
    """A child process for each label, and the watch over them."""

    def __init__(
        self,
        graph: Graph,
        folder: Path | None,
        seconds: float | None,
        speed: float,
        report: Report,
        line: Status,
        live: Live,
        interrupted: threading.Event,
    ) -> None:
        self.graph, self.folder, self.seconds, self.speed = graph, folder, seconds, speed
        self.report, self.line, self.live, self.interrupted = report, line, live, interrupted
        for name, place in graph.places.items():
            if type(place.node).__module__ == "__main__":
                what = type(place.node).__qualname__
                raise StreamError(
                    f"node {name!r}: class {what!r} is of the program itself, which the process {place.process!r} "
                    "cannot load: put it in a module of its own"
                )
        self._folder = tempfile.TemporaryDirectory(prefix="rheo-", ignore_cleanup_errors=True)
        """It goes with `run`, or with this object."""
        self.home = Path(self._folder.name)
        self.edges = far_edges(graph, f"ipc://{self.home}/")
        self.report.edges = self.edges
        self.memory: list[int] = []
        self.bells = {label: self._memory() for label in {e["to"] for e in self.edges if e["ring"]}}
        for e in self.edges:
            self._place(e, 0)
        self.selector = selectors.DefaultSelector()
        options = processes(graph.options, graph.processes(), graph.spare())
        self.children = {
            label: Child(label, o, self.home / f"{label}.pulse", len(self.edges)) for label, o in options.items()
        }
        self.names = list(graph)
        waits = [getattr(p.node, "wait", 0.0) for p in graph.places.values() if isinstance(p.node, Source)]
        self.limit = START + max((w for w in waits if isinstance(w, int | float)), default=0.0)
        """s until every process must be ready: a source may `wait` for its stream."""
        self.specs: dict[str, Any] = {}
        self.alive: set[str] = set()
        self.ready: set[str] = set()
        self.done: set[str] = set()
        self.failures: list[str] = []
        self.told_to_stop = self.moved = self.looked = 0.0
        self.went: float | None = None
        self.said_bye = False

    def run(self) -> None:
        with self._folder:  # it goes though the end of all else is interrupted
            try:
                for child in self.children.values():
                    self._spawn(child)
                self._watch()
            finally:
                running = [c.process for c in self.children.values() if c.process is not None]
                for process in running:
                    if process.poll() is None:
                        process.kill()
                for process in running:
                    process.wait()
                for child in self.children.values():
                    if child.control is not None:
                        child.control.close()
                    self._stand_down(child)
                self.selector.close()
                for file in self.memory:
                    os.close(file)
        if self.failures:
            raise StreamError("; ".join(self.failures))

    # --- starting

    def _memory(self) -> str:
        """Memory for processes to share. It has no name, so that nothing of it is left whatever happens."""
        self.memory.append(os.memfd_create("rheo"))
        return f"/proc/{os.getpid()}/fd/{self.memory[-1]}"

    def _place(self, e: dict[str, Any], attempt: int) -> None:
        """Where the two ends of an edge meet."""
        e["bell"] = self.bells.get(e["to"], "")
        e["at"] = f"shm://{self._memory()}" if e["ring"] else f"{e['address']}.{attempt}"

    def _spawn(self, child: Child) -> None:
        ours, theirs = socket.socketpair()
        log = open(self.folder / "log.txt", "ab") if self.folder else None  # noqa: SIM115 the child's
        env = dict(os.environ)
        for word in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(word, "1")
        child.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from rheobase.stream.child import child; child()",
                str(theirs.fileno()),
                child.label,
            ],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,  # Ctrl-C is for the parent, which tells the children
            env=env,
        )
        theirs.close()
        if log:
            log.close()
        child.control, child.begin, child.why, child.named = ours, 0.0, "", False
        child.starts.append(time.monotonic())
        child.pulse.slots[BEAT] = child.pulse.slots[SINCE] = 0
        self.report.final.discard(child.label)
        self.alive.add(child.label)
        self.selector.register(ours, selectors.EVENT_READ, Lines(ours, child.label))
        order = {
            "config": self.graph.to_dict(),
            "process": child.label,
            "folder": str(self.folder) if self.folder else None,
            "edges": self.edges,
            "speed": self.speed,
            "path": [p for p in sys.path if p],
            "options": msgspec.to_builtins(child.options),
            "pulse": str(child.path),
            "kept": str(self.home / f"{child.label}.npz"),
            "attempt": child.attempt,
            "wait": self.limit,
            "specs": self.specs if child.attempt else {},
        }
        self._tell(child.label, order)

    def _tell(self, label: str, what: Any) -> None:
        control = self.children[label].control
        if control is not None:
            with contextlib.suppress(OSError):  # it died: that is seen on its socket
                control.sendall(json.dumps(what).encode() + b"\n")

    def _stop(self) -> None:
        if not self.told_to_stop:
            self.told_to_stop = time.monotonic()
            for child in self.children.values():
                if child.begin:
                    self._give_up(child)
                self._tell(child.label, {"stop": True})

    # --- watching

    def _watch(self) -> None:
        begin = self.looked = time.monotonic()
        while self.alive or any(c.begin for c in self.children.values()):
            for key, _ in self.selector.select(0.05):
                lines: Lines = key.data
                for said in lines.read():
                    self._hear(lines.label, said)
                if lines.closed:
                    self.selector.unregister(key.fileobj)
                    self.alive.discard(lines.label)
                    self._ended(self.children[lines.label])
            now = time.monotonic()
            if self.went is None and not self.told_to_stop:
                if len(self.ready) == len(self.children):
                    self.went = now
                    self.report.begin()
                    for label in self.children:
                        self._tell(label, {"go": True})
                elif now - begin > self.limit:
                    late = set(self.children) - self.ready
                    late -= {e["to"] for e in self.edges if e["from"] in late}  # these wait only for the others
                    self.failures.append(f"not ready after {self.limit:g} s: process {', '.join(sorted(late))}")
                    self._stop()
            over = self.seconds is not None and self.went is not None and now - self.went >= self.seconds
            if self.interrupted.is_set() or over:
                self._stop()
            if self.interrupted.is_set() and self.went is None:
                raise Interrupted("interrupted before every process was ready")
            if self.told_to_stop and now - max(self.told_to_stop, self.moved) > (GRACE if self.went else 1.0):
                for label in sorted(self.alive):
                    # one that still looks for its stream cannot hear
                    if label not in self.done and self.went:
                        at = where(self.children[label].pulse, self.names)
                        self.failures.append(f"process {label!r} did not stop within {GRACE:g} s and was killed{at}")
                    self.done.add(label)
                    self._died(self.children[label])
                    self._kill(self.children[label])
                self.told_to_stop = now
            for child in self.children.values():
                if child.begin and now >= child.begin:
                    self._again(child)
            if self.went is not None:
                self._look_for_hangs(now)
            self.looked = now
            if self.alive <= self.done and not self.said_bye and not any(c.begin for c in self.children.values()):
                self.said_bye = True
                for label in self.alive:
                    self._tell(label, {"bye": True})
            self.line.show()
            self.live.look(self._seen)

    def _seen(self) -> dict[str, Seen]:
        def state(child: Child) -> str:
            if child.begin:
                return "waits to start again"
            if child.label not in self.alive:
                return "ended"
            return "starting" if child.label not in self.ready else "hangs" if child.named else "running"

        return {k: Seen(c.process.pid if c.process else 0, state(c), c.pulse) for k, c in self.children.items()}

    def _look_for_hangs(self, now: float) -> None:
        """Name who gets nowhere, and end it where its limit says so."""
        if now - self.looked > AWAY:
            log.warning("the run was stopped for %.1f s (a suspended machine, a debugger)", now - self.looked)
            self.report.stalls.append({"process": "run", "seconds": round(now - self.looked, 2), "cause": "suspended"})
            for child in self.children.values():
                child.pulse.slots[BEAT] = time.monotonic_ns()
                if child.pulse.slots[SINCE]:
                    child.pulse.slots[SINCE] = time.monotonic_ns()
            return
        for label in sorted(self.alive & self.ready - self.done):
            child = self.children[label]
            limit = child.options.hang or HANG
            beat, since = (1e-9 * child.pulse.slots[k] for k in (BEAT, SINCE))
            stuck = now - since if since else 0.0
            silent = now - beat if beat else 0.0
            if max(stuck, silent) < limit:
                child.named = False
                continue
            if not child.named:
                child.named = True
                how = "gives no sign of life" if silent >= limit else "hangs"
                said = f"process {label!r} {how} since {max(stuck, silent):.1f} s{where(child.pulse, self.names)}"
                log.warning("%s", said)
                self.report.hung.append(said)
                if child.options.hang:
                    child.why = said
                    self._kill(child)

    def _kill(self, child: Child) -> None:
        """By force, with a word in the log about where it was."""
        assert child.process
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            child.process.send_signal(signal.SIGABRT)  # faulthandler
            child.process.wait(0.3)
            return
        child.process.kill()

    def _hear(self, label: str, said: dict[str, Any]) -> None:
        child = self.children[label]
        if said.get("ready"):
            self.ready.add(label)
            child.specs = said["specs"]
            self.specs |= {k: (x, said["virtual"]) for k, x in said["specs"].items()}
            if child.attempt:
                self._tell(label, {"go": True})
                ended = [e["address"] for e in self.edges if e["to"] == label and e["from"] in self.done]
                self._tell(label, {"dead": ended})
                if self.told_to_stop:
                    self._tell(label, {"stop": True})
        if "counted" in said:
            if said["counted"]["nodes"] != self.report.counted.get(label, {}).get("nodes"):
                self.moved = time.monotonic()  # what is on its way may take long, but nothing of it is lost
            self.report.update(label, said["counted"], final="done" in said)
        if "tell" in said:
            for other in self.children:
                self._tell(other, {"told": said["tell"]})
        if "failed" in said:
            child.why = said["failed"]
            if self._may_begin_again(child):
                self._tell(label, {"bye": True})
                return
            self.failures.append(said["failed"])
            self._without(label)
        if "done" in said or "failed" in said:
            self.done.add(label)

    # --- ending, and beginning again

    def _ended(self, child: Child) -> None:
        assert child.process
        code = child.process.wait()
        if child.label in self.done:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        see = f" (see {self.folder / 'log.txt'})" if self.folder else ""
        why = child.why or f"process {child.label!r} died: {how}{where(child.pulse, self.names)}{see}"
        again = self._may_begin_again(child)
        self._died(child, again)
        if again:
            wait = child.options.backoff * 2 ** self._restarts(child)
            child.begin = time.monotonic() + wait
            number, seq, t = child.pulse.where()
            self.report.restarts.append(
                {"process": child.label, "why": why, "node": self.names[number], "seq": seq, "time": t, "wait": wait}
                | {"clock": time.monotonic()}
            )
            log.warning("%s; it is started again in %.2g s", why, wait)
            self.ready.discard(child.label)
            self._stand_in(child)
            return
        self.failures.append(why)
        self._without(child.label)
        self._stand_in(child)

    def _restarts(self, child: Child) -> int:
        """How often it was started again within the window."""
        return sum(time.monotonic() - t < child.options.within for t in child.starts[1:])

    def _may_begin_again(self, child: Child) -> bool:
        return not self.told_to_stop and self.went is not None and self._restarts(child) < child.options.restart

    def _again(self, child: Child) -> None:
        """Start it again. Its edges go on at other addresses, so that nothing of before is in their way."""
        child.attempt += 1
        self._stand_down(child, ends=False)
        for e in self.edges:
            if e["from"] == child.label:
                self._place(e, child.attempt)
                self._tell(e["to"], {"moved": {e["address"]: e["at"]}})
        self._spawn(child)

    def _give_up(self, child: Child) -> None:
        """It will not be started again after all."""
        child.begin = 0.0
        self.done.add(child.label)
        self._without(child.label)

    def _died(self, child: Child, again: bool = False) -> None:
        """What it had counted on its edges is in its pulse; and that is its last word."""
        last = self.report.counted.get(child.label, {})
        sent, received = {}, {}
        for k, e in enumerate(self.edges):
            slots = child.pulse.edge(k)
            if e["from"] == child.label:
                sent[e["address"]] = dict(zip(SENDER_WORDS, slots, strict=False))
            if e["to"] == child.label:
                received[e["address"]] = dict(zip(RECEIVER_WORDS, slots, strict=False)) | {"ended": False}
        self.report.update(child.label, last | {"nodes": last.get("nodes", {}), "sent": sent, "received": received})
        self.report.final.add(child.label)
        if again:
            self.report.carry(child.label)
        else:
            self.report.died(child.label)

    def _without(self, label: str) -> None:
        """Nothing more comes from this process, and it takes nothing: the others finish what they have."""
        gone = [e["address"] for e in self.edges if label in (e["from"], e["to"])]
        for other in self.children:
            self._tell(other, {"dead": gone})
        self._stop()

    def _stand_in(self, child: Child) -> None:
        """Give what is safe in place of the outlets of a process that died."""
        for place in self.graph.places.values():
            node = place.node
            if place.process != child.label or getattr(node, "safe", None) is None or not hasattr(node, "stand_in"):
                continue
            known = self.specs.get(place.edges[0].source)
            if known is None:
                continue
            (spec, virtual), (_, _, t) = known, child.pulse.where()
            try:
                other = node.stand_in(msgspec.convert(spec, Spec), clock.now() if virtual or not t else t)
            except Exception as e:  # noqa: BLE001 the run goes on, or ends, in good order without
                log.warning("%s: cannot say what is safe in its place: %s", node.name, e)
                continue
            child.standing_in.append(other)

    def _stand_down(self, child: Child, ends: bool = True) -> None:
        for node in child.standing_in:
            node.ends = ends
            with contextlib.suppress(Exception):
                node.stop()
        child.standing_in.clear()


def far_edges(graph: Graph, prefix: str) -> list[dict[str, Any]]:
    """Every edge between two processes.

    A process reads all its edges from shared memory where none of them drops or asks for `edge: zmq`; else all by
    ZeroMQ, for it can wait for one kind only.
    """
    found: list[dict[str, Any]] = []
    for name, place in graph.places.items():
        for i, edge in enumerate(place.edges):
            source = graph.places[edge.source]
            if source.process != place.process:
                found.append(
                    {
                        "address": f"{prefix}{len(found)}",
                        "source": edge.source,
                        "target": name,
                        "input": i,
                        "from": source.process,
                        "to": place.process,
                        "policy": edge.policy,
                        "keep": edge.keep,
                        "edge": edge.edge,
                    }
                )
    by_socket, shared = graph.by_socket(), able()
    for e in found:
        e["ring"] = e["to"] not in by_socket and shared
    return found
