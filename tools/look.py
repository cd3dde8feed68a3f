"""`rheo view`: a window on what is there already, a graph that runs or a recording, without a graph of one's own.

A running graph is looked at through the streams that it sends out (`lsl_out`), as those of anybody else's program are.
Nothing in it knows of the window: any number may look, come and go, and what a window is too slow for is its own loss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console

from rheobase.devices._recording import Recording
from rheobase.devices.replay import Replay, streams
from rheobase.devices.view import ASK, View, application, visible
from rheobase.stream.block import StreamError
from rheobase.stream.clock import now
from rheobase.stream.engine import Engine
from rheobase.stream.graph import Graph
from rheobase.stream.node import nearest
from rheobase.tools.run_page import of_run

ANSWER = 3.0
"""s that a run has to open a window."""
FIND = 5.0
"""s to look for a stream that is named."""
WAIT = 1.0
"""s to look around for streams, where none is named."""


def look(
    names: Sequence[str],
    console: rich.console.Console,
    panels: Mapping[str, Any] | None = None,
    picture: str = "",
    at: float | None = None,
    size: tuple[int, int] | None = None,
    how: Mapping[str, Any] | None = None,
    **more: Any,
) -> int:
    """A window on a run, a recording (then some of its streams), or LSL streams by name. A run that goes on opens one
    more of its own.

    panels   as in a config: input -> kind
    picture  PNG to write instead of opening a window: of a recording at once, of live streams after 5 s
    at       s from the beginning of a recording to begin at (default: its first 10 s; with a picture its end)
    size     of the window, pixels (width, height)
    how      `rate`, `times`: of a file that does not say, as for the node `replay`
    more     other parameters of the view

    Raises StreamError where there is no such stream.
    """
    first = Path(names[0]) if names else Path()
    if first.is_dir() and not names[1:] and not picture and reopened(first):
        console.print(f"{first} runs: one more window is open")
        return 0
    if names and (first.suffix or first.exists() or "/" in names[0]):
        view = recorded(first, names[1:], panels or {}, at, bool(picture), how, **more)
        return show(view, picture, size)
    return live(names, console, panels or {}, picture, size, **more)


def reopened(folder: Path) -> bool:
    """Ask a run that goes on for one more window; False: it has ended, or has nobody to open one."""
    if (folder / "tables.json").exists() or not (folder / "config.yaml").exists():
        return False
    wish = folder / ASK
    wish.touch()
    until = now() + ANSWER
    while wish.exists() and now() < until:
        time.sleep(0.05)
    done = not wish.exists()
    wish.unlink(missing_ok=True)
    return done


def recorded(
    path: Path,
    chosen: Sequence[str],
    panels: Mapping[str, Any],
    at: float | None,
    last: bool,
    how: Mapping[str, Any] | None = None,
    **more: Any,
) -> View:
    """A view of a recording: a run is shown as its own graph says."""
    given: dict[str, Any] = {}
    file = path
    if path.is_dir():
        file, given = of_run(path)
    there = streams(str(file), salvage=True)
    seen = given.pop("of", [*there])
    names = list(chosen) or [n for n in seen if n in there] or list(there)
    for name in names:
        if name not in there:
            raise StreamError(f"{file}: no stream {name!r}{nearest(name, there)}")
    given = fitting(given, names)
    given["panels"] = given.get("panels", {}) | dict(panels)
    view = View.make(**(given | {k: v for k, v in more.items() if v is not None}))
    view.name, view.config = "view", {"name": f"recording-{path.stem}"}
    view.inputs = tuple(n or file.name.partition(".")[0] for n in names)  # of a table: no name
    sources = [Replay(file=str(file), stream=name, salvage=True, **(how or {})) for name in names]
    view.check()
    view.start(*(r.start() for r in sources))
    view.recording = Recording(sources, view.feeds, view.span)
    r = view.recording
    r.seek(r.end if at is None and last else r.begin + (view.span if at is None else at))
    return view


def fitting(given: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """What of a view's parameters makes sense with only these inputs: others may not have been recorded."""
    panels = {}
    for key, entry in dict(given.get("panels", {})).items():
        of: Any = entry.get("of", key) if isinstance(entry, dict) else key
        if set([of] if isinstance(of, str) else of) <= set(names) or entry == "health":
            panels[key] = entry
    known = {*panels, *names}
    layout = [[n for n in ([c] if isinstance(c, str) else c) if n in known] for c in given.get("layout", [])]
    return given | {"panels": panels, "layout": [c for c in layout if c]}


def live(
    names: Sequence[str],
    console: rich.console.Console,
    panels: Mapping[str, Any],
    picture: str,
    size: tuple[int, int] | None = None,
    **more: Any,
) -> int:
    """A window on LSL streams, which ends when it is closed."""
    from rheobase.devices.lsl import Lsl

    if not names:
        found = around()
        console.print("streams: " + (", ".join(found) or "none"), highlight=False)
        console.print("rheo view STREAM ... looks at some of them; rheo view RUN|FILE at a recording")
        return 0
    graph = Graph("view-" + "-".join(names)[:40])
    for name in names:
        graph.add(name, Lsl(stream={"name": name}, wait=FIND))
    view = View.make(panels=dict(panels), **{k: v for k, v in more.items() if v is not None})
    graph.add("view", view, names)
    graph.check()
    engine = Engine(graph)
    engine.start()
    fault: list[BaseException] = []

    def work() -> None:
        try:
            engine.run()
        except BaseException as e:  # noqa: BLE001 it is raised below
            fault.append(e)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        show(view, picture, size, 5.0, lambda: not thread.is_alive())
    finally:
        engine.stop()
        thread.join(5.0)
    if fault:
        raise fault[0]
    return 0


def show(
    view: View,
    picture: str,
    size: tuple[int, int] | None = None,
    seconds: float = 0.0,
    ended: Callable[[], bool] = lambda: False,
) -> int:
    """The window until it is closed, or its picture after so many seconds. Raises StreamError."""
    begin, opened = now(), False
    view.picture = picture

    def stopped() -> bool:
        nonlocal opened, size
        if size and view.windows:
            view.windows[0].resize(*size)
            size = None
        if picture:
            return ended() or now() - begin > seconds
        opened = opened or any(w.isVisible() for w in view.windows)
        return ended() or (opened and not any(w.isVisible() for w in view.windows))

    if not picture and not visible(application()):
        raise StreamError("no screen to open a window on: --picture FILE writes what it would show")
    view.loop(stopped)
    return 0


def around() -> list[str]:
    """The LSL streams that are there, with their types."""
    import pylsl

    return sorted({f"{s.name()} ({s.type()}, {s.channel_count()} channels)" for s in pylsl.resolve_streams(WAIT)})


def picture_of(folder: Path, path: Path) -> Path:
    """The window of a run at its end, as a PNG of 1280 x 720. Raises StreamError."""
    view = recorded(folder, (), {}, None, True, theme="light")
    view.picture = str(path.resolve())
    w = view.window()
    view.save(w)
    w.close()
    return path
