"""`run(graph)`: every process of a graph, from the start barrier to the last table.

One label: the graph runs in this process and opens no socket. Several: each label is a child process; this one
only watches. A child starts its nodes, says it is ready, and waits until all are; then samples flow. It is told
to stop, or finds its inputs at their end, finishes what is on its way, says what it counted, and leaves when all
have. A child that dies closes its control socket, which the parent sees at once; the others are stopped.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import itertools
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rheobase.stream import clock
from rheobase.stream.block import Block, Interrupted, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.files import versions
from rheobase.stream.graph import Graph, from_dict
from rheobase.stream.link import START, Receiver, Sender
from rheobase.stream.node import Sink, blame
from rheobase.stream.report import Report, Status

GRACE = 5.0
"""s: a process that was told to end and for so long gets nothing done is killed."""


def run(
    graph: Graph,
    folder: Path | None = None,
    seconds: float | None = None,
    speed: float = 0.0,
    taps: Mapping[str, Callable[[Block], None]] | None = None,
    status: bool = False,
) -> Report:
    """Run a graph until its sources end, `seconds` have passed, or Ctrl-C.

    folder  the run directory (made; None: nothing is written)
    speed   of recorded sources: 1 real time, 0 as fast as they are taken
    taps    node name -> called with each of its blocks (graphs of one process only)
    status  show a line while running

    Raises StreamError when something went wrong; what was recorded until then is readable.
    """
    graph.check()
    if folder is not None:
        with _written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(yaml.safe_dump(graph.to_dict(), sort_keys=False))
            (folder / "versions.json").write_text(json.dumps(versions(), indent=1))
    report = Report(graph)
    line = Status(report, status)
    failure: Exception | None = None
    try:
        if len(graph.processes()) == 1:
            _run_here(graph, folder, seconds, speed, taps, report, line)
        else:
            with _interrupts() as interrupted:
                _Children(graph, folder, seconds, speed, report, line, interrupted).run()
    except Exception as e:  # noqa: BLE001 the tables are written whatever it was
        failure = e
    finally:
        line.close()
    if folder is not None:
        try:
            with _written(folder):
                report.write(folder)
        except StreamError as e:
            failure = failure or e
    if failure is not None:
        raise failure
    return report


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, in one line."""
    try:
        yield
    except OSError as e:
        raise StreamError(f"{e.filename or folder}: {e.strerror}") from None


def new_folder(name: str, under: Path = Path("runs")) -> Path:
    """Make a run directory of its own: runs/name-20260131-120000. Raises OSError."""
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    under.mkdir(parents=True, exist_ok=True)
    for n in itertools.count(1):
        folder = under / (f"{name}-{stamp}" if n == 1 else f"{name}-{stamp}-{n}")
        with contextlib.suppress(FileExistsError):  # another run of this second has it
            folder.mkdir()
            break
    return folder


