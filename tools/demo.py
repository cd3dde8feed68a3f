"""`make demo`: a cursor moved by thought, from nothing to a replay, without hardware, download or screen.

1. A simulated person watches a cursor move by itself for 24 s; a discriminative Kalman filter is fitted to that.
2. They move it by that filter for 36 s, with help, while it is refitted and swapped between two samples (`rheo
   calibrate` does both).
3. They move it for a minute: neurons -> LSL -> decoder -> cursor -> LSL -> eye -> neurons.
4. The run is replayed, and every decoded sample compared with the live one, byte for byte.

A window shows it where there is a screen; a picture of it is written in any case.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import rich.console
import rich.table

from rheobase.devices.replay import Replay
from rheobase.stream.block import StreamError
from rheobase.stream.cli import LOST, find_graph
from rheobase.stream.clock import now
from rheobase.stream.graph import Graph
from rheobase.stream.run import new_folder, run
from rheobase.tools.calibrate import calibrate
from rheobase.tools.page import closed_loop_page
from rheobase.tools.replay import replay_run
from rheobase.tools.trials import recorded, summary, table

HELP = 0.5
"""Share of the velocity across the way to the target that is taken away while there is help."""
INTERRUPTED = 130
"""Exit code after Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="demo", description="A cursor moved by thought, and its replay.")
    parser.add_argument("--watch", type=float, default=24.0, metavar="S", help="watching, s (24)")
    parser.add_argument("--assist", type=float, default=36.0, metavar="S", help="driving with help, s (36)")
    parser.add_argument("--for", dest="seconds", type=float, default=60.0, metavar="S", help="closed loop, s (60)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where it all goes (default: runs/demo-DATE)")
    given = parser.parse_args(argv)
    try:
        folder, out = given.folder or new_folder("demo"), rich.console.Console()
        return demo(folder, given.watch, given.assist, given.seconds, out)
    except StreamError as e:
        print(f"demo: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def demo(folder: Path, watch: float, assist: float, seconds: float, out: rich.console.Console) -> int:
    """All of it, into `folder`. Returns the exit code: 0 where nothing was lost and the replay is the same."""
    folder.mkdir(parents=True, exist_ok=True)
    keep_lsl_private(folder)

    model = folder / "models" / "cursor.npz"
    calibrated = calibrate(_cursor(model, seed=1), folder / "calibration", out, watch=watch, assist=((assist, HELP),))
    if calibrated == INTERRUPTED:
        return INTERRUPTED

    out.rule(f"5  control: {seconds:g} s of closed loop", align="left")
    live = folder / "cursor"
    graph = _cursor(model, seed=2)
    begin = now()
    report = run(graph, live, seconds, status=True)
    report.show(out)
    out.print(score(live, begin))
    if report.lasted < seconds - 1:
        return INTERRUPTED

    out.rule("6  replay", align="left")
    same = replay_run(live, 0.0, out)
    out.print(f"window: {live / 'window.png'}\npage: {closed_loop_page(live)}", highlight=False, soft_wrap=True)
    return same or calibrated or (0 if report.ok else LOST)


def keep_lsl_private(folder: Path) -> None:
    """Settings of LSL for this process and its children, unless the user has set some.

    Discovery stays on this machine, and a session and ports of its own keep the demo from other streams of the
    same names.
    """
    if "LSLAPICFG" in os.environ:
        return
    local = importlib.resources.files("rheobase.configs").joinpath("lsl_local.cfg").read_text()
    port = 17000 + 40 * (os.getpid() % 300)
    settings = folder.resolve() / "lsl.cfg"
    settings.write_text(
        f"{local}\n[lab]\nSessionID = demo{os.getpid()}\n\n"
        f"[ports]\nMulticastPort = {port}\nBasePort = {port + 1}\nPortRange = 32\n"
    )
    os.environ["LSLAPICFG"] = str(settings)


def score(live: Path, begin: float) -> rich.table.Table:
    """How the person did, how old what they saw was, and how soon the first decoded sample came after `begin` s."""
    trials, task = recorded(live)
    decoded = Replay(file=str(live / "recording.xdf"), stream="cursor", salvage=True)
    decoded.start()
    first = float(next(iter(decoded.blocks())).times[0])
    user = json.loads((live / "user.json").read_text())
    age = user["seen_age_s"]
    found = table(summary(trials, task), heads=[f"{task} [95 % interval]"])
    found.add_row("age of the cursor when the person sees it", f"p50 {_ms(age['p50'])}, p99 {_ms(age['p99'])}")
    found.add_row("first decoded sample after the start", f"{first - begin:.1f} s")
    if user["late_steps"]:
        late = f"{user['late_steps']}, the worst {_ms(user['worst_lateness_s'])}"
        found.add_row("steps the simulated person began late", late)
    return found


def _cursor(model: Path, seed: int) -> Graph:
    """The graph of the loop, the same person with other spikes for each seed."""
    graph = find_graph("cursor")
    graph.set(f"cursor.model={json.dumps(str(model))}")
    graph.set(f"user.seed={seed}")
    return graph


def _ms(s: float | None) -> str:
    return "–" if s is None else f"{1e3 * s:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
