"""`run(graph)`: every process of a graph, from the start barrier to the last table.

One label: the graph runs in this process and opens no socket. Several, or one that may be started again or has a limit
on hanging: each label is a child process (`child.py`), and this one only watches (`parent.py`).
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import itertools
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from rheobase.stream import clock
from rheobase.stream.block import Block, StreamError
from rheobase.stream.child import GRACE, counted, drive, where
from rheobase.stream.engine import Engine
from rheobase.stream.files import versions
from rheobase.stream.graph import Graph
from rheobase.stream.live import Live, Seen
from rheobase.stream.metrics import serving
from rheobase.stream.options import processes
from rheobase.stream.parent import Children
from rheobase.stream.pulse import SINCE
from rheobase.stream.report import Report, Status

log = logging.getLogger("rheobase")


def run(
    graph: Graph,
    folder: Path | None = None,
    seconds: float | None = None,
    speed: float = 0.0,
    taps: Mapping[str, Callable[[Block], None]] | None = None,
    status: bool = False,
    metrics: str = "",
) -> Report:
    """Run a graph until its sources end, `seconds` have passed, or Ctrl-C, SIGTERM, SIGHUP.

    folder  the run directory (made; None: nothing is written)
    speed   of recorded sources: 1 real time, 0 as fast as they are taken
    taps    node name -> called with each of its blocks (graphs of one process only; with them `restart` and `hang` of
            it do nothing)
    status  show a line while running
    metrics PORT or ADDRESS:PORT of this machine: what it is at, as Prometheus asks for it

    While it runs, FOLDER/live.json says what it is at (`rheobase.stream.live`).
    Raises StreamError when something went wrong; what was recorded until then is readable.
    """
    with contextlib.ExitStack() as stack:  # signals are heard until the tables are written
        return _run(graph, folder, seconds, speed, taps, status, metrics, stack)


def _run(
    graph: Graph,
    folder: Path | None,
    seconds: float | None,
    speed: float,
    taps: Mapping[str, Callable[[Block], None]] | None,
    status: bool,
    metrics: str,
    stack: contextlib.ExitStack,
) -> Report:
    graph.check()
    if folder is not None:
        with _written(folder):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text(yaml.safe_dump(graph.to_dict(), sort_keys=False))
            (folder / "versions.json").write_text(json.dumps(versions(), indent=1))
    report = Report(graph)
    line, live = Status(report, status), Live(report, folder)
    failure: Exception | None = None
    try:
        with serving(live, metrics):
            if _is_run_here(graph, taps):
                _run_here(graph, folder, seconds, speed, taps, report, line, live, stack)
            else:
                interrupted = stack.enter_context(_interrupts())
                Children(graph, folder, seconds, speed, report, line, live, interrupted).run()
    except Exception as e:  # noqa: BLE001 the tables are written whatever it was
        failure = e
    finally:
        line.close()
        live.close()
    if folder is not None:
        try:
            with _written(folder):
                report.write(folder)
        except StreamError as e:
            failure = failure or e
    if failure is not None:
        raise failure
    return report


def _is_run_here(graph: Graph, taps: Mapping[str, Callable[[Block], None]] | None) -> bool:
    """Whether no other process is needed: for nodes, or to watch over the only one of them."""
    labels = graph.processes()
    if len(labels) > 1:
        return False
    options = processes(graph.options, labels)[labels[0]]
    watched = bool(options.restart or options.hang)
    if watched and taps:
        log.warning("processes: %s: with taps it runs in this process: restart and hang do nothing", labels[0])
    return not watched or bool(taps)


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
    """Set on Ctrl-C, SIGTERM or SIGHUP; a second Ctrl-C or SIGTERM interrupts at once.

    A terminal that is closed sends SIGHUP more than once, and none that counts under nohup.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    hangup = getattr(signal, "SIGHUP", None)  # not on every system

    def hear(s: int, _: Any) -> None:
        if asked.is_set() and s != hangup:
            raise KeyboardInterrupt
        asked.set()

    heard = [signal.SIGINT, signal.SIGTERM]
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        heard.append(hangup)
    before = {s: signal.signal(s, hear) for s in heard}
    try:
        yield asked
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _run_here(
    graph: Graph,
    folder: Path | None,
    seconds: float | None,
    speed: float,
    taps: Mapping[str, Callable[[Block], None]] | None,
    report: Report,
    line: Status,
    live: Live,
    stack: contextlib.ExitStack,
) -> None:
    [label] = graph.processes()
    options = processes(graph.options, [label])[label]
    engine = Engine(graph, taps=taps, folder=folder, speed=speed, options=options)
    live.look(lambda: {label: Seen(os.getpid(), "starting")})
    try:
        engine.start()  # until it has, nothing can be lost: Ctrl-C interrupts at once
    except BaseException:
        _close(engine)  # what had opened a port or a device gives it back
        raise
    begin = moved = clock.now()
    at: Any = None

    def watch() -> None:
        nonlocal at, moved
        now = clock.now()
        if interrupted.is_set() or (seconds is not None and now - begin >= seconds):
            engine.stop()
            before, at = at, (dict(engine.counts), engine.pulse.where()[:2])
            if at != before:
                moved = now
            elif now - moved > GRACE:
                _close(engine)
                waits = "" if engine.pulse.slots[SINCE] else f"; it waits for {', '.join(engine.sources)}"
                raise StreamError(
                    f"process {label!r} did not stop within {GRACE:g} s{where(engine.pulse, list(graph))}{waits}"
                )
        report.update(label, counted(engine))
        line.show()
        live.look(lambda: {label: Seen(os.getpid(), "running")})

    interrupted = stack.enter_context(_interrupts())
    try:
        drive(engine, watch)
    finally:
        report.update(label, counted(engine), final=True)
        gc.unfreeze()


def _close(engine: Engine) -> None:
    """Close the nodes of an engine that is not well; what hangs in it is waited for no longer than this."""

    def close() -> None:
        with contextlib.suppress(Exception):
            engine.close()

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(GRACE)