@contextlib.contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Set on Ctrl-C or SIGTERM; a second Ctrl-C interrupts at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def hear(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {s: signal.signal(s, hear) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _drive(engine: Engine, watch: Callable[[], None]) -> None:
    """Run an engine in a thread while `watch` is called now and then; a window owns this, the main, thread."""
    gc.collect()
    gc.freeze()  # a full collection would stop the loop for tens of ms
    errors: list[BaseException] = []
    done = threading.Event()

    def work() -> None:
        clock.fine_timer()
        try:
            engine.run()
        except BaseException as e:  # noqa: BLE001 it is raised in the main thread
            errors.append(e)
        finally:
            done.set()

    def look() -> None:
        while not done.wait(0.05):
            watch()

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
    thread.join()
    if errors:
        raise errors[0]


def _run_here(
    graph: Graph,
    folder: Path | None,
    seconds: float | None,
    speed: float,
    taps: Mapping[str, Callable[[Block], None]] | None,
    report: Report,
    line: Status,
) -> None:
    engine = Engine(graph, taps=taps, folder=folder, speed=speed)
    engine.start()  # until it has, nothing can be lost: Ctrl-C interrupts at once
    begin = clock.now()

    def watch() -> None:
        if interrupted.is_set() or (seconds is not None and clock.now() - begin >= seconds):
            engine.stop()
        report.update("main", counted(engine))
        line.show()

    try:
        with _interrupts() as interrupted:
            _drive(engine, watch)
    finally:
        report.update("main", counted(engine), final=True)
        gc.unfreeze()


def counted(engine: Engine) -> dict[str, Any]:
    """What an engine has counted so far, as plain values."""
    return {
        "nodes": dict(engine.counts),
        "ages": {k: a.table() for k, a in engine.ages.items() if a.n},
        "late": dict(engine.late),
        "swapped": engine.swapped,
        "health": {k: h for k, p in engine.here.items() if (h := getattr(p.node, "health", None))},
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


class _Children:
    """A child process for each label, and the watch over them."""

    def __init__(
        self,
        graph: Graph,
        folder: Path | None,
        seconds: float | None,
        speed: float,
        report: Report,
        line: Status,
        interrupted: threading.Event,
    ) -> None:
        self.graph, self.folder, self.seconds, self.speed = graph, folder, seconds, speed
        self.report, self.line, self.interrupted = report, line, interrupted
        self.home = Path(tempfile.mkdtemp(prefix="rheo-"))
        self.edges = _far_edges(graph, f"ipc://{self.home}/")
        self.report.edges = self.edges
        self.selector = selectors.DefaultSelector()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.control: dict[str, socket.socket] = {}
        self.ready: set[str] = set()
        self.done: set[str] = set()
        self.failures: list[str] = []
        self.told_to_stop = self.moved = 0.0
        self.said_bye = False

    def run(self) -> None:
        try:
            for label in self.graph.processes():
                self._spawn(label)
            self._watch()
        finally:
            for label, child in self.children.items():
                if child.poll() is None:
                    child.kill()
                child.wait()
                self.control[label].close()
            shutil.rmtree(self.home, ignore_errors=True)
        if self.failures:
            raise StreamError("; ".join(self.failures))

    def _spawn(self, label: str) -> None:
        ours, theirs = socket.socketpair()
        log = open(self.folder / "log.txt", "ab") if self.folder else None  # noqa: SIM115 the child's
        env = dict(os.environ)
        for word in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            env.setdefault(word, "1")
        self.children[label] = subprocess.Popen(
            [sys.executable, "-c", "from rheobase.stream.run import child; child()", str(theirs.fileno()), label],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the parent, which tells the children
            env=env,
        )
        theirs.close()
        if log:
            log.close()
        self.control[label] = ours
        self.selector.register(ours, selectors.EVENT_READ, _Lines(ours, label))
        order = {
            "config": self.graph.to_dict(),
            "process": label,
            "folder": str(self.folder) if self.folder else None,
            "edges": self.edges,
            "speed": self.speed,
            "path": [p for p in sys.path if p],
        }
        self._tell(label, order)

    def _tell(self, label: str, what: Any) -> None:
        with contextlib.suppress(OSError):  # it died: that is seen on its socket
            self.control[label].sendall(json.dumps(what).encode() + b"\n")

    def _stop(self) -> None:
        if not self.told_to_stop:
            self.told_to_stop = time.monotonic()
            for label in self.children:
                self._tell(label, {"stop": True})

    def _watch(self) -> None:
        begin = time.monotonic()
        went: float | None = None
        alive = set(self.children)
        while alive:
            for key, _ in self.selector.select(0.05):
                lines: _Lines = key.data
                for said in lines.read():
                    self._hear(lines.label, said)
                if lines.closed:
                    self.selector.unregister(key.fileobj)
                    alive.discard(lines.label)
                    self._ended(lines.label)
            now = time.monotonic()
            if went is None and not self.told_to_stop:
                if len(self.ready) == len(self.children):
                    went = now
                    self.report.begin()
                    for label in self.children:
                        self._tell(label, {"go": True})
                elif now - begin > START:
                    late = ", ".join(sorted(set(self.children) - self.ready))
                    self.failures.append(f"not ready after {START:g} s: process {late}")
                    self._stop()
            if self.interrupted.is_set() or (went and self.seconds is not None and now - went >= self.seconds):
                self._stop()
            if self.interrupted.is_set() and went is None:
                raise Interrupted("interrupted before every process was ready")
            if self.told_to_stop and now - max(self.told_to_stop, self.moved) > (GRACE if went else 1.0):
                for label in sorted(alive):
                    # one that still looks for its stream cannot hear
                    if label not in self.done and went:
                        self.failures.append(f"process {label!r} did not stop within {GRACE:g} s and was killed")
                    self.done.add(label)
                    self.report.died(label)
                    self.children[label].kill()
                self.told_to_stop = now
            if alive <= self.done and not self.said_bye:
                self.said_bye = True
                for label in alive:
                    self._tell(label, {"bye": True})
            self.line.show()

    def _hear(self, label: str, said: dict[str, Any]) -> None:
        if said.get("ready"):
            self.ready.add(label)
        if "counted" in said:
            if said["counted"]["nodes"] != self.report.counted.get(label, {}).get("nodes"):
                self.moved = time.monotonic()  # what is on its way may take long, but nothing of it is lost
            self.report.update(label, said["counted"], final="done" in said)
        if "tell" in said:
            for other in self.children:
                self._tell(other, {"told": said["tell"]})
        if "failed" in said:
            self.failures.append(said["failed"])
            self._without(label)
        if "done" in said or "failed" in said:
            self.done.add(label)

    def _ended(self, label: str) -> None:
        code = self.children[label].wait()
        if label not in self.done:
            how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            where = f" (see {self.folder / 'log.txt'})" if self.folder else ""
            self.failures.append(f"process {label!r} died: {how}{where}")
            self.report.died(label)
            self._without(label)

    def _without(self, label: str) -> None:
        """Nothing more comes from this process, and it takes nothing: the others finish what they have."""
        gone = [e["address"] for e in self.edges if label in (e["from"], e["to"])]
        for other in self.children:
            self._tell(other, {"dead": gone})
        self._stop()


def _far_edges(graph: Graph, prefix: str) -> list[dict[str, Any]]:
    """Every edge between two processes."""
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
                    }
                )
    return found


class _Lines:
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
    lines = _Lines(s)
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
        engine = _child_engine(order, lambda what: say({"tell": what}))
        running = engine

        def obey() -> None:
            for told in orders:
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
        ready = True
        say({"ready": True})
        go.wait()
        last = 0.0

        def watch() -> None:
            nonlocal last
            if time.monotonic() - last > 0.5:
                last = time.monotonic()
                say({"counted": counted(running)})

        _drive(running, watch)
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
                engine.close()
        bye.wait(GRACE)
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # threads of sources may still wait on a device


def _child_engine(order: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> Engine:
    label, edges = order["process"], order["edges"]
    engine: Engine

    def senders(name: str, spec: Spec, virtual: bool) -> Sequence[Sender]:
        return [
            Sender(e["address"], spec, e["policy"], e["keep"], k, virtual, lambda a=e["address"]: a in engine.dead)  # type: ignore[misc]
            for k, e in enumerate(edges)
            if e["source"] == name and e["from"] == label
        ]

    receivers = {
        (e["target"], e["input"]): Receiver(e["address"], e["policy"], e["keep"]) for e in edges if e["to"] == label
    }
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
    )
    return engine
