"""The command `rheo`."""

from __future__ import annotations

import argparse
import importlib.resources
import math
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import rich.console
import rich.table

from rheobase.stream.block import Interrupted, StreamError
from rheobase.stream.graph import Graph, read
from rheobase.stream.node import Sink, Source, nearest, type_name

OUT = rich.console.Console()

LOST = 3
"""Exit code of a run that lost samples on an edge that may lose none."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, where it left something undone."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = _parser()
    given = parser.parse_args(argv)
    if not hasattr(given, "do"):
        parser.print_help()
        return 2
    try:
        return int(given.do(given) or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:  # noqa: BLE001 whatever it is, the user gets one line
        if given.debug:
            traceback.print_exc()
        where = f"{given.origin}: " if str(e).startswith("node ") and hasattr(given, "origin") else ""
        print(f"rheo: {where}{_said(e)}", file=sys.stderr)
        return INTERRUPTED if isinstance(e, Interrupted) else 1


def _said(e: Exception) -> str:
    """What went wrong, in one line."""
    if isinstance(e, StreamError):
        text = str(e)
    elif isinstance(e, OSError) and e.strerror:
        text = f"{e.filename}: {e.strerror}" if e.filename else e.strerror
    else:
        text = f"{type(e).__name__}: {e} (`rheo --debug` shows where)"
    return " ".join(text.split())


def find_graph(name: str) -> Graph:
    """A graph from a file, or one of those that come with rheobase by its bare name.

    Raises StreamError.
    """
    path = Path(name)
    if path.suffix or path.exists() or "/" in name:
        return read(path)
    home = importlib.resources.files("rheobase.configs")
    known = sorted(f.name[:-5] for f in home.iterdir() if f.name.endswith(".yaml"))
    if name not in known:
        raise StreamError(f"{name}: no such file, and no such embedded graph{nearest(name, known)}")
    with importlib.resources.as_file(home / f"{name}.yaml") as file:
        return read(file)


def _graph(given: argparse.Namespace) -> Graph:
    graph = find_graph(given.graph)
    given.origin = graph.origin
    for change in given.set or ():
        graph.set(change)
    return graph


def _run(given: argparse.Namespace) -> int:
    from rheobase.stream.run import new_folder, run

    if given.seconds is not None and not given.seconds > 0:
        raise StreamError(f"--for {given.seconds:g}: write a number of seconds above 0")
    speed = _speed(given.speed)
    graph = _graph(given)
    graph.check()
    folder = Path(given.folder) if given.folder else new_folder(graph.name)
    if given.folder and (folder / "config.yaml").exists():
        raise StreamError(f"{folder}: holds a run already")
    report = run(graph, folder, given.seconds, speed, status=True, metrics=given.metrics or "")
    report.show(OUT)
    OUT.print(f"{report.lasted:.1f} s in {folder}", highlight=False, soft_wrap=True)
    if any(type_name(type(p.node)) == "task" for p in graph.places.values()):
        from rheobase.tools.page import closed_loop_page

        OUT.print(f"page: {closed_loop_page(folder)}", highlight=False, soft_wrap=True)
    if not report.ok:
        print("rheo: samples were lost on a block edge: see the table", file=sys.stderr)
        return LOST
    return 0


def _replay(given: argparse.Namespace) -> int:
    from rheobase.tools.replay import replay_file, replay_run

    speed = _speed(given.speed)
    path = Path(given.run)
    if path.is_dir():
        if given.graph:
            raise StreamError(f"{path}: a run is replayed through its own graph: give its recording to use another")
        return replay_run(path, speed, OUT)
    return replay_file(given.run, find_graph(given.graph) if given.graph else None, given.set or (), speed, OUT)


def _fit(given: argparse.Namespace) -> int:
    from rheobase.tools.fit import fit

    report = fit(_graph(given), given.node, given.on)
    report.show(OUT)
    return 0


def _calibrate(given: argparse.Namespace) -> int:
    from rheobase.stream.run import new_folder
    from rheobase.tools.calibrate import ASSIST, OPEN, calibrate, schedule

    for word, s in (("--open", given.open), ("--every", given.every)):
        if s is not None and not (math.isfinite(s) and s > 0):
            raise StreamError(f"{word} {s:g}: write a number of seconds above 0")
    assist = schedule(given.assist) if given.assist else ASSIST
    graph = _graph(given)
    folder = Path(given.folder) if given.folder else new_folder(f"{graph.name}-calibration")
    try:
        return calibrate(graph, folder, OUT, given.node, given.open or OPEN, assist, given.every)
    except (KeyboardInterrupt, Interrupted):  # between the runs, which end in good order by themselves
        OUT.print(f"interrupted: what was recorded is in {folder}", highlight=False, soft_wrap=True)
        return INTERRUPTED


def _eval(given: argparse.Namespace) -> int:
    from rheobase.tools.fit import evaluate

    evaluate(_graph(given), Path(given.folder) if given.folder else None).show(OUT)
    return 0


def _stress(given: argparse.Namespace) -> int:
    from rheobase.tools.stress import stress

    try:
        seeds = [int(word) for word in given.seeds.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise StreamError(f"--seeds {given.seeds!r}: write whole numbers, with commas between them")
    table = stress(_graph(given), given.node or (), given.only or (), seeds)
    table.show(OUT)
    if given.json:
        table.write(Path(given.json))
    return 0


def _check(given: argparse.Namespace) -> int:
    from rheobase.stream.engine import Engine

    graph = _graph(given)
    graph.check()
    unknown: set[str] = set()
    for name, place in graph.places.items():
        live = isinstance(place.node, Source) and place.node.live
        unfitted = hasattr(place.node, "fit") and not getattr(place.node, "model", "")
        if live or unfitted or isinstance(place.node, Sink) or any(e.source in unknown for e in place.edges):
            unknown.add(name)
    part = graph.above(*(n for n in graph if n not in unknown))
    engine = Engine(part)
    if part.places:
        engine.start()
    table = rich.table.Table("node", "type", "process", "rate, Hz", "channels", "unit", "delay, s", title=graph.name)
    for name, entry in graph.to_dict()["nodes"].items():
        spec = engine.specs.get(name)
        sink = isinstance(graph[name], Sink)
        known = (f"{spec.rate:g}", str(spec.n), spec.unit, f"{spec.delay:g}") if spec else ("" if sink else "?",) * 4
        table.add_row(name, entry["type"], graph.places[name].process, *known)
    OUT.print(table)
    if any(not isinstance(graph[n], Sink) for n in unknown):
        OUT.print("?: known when the live streams are there, and the decoders fitted")
    OUT.print(f"{graph.origin}: ok", highlight=False, soft_wrap=True)
    return 0


def _mermaid(given: argparse.Namespace) -> int:
    if given.live:
        from rheobase.tools.top import drawn

        print(drawn(given.graph))
    else:
        print(_graph(given).mermaid())
    return 0


def _top(given: argparse.Namespace) -> int:
    from rheobase.tools.top import top

    return top(Path(given.run) if given.run else None, given.once, OUT)


def _nodes(given: argparse.Namespace) -> int:
    from rheobase.tools.nodes import show_all, show_one

    if given.type:
        show_one(given.type, OUT)
    else:
        show_all(OUT)
    return 0


def _view(given: argparse.Namespace) -> int:
    from rheobase.tools.look import look

    panels = {}
    for word in given.panel or ():
        name, found, kind = word.partition("=")
        if not found:
            raise StreamError(f"--panel {word!r}: write INPUT=KIND")
        panels[name] = kind
    size = re.fullmatch(r"(\d{3,5})x(\d{3,5})", given.size) if given.size else None
    if given.size and not size:
        raise StreamError(f"--size {given.size!r}: write WIDTHxHEIGHT, in pixels")
    pixels = (int(size[1]), int(size[2])) if size else None
    how = {k: v for k, v in (("rate", given.rate), ("times", given.times)) if v is not None}
    return look(given.names, OUT, panels, given.picture, given.at, pixels, how, span=given.span, theme=given.theme)


def _echo(given: argparse.Namespace) -> int:
    from rheobase.tools.echo import echo

    if given.seconds is not None and not given.seconds > 0:
        raise StreamError(f"--for {given.seconds:g}: write a number of seconds above 0")
    if given.most is not None and given.most < 1:
        raise StreamError(f"--most {given.most}: write a number of samples above 0")
    return echo(given.stream, given.seconds, given.most)


def _report(given: argparse.Namespace) -> int:
    from rheobase.tools.run_page import run_page

    path = run_page(Path(given.run), Path(given.out) if given.out else None)
    OUT.print(f"page: {path}", highlight=False, soft_wrap=True)
    return 0


def _bench(given: argparse.Namespace) -> int:
    from rheobase.tools.bench import bench

    bench(given.names, given.scale, given.json)
    return 0


def _data(given: argparse.Namespace) -> int:
    from rheobase.stream.files import find, known_data

    if not given.names:
        table = rich.table.Table("name", "where")
        for name, where in known_data().items():
            table.add_row(name, where)
        OUT.print(table)
        return 0
    for name in given.names:
        print(find(name if name.startswith("data:") else f"data:{name}"))
    return 0


def _repair(given: argparse.Namespace) -> int:
    from rheobase.tools.repair import repair

    return repair(Path(given.file), Path(given.to) if given.to else None, OUT)


def _doctor(given: argparse.Namespace) -> int:
    from rheobase.tools.doctor import doctor

    return doctor(OUT)


def _keys(given: argparse.Namespace) -> int:
    from rheobase.stream.keys import write_keys

    public, secret = write_keys(given.name, Path(given.folder))
    OUT.print(f"wrote {public}: give it to the other side", highlight=False, soft_wrap=True)
    OUT.print(f"wrote {secret}: keep it", highlight=False, soft_wrap=True)
    return 0


def _new(given: argparse.Namespace) -> int:
    from rheobase.tools.new import new_node

    for path in new_node(given.name, given.kind, Path.cwd()):
        OUT.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


def _speed(word: str) -> float:
    """ "max" -> 0, a number else. Raises StreamError."""
    if word == "max":
        return 0.0
    try:
        speed = float(word)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise StreamError(f"--speed {word!r}: write a number above 0 (1: real time) or max")
    return speed


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` says more\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rheo",
        description="Run a graph of sensors, decoders and outputs live; replay it to the same bits.",
        epilog="`rheo COMMAND --help` says more about a command.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, do: Callable[[argparse.Namespace], int], text: str, more: str = ""
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}")
        sub.set_defaults(do=do)
        return sub

    def graph_of(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("graph", metavar="GRAPH", help="a YAML file, or the name of an embedded graph")
        sub.add_argument("--set", action="append", metavar="NODE.KEY=VALUE", help="change a parameter; may be repeated")

    sub = command(
        "run", _run, "run a graph until its sources end, or Ctrl-C", f"Exit code {LOST}: a block edge lost samples."
    )
    graph_of(sub)
    sub.add_argument("--for", dest="seconds", type=float, metavar="S", help="stop after S seconds")
    sub.add_argument("--folder", metavar="DIR", help="the run directory (default: runs/NAME-DATE)")
    sub.add_argument("--speed", default="1", help="of recorded sources: 1 real time (default), or max")
    sub.add_argument("--metrics", metavar="PORT", help="answer Prometheus on this port of 127.0.0.1 (or [::1]:PORT)")

    sub = command(
        "replay",
        _replay,
        "run a recording again",
        "A run directory goes through its own graph, and every decoded sample is compared with the live one, byte "
        "for byte. A recording (XDF, CSV, npz, MATLAB) goes through GRAPH, or is only read through.",
    )
    sub.add_argument("run", metavar="RUN|FILE", help="a run directory, or a recording")
    sub.add_argument("graph", metavar="GRAPH", nargs="?", help="for a recording: the graph to run it through")
    sub.add_argument("--set", action="append", metavar="NODE.KEY=VALUE", help="change a parameter of GRAPH")
    sub.add_argument("--speed", default="1", help="1 real time (default), or max")

    sub = command("fit", _fit, "fit a decoder of a graph on a recording, score it on held-out time, write its model")
    graph_of(sub)
    sub.add_argument("node", metavar="NODE", help="the decoder to fit")
    sub.add_argument("--on", metavar="RUN|FILE", help="the recording (default: the graph's own recorded sources)")

    sub = command(
        "calibrate",
        _calibrate,
        "from no decoder to a driven cursor: open loop, fit, assisted blocks with refits, model",
        "GRAPH has a task node, and above it the decoder that moves its cursor. Ctrl-C leaves what was recorded.",
    )
    graph_of(sub)
    sub.add_argument("--node", metavar="NODE", help="the decoder to calibrate, where several lead to the task")
    sub.add_argument("--open", type=float, metavar="S", help="open loop, s (default: 120)")
    sub.add_argument(
        "--assist",
        metavar="S:SHARE,...",
        help="assisted blocks, s, and the share taken away of the velocity across the way to the target "
        "(default: 180:0.8,180:0.5,180:0.2)",
    )
    sub.add_argument("--every", type=float, metavar="S", help="time between two refits, s (default: the graph's, or 5)")
    sub.add_argument("--folder", metavar="DIR", help="where it all goes (default: runs/NAME-calibration-DATE)")

    sub = command("eval", _eval, "fit and score every decoder of a graph by its `eval` table")
    graph_of(sub)
    sub.add_argument("--folder", metavar="DIR", help="where the table and the figure go (default: runs/NAME-eval-DATE)")

    sub = command(
        "stress",
        _stress,
        "score the decoders of a graph while their input is disturbed: metric x disturbance x severity",
        "Fitted on clean data as by `rheo eval`, scored on test data with lost samples, swapped channels, ...",
    )
    graph_of(sub)
    sub.add_argument("--node", action="append", metavar="NODE", help="a decoder; may be repeated (default: all)")
    sub.add_argument("--only", action="append", metavar="WORD", help="a disturbance; may be repeated (default: all)")
    sub.add_argument("--seeds", default="0,7,13", metavar="N,...", help="of the disturbances (default: 0,7,13)")
    sub.add_argument("--json", metavar="FILE", help="write the scores here, too")

    graph_of(command("check", _check, "check a graph without opening a device"))
    sub = command("graph", _mermaid, "print a graph as a mermaid flowchart")
    graph_of(sub)
    sub.add_argument("--live", action="store_true", help="with rates, ages and losses of its run (or RUN for GRAPH)")
    sub = command("nodes", _nodes, "list the node types, or say all about one")
    sub.add_argument("type", metavar="TYPE", nargs="?")
    sub = command(
        "view",
        _view,
        "open a window on LSL streams of anything that runs, or on a recording",
        "Without a name it says which streams there are. A run is shown as its own graph says.",
    )
    sub.add_argument(
        "names", metavar="STREAM|RUN|FILE", nargs="*", help="LSL streams; or a recording, then some of its"
    )
    sub.add_argument("--panel", action="append", metavar="INPUT=KIND", help="show an input so; may be repeated")
    sub.add_argument("--span", type=float, metavar="S", help="time shown, s (default: 10)")
    sub.add_argument("--theme", choices=["dark", "light"], help="colours")
    sub.add_argument("--at", type=float, metavar="S", help="of a recording: s from its beginning")
    sub.add_argument("--rate", type=float, metavar="HZ", help="of a recording that does not say its rate")
    sub.add_argument("--times", metavar="NAME|NUMBER", help="of a table: the column that holds the times, s")
    sub.add_argument("--size", metavar="WxH", help="of the window, in pixels (default: 1280x720)")
    sub.add_argument("--picture", default="", metavar="FILE", help="write a PNG instead of opening a window")
    sub = command(
        "top",
        _top,
        "a table of a run while it runs: nodes, edges, processes, streams",
        "It only looks.",
    )
    sub.add_argument("run", metavar="RUN", nargs="?", help="a run directory (default: the newest here that runs)")
    sub.add_argument("--once", action="store_true", help="print it once, and end")
    sub = command("echo", _echo, "print the samples of an LSL stream, and at the end their rate and age")
    sub.add_argument("stream", metavar="NAME|KEY=VALUE", help="its name, or another property, as in source_id=abc")
    sub.add_argument("--for", dest="seconds", type=float, metavar="S", help="stop after S seconds (default: Ctrl-C)")
    sub.add_argument("--most", type=int, metavar="N", help="stop after N samples")
    sub = command("report", _report, "write one page on a run: figures, ages, losses, config, versions")
    sub.add_argument("run", metavar="RUN", help="a run directory")
    sub.add_argument("--out", metavar="FILE", help="where the page goes (default: RUN/report.html)")
    sub = command("bench", _bench, "measure speed, as ratios to C loops and raw sockets of the same run")
    sub.add_argument("names", metavar="NAME", nargs="*", help="fuse, decode, hop, ..., states (default: all)")
    sub.add_argument("--json", metavar="FILE", help="write the figures here, too")
    sub.add_argument("--scale", type=float, default=1.0, help="how long to measure (1: about a minute for all)")
    sub = command("data", _data, "list the recorded data sets, or find (and fetch) some")
    sub.add_argument("names", metavar="NAME", nargs="*", help="for instance flint2012_run1/x.csv")
    command(
        "doctor",
        _doctor,
        "say whether this machine has what live runs need, and what to do",
        "Exit code 1: it has not.",
    )
    sub = command("repair", _repair, "take what is whole of a recording that was cut short or damaged")
    sub.add_argument("file", metavar="FILE", help="an XDF file; it is not changed")
    sub.add_argument("--to", metavar="FILE", help="where it goes (default: NAME-repaired.xdf)")
    sub = command(
        "keys", _keys, "make a pair of keys, which ZeroMQ sockets beyond this machine need", "A key is never replaced."
    )
    sub.add_argument("name", metavar="NAME", help="writes NAME.key, to give away, and NAME.key_secret, to keep")
    sub.add_argument("--folder", default=".", metavar="DIR", help="where to (default: here)")
    sub = command("new", _new, "write the file and the test of a new node")
    sub.add_argument("what", choices=["node"])
    sub.add_argument("name", metavar="NAME")
    sub.add_argument("--kind", choices=["kernel", "node", "source", "sink"], default="kernel")
    return parser
