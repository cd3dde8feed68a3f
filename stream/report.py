"""What a run says of itself: the status line while it goes on, the age and loss tables at its end."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import rich.console
import rich.live
import rich.table
import rich.text

from rheobase.stream import clock
from rheobase.stream.graph import Graph
from rheobase.stream.node import Kernel

CARRIED = ("nodes", "late", "missed", "swapped", "health", "histograms", "ages")
"""What a process that is started again counts on from zero."""


class Report:
    """Counts of all processes.

    ages      sink -> n, p50, p99, p99.9, max (s): now - sample time, of the oldest sample of each block
    samples   node -> samples that it gave (a sink: took)
    edges     the edges between processes, for `losses`
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.edges: list[dict[str, Any]] = []
        self.counted: dict[str, dict[str, Any]] = {}
        self.heard: dict[str, float] = {}
        """Process -> when it said so, s of the clock."""
        self.final: set[str] = set()
        self.dead: list[str] = []
        self.before: dict[str, dict[str, Any]] = {}
        """Process -> what those before it had counted."""
        self.oldest: dict[str, float] = {}
        """Sink -> the largest age in processes before, s."""
        self.restarts: list[dict[str, Any]] = []
        self.hung: list[str] = []
        self.stalls: list[dict[str, Any]] = []
        self.began = time.monotonic()
        self.lasted = 0.0

    def begin(self) -> None:
        """The barrier fell."""
        self.began = time.monotonic()

    def update(self, label: str, counted: dict[str, Any], final: bool = False) -> None:
        """What process `label` has counted so far."""
        self.counted[label], self.heard[label] = counted, time.monotonic()
        self.lasted = self.heard[label] - self.began
        if final:
            self.final.add(label)

    def died(self, label: str) -> None:
        """A process ended without its last word."""
        self.dead.append(label)

    def carry(self, label: str) -> None:
        """A process ended, and another will count on from zero."""
        for name, a in self.counted[label].get("ages", {}).items():
            self.oldest[name] = max(a["max"], self.oldest.get(name, a["max"]))
        self.before[label] = {key: self._whole(label, key) for key in CARRIED}
        self.counted[label] = {k: c for k, c in self.counted[label].items() if k not in CARRIED}

    def _whole(self, label: str, key: str) -> dict[str, Any]:
        """What a process and those before it have counted."""
        before, now = self.before.get(label, {}).get(key, {}), self.counted[label].get(key, {})
        if key == "health":  # kernels go on with what their checkpoint says
            before = {k: h for k, h in before.items() if k not in now or not isinstance(self.graph[k], Kernel)}
        return dict(_sum(before, now))

    def _merged(self, key: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for label in self.counted:
            found |= self._whole(label, key)
        return found

    @property
    def ages(self) -> dict[str, dict[str, float]]:
        found, histograms = self._merged("ages"), self._merged("histograms")
        for name in histograms.keys() & self.oldest.keys():
            ages = clock.Ages()
            for i, n in histograms[name].items():
                ages.counts[int(i)] = n
            ages.n, ages.max = int(ages.counts.sum()), max(found[name]["max"], self.oldest[name])
            found[name] = ages.table()
        return found

    @property
    def samples(self) -> dict[str, int]:
        merged = self._merged("nodes")
        return {name: merged.get(name, 0) for name in self.graph}

    @property
    def health(self) -> dict[str, dict[str, Any]]:
        """Node -> what it counts of its own (lost streams, missing bins, ...)."""
        found = {k: dict(h) for k, h in self._merged("health").items()}
        for key, more in self._merged("swapped").items():
            found.setdefault(key, {}).update(more)
        for word in ("late", "missed"):
            for key, n in self._merged(word).items():
                if n:
                    found.setdefault(key, {})[word] = n
        return found

    def losses(self) -> list[dict[str, Any]]:
        """A row for each edge between processes: sent, received, dropped, gaps, lost, and whether it is whole.

        lost: samples that were sent and never taken (None where the sender died before it could say).
        """
        sent, received = self._merged("sent"), self._merged("received")
        rows = []
        for e in self.edges:
            s = sent.get(e["address"]) if e["from"] in self.final or not self.final else None
            r = received.get(e["address"], {"received": 0, "dropped": 0, "gaps": 0})
            # what was missing before the edge was not lost on it
            dropped = max(0, r["dropped"] - (s["missing"] if s else 0))
            lost = None if s is None else max(0, s["sent"] - r["received"] - dropped)
            whole = e["policy"] != "block" or (lost == 0 and dropped == 0)
            rows.append(
                {
                    "edge": f"{e['source']} -> {e['target']}",
                    "policy": e["policy"],
                    "sent": None if s is None else s["sent"],
                    "received": r["received"],
                    "dropped": dropped,
                    "gaps": r["gaps"],
                    "lost": lost,
                    "waits": None if s is None else s["waits"],
                    "whole": whole,
                }
            )
        return rows

    @property
    def states(self) -> dict[str, str]:
        """Source -> how its stream is, where it says so."""
        return self._merged("states")

    @property
    def notes(self) -> dict[str, str]:
        """Node -> what is odd with what it gets, where it says so."""
        return self._merged("notes")

    @property
    def ok(self) -> bool:
        """Whether nothing was lost on an edge that may lose nothing."""
        return not self.dead and all(row["whole"] for row in self.losses())

    def to_dict(self) -> dict[str, Any]:
        return {
            "graph": self.graph.name,
            "seconds": round(self.lasted, 3),
            "samples": self.samples,
            "ages_s": self.ages,
            "losses": self.losses(),
            "health": self.health,
            "states": self.states,
            "notes": self.notes,
            "restarts": self.restarts,
            "hangs": self.hung,
            "stalls": self.all_stalls,
            "ok": self.ok,
        }

    @property
    def all_stalls(self) -> list[dict[str, Any]]:
        """Times when a process as a whole stood still, and why, where that can be known."""
        own = [{"process": k, **s} for k, c in self.counted.items() for s in c.get("stalls", ())]
        return [*self.stalls, *own]

    def write(self, folder: Path) -> None:
        """tables.json, and tables.txt for people."""
        (folder / "tables.json").write_text(json.dumps(self.to_dict(), indent=1))
        with open(folder / "tables.txt", "w") as file:
            self.show(rich.console.Console(file=file, width=110))

    def show(self, console: rich.console.Console) -> None:
        """Print the tables."""
        if self.ages:
            ages = rich.table.Table("sink", "blocks", "p50", "p99", "p99.9", "max", title="age at the sink, ms")
            for name, a in self.ages.items():
                ages.add_row(name, str(a["n"]), *(f"{a[k] * 1e3:.2f}" for k in ("p50", "p99", "p99.9", "max")))
            console.print(ages)
        rows = self.losses()
        if rows:
            columns = ("edge", "policy", "sent", "received", "dropped", "gaps", "lost")
            losses = rich.table.Table(*columns, title="edges between processes, samples")
            for row in rows:
                cells = ["?" if row[c] is None else str(row[c]) for c in columns]
                losses.add_row(*cells, style="" if row["whole"] else "red")
            console.print(losses)
        for name, said in self.health.items():
            told = ", ".join(f"{k} {v}" for k, v in said.items() if v)
            if told:
                console.print(f"{name}: {told}", highlight=False)
        for name, note in self.notes.items():
            console.print(f"{name}: {note}", highlight=False, soft_wrap=True)
        for r in self.restarts:
            console.print(f"started again: {r['why']}", highlight=False, soft_wrap=True)
        for text in self.hung:
            console.print(text, highlight=False, soft_wrap=True)
        for stall in self.all_stalls:
            text = f"process {stall['process']!r} stood still for {stall['seconds']} s: {stall['cause']}"
            console.print(text, highlight=False, soft_wrap=True)


def _sum(a: Any, b: Any) -> Any:
    """What one and the next have counted: whole numbers add up, of all else the next says how it is."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {k: _sum(a[k], b[k]) if k in a and k in b else (a | b)[k] for k in a | b}
    return a + b if type(a) is type(b) is int else b


class Status:
    """One line while a graph runs: time, rates, age, drops. A terminal sees it change, a file every 10 s."""

    def __init__(self, report: Report, shown: bool) -> None:
        self.report, self.shown = report, shown
        self.console = rich.console.Console(stderr=True)
        self.every = 0.5 if self.console.is_terminal else 10.0
        self.last = time.monotonic()
        self.before: tuple[float, dict[str, int]] | None = None
        self.live: rich.live.Live | None = None

    def show(self) -> None:
        now = time.monotonic()
        if not self.shown or now - self.last < self.every or not self.report.counted:
            return
        self.last = now
        text = rich.text.Text(self.text(now), no_wrap=True, overflow="ellipsis")
        try:
            if not self.console.is_terminal:
                self.console.print(text, soft_wrap=True)
                return
            if self.live is None:
                self.live = rich.live.Live(console=self.console, auto_refresh=False, transient=True)
                self.live.start()
            self.live.update(text, refresh=True)
        except (OSError, SystemExit):  # rich exits where nobody reads: the run must go on
            self.shown = False

    def text(self, now: float) -> str:
        """The line."""
        report = self.report
        samples = {k: n for k, n in report.samples.items() if n}
        since, old = self.before or (report.began, {})
        rates = [f"{k} {(n - old.get(k, 0)) / max(now - since, 1e-9):.0f}/s" for k, n in samples.items()]
        self.before = now, samples
        ages = report.ages
        parts = [f"{report.lasted:6.1f} s", "  ".join(rates) or "no sample yet"]
        if ages:
            p50, p99 = (max(a[k] for a in ages.values()) * 1e3 for k in ("p50", "p99"))
            parts.append(f"age p50 {p50:.1f} p99 {p99:.1f} ms")
        rows = report.losses()
        if rows:
            parts.append(f"dropped {sum(r['dropped'] for r in rows)}")
        return " | ".join(parts)

    def close(self) -> None:
        if self.live is not None:
            with contextlib.suppress(OSError, SystemExit):  # the terminal is gone
                self.live.stop()
