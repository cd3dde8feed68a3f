"""`rheo top`: what a run is at, as tables; and the same on the edges of its graph (`rheo graph --live`)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import rich.console
import rich.live
import rich.markup
import rich.table

from rheobase.stream import live
from rheobase.stream.block import StreamError
from rheobase.stream.graph import read

WIDE = 120
"""Characters that a table may take where no terminal says how many there are."""


def top(folder: Path | None, once: bool, console: rich.console.Console) -> int:
    """Show the run in `folder`, else the newest that runs, until it ends or Ctrl-C; once, where nobody sees it change.

    Raises StreamError where no such run is running.
    """
    folder, said = (folder, live.read(folder)) if folder else live.newest()
    if once or not console.is_terminal:
        if not console.is_terminal:
            console.width = max(console.width, WIDE)
        console.print(tables(folder, said))
        return 0
    with rich.live.Live(tables(folder, said), console=console, auto_refresh=False) as screen:
        while True:
            try:
                time.sleep(live.EVERY)
                said = live.read(folder)
            except KeyboardInterrupt:
                return 0
            except StreamError as e:
                screen.stop()
                console.print(rich.markup.escape(str(e)), highlight=False, soft_wrap=True)
                return 0
            screen.update(tables(folder, said), refresh=True)


def tables(folder: Path, said: dict[str, Any]) -> rich.console.Group:
    """Nodes, edges, processes, streams."""
    head = f"{said['graph']}: {said['seconds']:.0f} s in {folder}"
    head += f", {said['restarts']} restarts" if said["restarts"] else ""
    head += f", stood still {said['stalls']} times" if said["stalls"] else ""
    if silent := live.old(said):
        head += f" [bold red](old: the run has said nothing for {silent:.0f} s)[/]"
    parts: list[Any] = [head]
    nodes = _table("node", "type", "process", "samples", "a second", "busy %", "us a sample", "counts")
    for name, n in said["nodes"].items():
        own = ", ".join(f"{k} {v}" for k, v in said["health"].get(name, {}).items())
        figures = _whole(n["samples"]), _number(n["rate"]), _number(n["busy"], 100), _number(n["step"], 1e6)
        nodes.add_row(name, n["type"], n["process"], *figures, rich.markup.escape(own))
    parts.append(nodes)
    edges = _table("edge", "policy", "samples", "a second", "age p50, ms", "p99", "lost", "dropped", "on the way")
    for e in said["edges"]:
        age = e["age"] or {}
        edges.add_row(
            f"{e['from']} -> {e['to']}", e["policy"] or "a call", _whole(e["samples"]), _number(e["rate"]),
            *(_number(age.get(k), 1e3) for k in ("p50", "p99")), *(_whole(e[k]) for k in ("lost", "dropped", "depth")),
            style="red" if e["lost"] or (e["dropped"] and e["policy"] == "block") else "",
        )  # fmt: skip
    parts.append(edges)
    processes = _table("process", "pid", "state", "cpu %", "MB")
    for label, p in said["processes"].items():
        style = "" if p["state"] in ("running", "ended") else "yellow" if p["state"] == "starting" else "red"
        cells = str(p["pid"]), p["state"], _number(p["cpu"], 100), _number(p["rss"], 1e-6)
        processes.add_row(label, *cells, style=style)
    parts.append(processes)
    if said["devices"]:
        devices = _table("stream", "state", "note")
        for name, d in said["devices"].items():
            devices.add_row(
                name, d["state"], rich.markup.escape(d["note"]), style="" if d["state"] == "live" else "red"
            )
        parts.append(devices)
    return rich.console.Group(*parts)


def drawn(name: str) -> str:
    """The graph of a run as a mermaid flowchart, what it is at on its edges; name: a run, or a graph that runs.

    Raises StreamError.
    """
    from rheobase.stream.cli import find_graph

    folder = Path(name)
    folder, said = (folder, live.read(folder)) if folder.is_dir() else live.newest(graph=find_graph(name).name)
    words = {}
    for e in said["edges"]:
        told = [f"{_number(e['rate'])}/s"] if e["rate"] is not None else []
        told += [f"age {_number(e['age']['p50'], 1e3)}, p99 {_number(e['age']['p99'], 1e3)} ms"] if e["age"] else []
        told += [f"{k} {e[k]}" for k in ("lost", "dropped") if e[k] or (k == "lost" and e[k] is not None)]
        words[e["from"], e["to"]] = ", ".join(told)
    return read(folder / "config.yaml").mermaid(words)


def _table(*columns: str) -> rich.table.Table:
    table = rich.table.Table(box=None, pad_edge=False, header_style="bold")
    for word in columns:
        text = word in ("node", "type", "process", "counts", "edge", "policy", "state", "stream", "note")
        table.add_column(word, justify="left" if text else "right", no_wrap=True)
    return table


def _whole(n: int | None) -> str:
    return "" if n is None else str(n)


def _number(x: float | None, scale: float = 1.0) -> str:
    """Three figures and no more."""
    if x is None:
        return ""
    x *= scale
    return f"{x:.0f}" if abs(x) >= 100 else f"{x:.3g}"
