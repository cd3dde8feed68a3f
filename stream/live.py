"""What a run is at just now: RUN/live.json, once a second, for `rheo top`, `rheo graph --live` and `--metrics`.

Made beside the data path, out of what the run counts anyway: what processes say twice a second (`report`), and the
pages where each writes what it is at (`pulse`). Nothing in a loop knows of it. The file is replaced as a whole, and is
gone when the run is; one that a killed run left behind is told by the process that it names.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rheobase.stream.block import StreamError
from rheobase.stream.link import DROPPED, LOST, MISSING, RECEIVED, SENT
from rheobase.stream.node import Kernel, Source, type_name
from rheobase.stream.pulse import NODE, SINCE, Pulse
from rheobase.stream.report import Report

log = logging.getLogger("rheobase")

FILE = "live.json"
EVERY = 1.0
"""s between two of them."""
STALE = 5.0
"""s after which one is old."""
LOOKS = 10
"""Seconds over which it is counted which node has the block."""
LARGEST = 1 << 24
"""Bytes: a longer file is none of ours."""


class Seen(NamedTuple):
    """A process, as the one that started it sees it."""

    pid: int
    state: str
    """starting, running, hangs, waits to start again, ended."""
    pulse: Pulse | None = None
    """None: it is this process."""


class Live:
    """The dictionary of a run, made anew once a second.

    graph, pid, began (of the runner, as `_began` tells it), time (s since 1970), clock (s of the LSL clock), seconds
    nodes      name -> type, process, samples, rate (Hz); busy, the share of the time at which it, or for a compiled
               loop its first node, had a block (of the last 10 s, by looks at random times), and step, the s for each
               of its samples that this comes to
    edges      from, to, policy, samples, rate, age (p50, p99 since the start; where it ends in a sink); and between
               processes: lost, dropped, depth (samples on their way)
    processes  label -> pid, state, cpu (1: one core), rss (bytes)
    devices    source -> state, note
    health     node -> what it counts of its own

    What is not known is null.
    """

    def __init__(self, report: Report, folder: Path | None) -> None:
        self.report, self.path = report, folder / FILE if folder else None
        self.said: dict[str, Any] = {}
        self._due = self._look = 0.0
        self._hits: deque[Counter[str]] = deque([Counter()], maxlen=LOOKS)
        self._before: dict[Any, tuple[float, float, float | None]] = {}
        self._fresh, self._ended = threading.Event(), threading.Event()
        self._writer = threading.Thread(target=self._write, name="live", daemon=True)
        if self.path:
            self._writer.start()

    def look(self, seen: Callable[[], Mapping[str, Seen]]) -> None:
        """Called again and again by the loop that watches the run. A disk that is slow does not hold it up."""
        now = time.monotonic()
        if now >= self._look:
            self._look = now + random.uniform(0.01, 0.06)  # at a fixed pace it would meet a steady stream in step
            hits, names = self._hits[-1], list(self.report.graph)
            for label, process in seen().items():
                if process.pulse is not None:
                    hits[label] += 1
                    if process.pulse.slots[SINCE]:
                        hits[f"{label}/{names[process.pulse.slots[NODE]]}"] += 1
        if now >= self._due:
            self._due = now + EVERY
            try:
                self.said = self.state(seen(), now)
            except Exception as e:  # noqa: BLE001 a run does not end because of who looks at it
                log.warning("live: %s: %s", type(e).__name__, e)
                self._due = math.inf
            self._hits.append(Counter())
            self._fresh.set()

    def close(self) -> None:
        """The run has ended: nothing of it is live."""
        self._ended.set()
        self._fresh.set()
        if self.path:
            self._writer.join()
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)

    def state(self, seen: Mapping[str, Seen], now: float) -> dict[str, Any]:
        """The dictionary."""
        report, graph = self.report, self.report.graph
        hits = sum(self._hits, Counter())
        nodes: dict[str, dict[str, Any]] = {}
        for name, count in report.samples.items():
            place = graph.places[name]
            n = count if count or not self._within(name) else None
            rate = None if n is None else self._rate(name, report.heard.get(place.process, now), n)
            looks = hits[place.process]
            busy = hits[f"{place.process}/{name}"] / looks if looks and not isinstance(place.node, Source) else None
            nodes[name] = {
                "type": type_name(type(place.node)),
                "process": place.process,
                "samples": n,
                "rate": rate,
                "busy": busy,
                "step": busy / rate if busy and rate else None,
            }
        return {
            "graph": graph.name,
            "pid": os.getpid(),
            "began": _began(os.getpid()),
            "time": time.time(),
            "clock": now,
            "seconds": report.lasted,
            "nodes": nodes,
            "edges": self._edges(seen, nodes, now),
            "processes": {k: {"pid": s.pid, "state": s.state} | self._use(s.pid, now) for k, s in seen.items()},
            "devices": {k: {"state": s, "note": report.notes.get(k, "")} for k, s in report.states.items()},
            "health": {k: {w: n for w, n in h.items() if n} for k, h in report.health.items()},
            "restarts": len(report.restarts),
            "stalls": len(report.all_stalls),
        }

    def _within(self, name: str) -> bool:
        """Whether what a node gives never leaves its compiled loop, so that nobody counts it."""
        places = self.report.graph.places
        below = [p for p in places.values() if any(e.source == name for e in p.edges)]
        kernels = [isinstance(p.node, Kernel) and p.process == places[name].process for p in below]
        return isinstance(places[name].node, Kernel) and all(kernels)

    def _edges(self, seen: Mapping[str, Seen], nodes: dict[str, dict[str, Any]], now: float) -> list[dict[str, Any]]:
        far = {(e["source"], e["target"], e["input"]): (k, e) for k, e in enumerate(self.report.edges)}
        ages, found = self.report.ages, []
        for target, place in self.report.graph.places.items():
            age = {k: ages[target][k] for k in ("p50", "p99")} if target in ages else None
            for i, edge in enumerate(place.edges):
                row: dict[str, Any] = {"from": edge.source, "to": target, "policy": "", "age": age}
                if (there := far.get((edge.source, target, i))) is None:
                    row |= {k: nodes[edge.source][k] for k in ("samples", "rate")}
                    found.append(row | {"lost": None, "dropped": None, "depth": None})
                    continue
                k, e = there
                taken, given = (seen[e[w]].pulse for w in ("to", "from"))
                assert taken and given
                # who takes first: what is sent meanwhile is on its way, and not less than nothing
                r, s = list(taken.edge(k)), list(given.edge(k))
                dropped = max(0, r[DROPPED] - s[MISSING])
                row |= {"policy": e["policy"], "samples": r[RECEIVED], "lost": s[LOST], "dropped": dropped}
                row["rate"] = self._rate(k, now, r[RECEIVED])
                row["depth"] = max(0, s[SENT] - s[LOST] - r[RECEIVED] - dropped)
                found.append(row)
        return found

    def _rate(self, key: Any, now: float, n: float) -> float | None:
        """Of a count that stood at n at that time: how fast it grows, 1/s."""
        then, before, rate = self._before.get(key, (0.0, 0.0, None))
        if then and now > then:
            rate = (n - before) / (now - then)
        elif then:  # nothing new was said
            return rate
        self._before[key] = now, n, rate
        return rate

    def _use(self, pid: int, now: float) -> dict[str, float | None]:
        if not (fields := _stat(pid)):
            return {"cpu": None, "rss": None}
        cpu = self._rate(("cpu", pid), now, (int(fields[11]) + int(fields[12])) / _TICKS)
        return {"cpu": cpu, "rss": int(fields[21]) * os.sysconf("SC_PAGE_SIZE")}

    def _write(self) -> None:
        assert self.path
        fresh, told = self.path.with_suffix(".new"), False
        while True:
            self._fresh.wait()
            self._fresh.clear()
            if self._ended.is_set():  # looked at behind `clear`, or the word of the end could be what was cleared
                break
            try:
                fresh.write_text(json.dumps(self.said))
                os.replace(fresh, self.path)
            except OSError as e:
                if not told:
                    log.warning("%s: %s", self.path, e.strerror)
                told = True
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any]:
    """What the run in this folder is at.

    Raises StreamError where it runs no more, or was killed, or the file is none of ours.
    """
    path = folder / FILE
    try:
        if path.stat().st_size > LARGEST:
            raise StreamError(f"{path}: {path.stat().st_size} bytes: not written by a run")
        said = json.loads(path.read_bytes())
        pid, began, then = int(said["pid"]), said["began"], float(said["time"])
        if not {"graph", "clock", "seconds", "nodes", "edges", "processes", "devices", "health"} <= said.keys():
            raise KeyError
    except FileNotFoundError:
        if not (folder / "config.yaml").exists():
            raise StreamError(f"{folder}: not a run directory: it has no config.yaml") from None
        raise StreamError(f"{folder}: runs no more; `rheo report` says how it was") from None
    except OSError as e:
        raise StreamError(f"{path}: {e.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise StreamError(f"{path}: not written by a run") from None
    if _began(pid) != began:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then))
        raise StreamError(f"{folder}: was killed: its process {pid} is gone, its last word is of {when}")
    return dict(said)


def newest(under: Path = Path("runs"), graph: str = "") -> tuple[Path, dict[str, Any]]:
    """The run that was started last of those that run, of that graph if one is named. Raises StreamError."""
    why: list[str] = []
    found = []
    for path in sorted([*under.glob(f"*/{FILE}"), *under.glob(f"*/*/{FILE}")]):  # a calibration holds several runs
        try:
            said = read(path.parent)
        except StreamError as e:
            why.append(str(e))
            continue
        if graph in ("", said["graph"]):
            found.append((said["clock"] - said["seconds"], path.parent, said))
    if not found:
        what = f"no run of {graph!r} is running" if graph else "no run is running"
        more = f" ({why[-1]})" if why else ""
        raise StreamError(f"{what} in {under}{more}: start one with `rheo run`, or name its directory")
    return max(found, key=lambda f: f[0])[1:]


def old(said: dict[str, Any]) -> float:
    """s since the run said so, where that is longer than it should be; else 0."""
    age = time.monotonic() - float(said["clock"])
    return age if age > STALE else 0.0


_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, as `man proc_pid_stat` lists them from (3) on; else none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _began(pid: int) -> int | None:
    """When a process was started, in ticks since the machine was; it and its pid name it for good.

    None: there is no such process. 0: it is there, on a system that does not say.
    """
    if fields := _stat(pid):
        return int(fields[19]) if fields[0] != "Z" else None
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return 0
