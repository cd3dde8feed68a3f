"""`rheo replay`: a run again through its own graph, compared byte for byte; or any recording through a graph."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import rich.console
import rich.progress
import rich.table

from rheobase.devices.record import Record
from rheobase.devices.replay import Replay, streams
from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.files import find
from rheobase.stream.graph import Edge, Graph, read
from rheobase.stream.node import Source, nearest, type_name
from rheobase.stream.run import new_folder, run
from rheobase.stream.swap import swaps

DIFFERENT = 4
"""Exit code of a replay whose samples are not those of the run."""


class Recorded(Source):
    """One stream of a run, out of the files of one recorder: started again, a recorder goes on in a file of its own.

    n      samples of it that are in a file
    holes  those between two files that are in none: their first seq, and the seq after their last; a seq that goes
           back says no more than that something is missing
    known  time of the last sample before the first hole, s
    """

    live: ClassVar[bool] = False

    files: tuple[str, ...]
    """In the order they were written."""
    stream: str
    """Its name."""
    whole: bool = True
    """Whether the last file is; the others end where their process died."""
    ended: bool = True
    """Whether the last of its processes wrote a file."""

    def start(self, *inputs: Spec) -> Spec:
        self.parts: list[tuple[Replay, int]] = []
        self.holes: list[tuple[int, int]] = []
        self.n, self.known = 0, math.inf
        seq = segment = 0
        last, self.upto = -math.inf, len(self.files)
        for k, file in enumerate(self.files):
            last_file = k + 1 == len(self.files)
            if not last_file and not Path(file).exists():  # it died before it had anything to write
                continue
            node = Replay(file=file, stream=self.stream, salvage=not (self.whole and last_file))
            spec = node.start()
            [part] = node.parts
            n = part.stream.n
            if not part.starts:
                continue
            _, first, begin = part.starts[0]
            if k and first != seq:
                if not self.holes:
                    self.upto, self.known = len(self.parts), last
                self.holes.append((seq, first))
            shift = begin - segment if k else 0  # to who began to listen, all before is missing
            self.parts.append((node, shift))
            at, seq, segment = part.starts[-1]
            seq, segment = seq + n - at, segment - shift
            last = float(part.times(n - 1, n)[0])
            self.n += n
        return spec

    def blocks(self) -> Iterator[Block]:
        """Those before the first hole: what comes after it, the graph has never got like that."""
        return self.all(self.upto)

    def all(self, upto: int | None = None) -> Iterator[Block]:
        """Those of all files."""
        for node, shift in self.parts[:upto]:
            yield from (b.replace(segment=b.segment - shift) for b in node.blocks())

    @property
    def missing(self) -> str:
        """How many samples are in no file; "": none."""
        if not self.ended or any(b < a for a, b in self.holes):
            return f"an unknown number of samples of {self.stream!r}"
        n = sum(b - a for a, b in self.holes)
        return f"{n} samples of {self.stream!r}" if n else ""


class Match:
    """Compares the blocks of one node with what was recorded of it, whatever the cuts, and up to time `until`, s."""

    def __init__(self, recorded: Recorded, spec: Spec, until: float = math.inf) -> None:
        self.spec, self.until = spec, until
        self.total, self.holes = recorded.n, recorded.holes
        self.shift = 0
        """What the segments of the recording are too low by: no file says whether one began in a hole."""
        self.recorded = recorded.all()
        self.left: list[Block] = []
        self.replayed = self.equal = self.live = 0
        self.first = ""
        self.over = self.ended = False
        """Whether the replay, and the recording, have come to `until`."""

    def take(self, block: Block) -> None:
        """The next samples of the replay."""
        block, self.over = self._before(block, self.over)
        for a, b in self.holes:
            n = min(max(a - block.seq, 0), len(block))
            self._meet(block.cut(0, n))
            block = block.cut(max(n, min(b - block.seq, len(block))), len(block))
        self._meet(block)

    def _meet(self, block: Block) -> None:
        self.replayed += len(block)
        while len(block):
            if not self.left and not self._next():
                return
            live = self.left[0]
            if any(a < b == live.seq for a, b in self.holes):
                self.shift = block.segment - live.segment
            n = min(len(live), len(block))
            self._compare(block.cut(0, n), live.cut(0, n))
            block = block.cut(n, len(block))
            self.left = [live.cut(n, len(live))] if n < len(live) else []

    def finish(self) -> None:
        """Count what of the recording was not met."""
        while self._next():
            pass

    def _next(self) -> bool:
        for whole in self.recorded:
            if whole is None:
                continue
            block, self.ended = self._before(whole, self.ended)
            if len(block):
                self.left = [block]
                self.live += len(block)
                return True
        return False

    def _before(self, block: Block, over: bool) -> tuple[Block, bool]:
        """What of it lies before `until`, and whether it has come to that."""
        late = np.flatnonzero(block.times >= self.until)
        n = 0 if over else int(late[0]) if len(late) else len(block)
        return block.cut(0, n), n < len(block) or over

    def _compare(self, new: Block, live: Block) -> None:
        same = (new.seq, new.segment) == (live.seq, live.segment + self.shift)
        data = np.ascontiguousarray(new.data, object if self.spec.dtype == "str" else self.spec.dtype)
        if self.spec.dtype == "str":
            rows = (data == live.data).all(axis=1)
        else:
            width = self.spec.n * data.dtype.itemsize
            rows = (_bytes(data, width) == _bytes(live.data, width)).all(axis=1)
        rows &= (_bytes(new.times, 8) == _bytes(live.times, 8)).all(axis=1)
        self.equal += int(rows.sum()) if same else 0
        if not self.first and not (same and rows.all()):
            i = int(np.argmin(rows)) if same else 0
            self.first = f"sample {new.seq + i} at {new.times[i]:.6f} s"


def _bytes(x: Array, width: int) -> Array:
    return np.ascontiguousarray(x).view(np.uint8).reshape(-1, width)


def replay_run(folder: Path, speed: float, console: rich.console.Console) -> int:
    """Run the sources that a run recorded through its graph, and compare every other stream that it recorded.

    speed  1 real time, 0 as fast as it goes

    Of all record nodes, through all their files. What comes after samples that are in no file is not compared where
    the graph would have to know them; that, and how many those are, is said.

    Returns an exit code: 0 when every sample that is compared came out again, to the byte.
    Raises StreamError where the folder holds no run, or a source that is needed was not recorded.
    """
    graph = _graph(folder)
    recorded = _recordings(folder, graph, console)
    computed = [r for r in recorded if not isinstance(graph[r.stream], Source)]
    names = list(dict.fromkeys(r.stream for r in computed))
    if not computed:
        raise StreamError(f"{folder}: no recording of a stream that the graph computes: record a decoder to compare it")
    part = graph.above(*names)
    holes = [_hole(r, [r.stream]) for r in computed if any(b < a for a, b in r.holes)]
    for name in part:
        if isinstance(part[name], Source):
            mine = [r for r in recorded if r.stream == name]
            if not mine:
                raise StreamError(f"{folder}: source {name!r} was not recorded, and {', '.join(names)} need it")
            source = max(mine, key=lambda r: r.known)
            part.replace(name, source)
            if source.holes:
                holes.append(_hole(source, [n for n in names if name in graph.above(n)]))
    again = _restarts(folder, graph, names) + holes
    for a in again:
        console.print(a.text, highlight=False, soft_wrap=True)
    matches = []
    for r in computed:
        until = min((a.until for a in again if r.stream in a.names), default=math.inf)
        twice = [o.stream for o in computed].count(r.stream) > 1
        label = f"{r.stream} ({Path(r.files[0]).name})" if twice else r.stream
        matches.append((label, Match(r, r.start(), until), r))
    taps = {n: [m.take for _, m, r in matches if r.stream == n] for n in names}
    _go(Engine(part, taps={n: _all(t) for n, t in taps.items()}, speed=speed, planned=swaps(folder)), console)
    whole = all(r.whole for r in recorded)
    bad = compared = 0
    for label, match, r in matches:
        match.finish()
        common = min(match.live, match.replayed)
        compared += common
        cut_short = not whole or any(r.stream in h.names for h in holes)
        if match.equal == common and (match.over or (match.ended and cut_short)):
            console.print(
                f"{label}: all {common} samples before that are byte-identical to the live ones", highlight=False
            )
            continue
        if match.equal == common and (match.live == match.replayed or cut_short):
            cut = "" if match.live == match.replayed else f" ({match.replayed} replayed: the run was cut short)"
            cut += f"; in no file: {r.missing}" if r.missing else ""
            text = f"{label}: all {common} samples are byte-identical to the live ones{cut}"
            console.print(text, highlight=False, soft_wrap=True)
            continue
        bad += 1
        where = f"; the first difference: {match.first}" if match.first else ""
        console.print(
            f"{label}: {match.live} live, {match.replayed} replayed, {match.equal} byte-identical{where}",
            highlight=False,
        )
    if bad:
        console.print("[red]the replay is not the run[/red]")
        return DIFFERENT
    upto = " up to where a process was started again" if any(m.over for _, m, _ in matches) else ""
    total = sum(m.total for _, m, _ in matches)
    gone = [r.missing for r in computed if r.missing]
    if upto or gone or compared < total:
        lost = f"; in no file: {', '.join(gone)}" if gone else ""
        what = f"{compared} of the {total} decoded samples in the recording, all byte-identical to the live ones"
        text = f"live is replay{upto}, as far as it can be compared: {what}"
        text = f"{text if compared else f'none of the {total} decoded samples can be compared'}{lost}"
        console.print(text, highlight=False, soft_wrap=True)
        return 0
    far = "" if whole else ", as far as they were recorded: the run was cut short or lost some"
    text = f"live is replay: all decoded samples are byte-identical to the live ones{far}"
    console.print(text, highlight=False, soft_wrap=True)
    return 0


def _all(takers: Sequence[Callable[[Block], None]]) -> Callable[[Block], None]:
    def take(block: Block) -> None:
        for t in takers:
            t(block)

    return take


class Again(NamedTuple):
    """A process of the run was started again, or samples are in no file: what these nodes gave from `until` s on no
    replay can give."""

    names: set[str]
    until: float
    text: str


def _hole(r: Recorded, names: Sequence[str]) -> Again:
    """Samples of a stream are in no file, so that these are not known from there on."""
    at = f"after {r.known:.3f} s" if math.isfinite(r.known) else "from the start"
    text = f"samples of {r.stream!r} {at} are in no file: {', '.join(names)}: compared before that"
    return Again({*names}, math.nextafter(r.known, math.inf), text)


def _restarts(folder: Path, graph: Graph, computed: Sequence[str]) -> list[Again]:
    """Those of a run, in order.

    What a process had not yet put into its checkpoint, and what was on its way to it, is lost and nowhere recorded.
    """
    found = []
    for r in _tables(folder).get("restarts", ()):
        names: set[str] = set()
        for n, p in graph.places.items():
            if p.process == r["process"] or any(e.source in names for e in p.edges):
                names.add(n)
        at = f"sample {r['seq']} of node {r['node']!r} ({r['time']:.3f} s)" if r["time"] else f"{r['clock']:.3f} s"
        hit = [n for n in computed if n in names]
        text = f"process {r['process']!r} was started again at {at}: "
        text += f"{', '.join(hit)}: compared before that, for what was lost there is not recorded" if hit else "..."
        found.append(Again({*hit}, r["time"] or r["clock"], text.replace("...", "it gave nothing that is compared")))
    return found


def _tables(folder: Path) -> dict[str, Any]:
    """What a run said at its end; {}: it never came to that."""
    try:
        return dict(json.loads((folder / "tables.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _recordings(folder: Path, graph: Graph, console: rich.console.Console) -> list[Recorded]:
    """The streams that each record node of a run recorded; says where one was started again, and what was lost."""
    said, found = _tables(folder), []
    for name, place in graph.places.items():
        if not isinstance(place.node, Record):
            continue
        first = folder / place.node.file
        likely = first.parent.glob(f"{glob.escape(first.stem)}.*{glob.escape(first.suffix)}")
        later = {int(n): p for p in likely if (n := p.stem[len(first.stem) + 1 :]).isdecimal()}
        files = [first, *(later[k] for k in sorted(later))]
        again = sum(r["process"] == place.process for r in said.get("restarts", ()))
        ended = again <= max(later, default=0)
        whole = bool(said.get("ok")) and ended
        mine = [
            Recorded(files=tuple(map(str, files)), stream=s, whole=whole, ended=ended)
            for s in streams(str(files[-1]), not whole)
            if s in graph.places
        ]
        for r in mine:
            r.start()
        if later or again:
            text = f"recorder {name!r} was started again"
            text += f", and goes on in {', '.join(p.name for p in files[1:])}" if later else ""
            lost = ", ".join(r.missing for r in mine if r.missing)
            lost = f"in no file: {lost}" if lost else "every sample is in a file"
            console.print(f"{text}; {lost}", highlight=False, soft_wrap=True)
        found += mine
    if not any(isinstance(p.node, Record) for p in graph.places.values()):
        raise StreamError(f"{folder}: its graph has no record node, so there is no recording")
    return found


def _cut(file: Path) -> bool:
    """Whether a recording may end before its run did, so that it is read as far as it goes: the run did not end well,
    or lost samples, or its recorder was started again. Any other is whole, or damaged."""
    if not (file.parent / "config.yaml").exists():
        return False
    said, graph = _tables(file.parent), read(file.parent / "config.yaml")
    recorders = {p.process for p in graph.places.values() if isinstance(p.node, Record)}
    return not said.get("ok") or any(r["process"] in recorders for r in said.get("restarts", ()))


def replay_file(
    name: str, graph: Graph | None, changes: Sequence[str], speed: float, console: rich.console.Console
) -> int:
    """Run a recording through a graph, its sources replaced by the streams of the same name; or only read it.

    A source takes the stream named as its node, else the one named as the LSL stream that it would look for.
    """
    file = find(name)
    there = streams(str(file))
    if graph is None:
        return _read_through(str(file), there, speed, console)
    for change in changes:
        graph.set(change)
    onto(graph, file, [w for w in graph if isinstance(n := graph[w], Source) and n.live])
    folder = new_folder(f"{graph.name}-replay")
    report = run(graph, folder, None, speed, status=True)
    report.show(console)
    console.print(f"{report.lasted:.1f} s in {folder}", highlight=False, soft_wrap=True)
    return 0 if report.ok else 3


def recording(folder: Path) -> tuple[Graph, Path]:
    """The graph of a run and the first file that it recorded. Raises StreamError where the folder holds no such run."""
    graph = _graph(folder)
    recorder = next((p.node for p in graph.places.values() if isinstance(p.node, Record)), None)
    if recorder is None:
        raise StreamError(f"{folder}: its graph has no record node, so there is no recording")
    return graph, folder / recorder.file


def _graph(folder: Path) -> Graph:
    if not (folder / "config.yaml").exists():
        raise StreamError(f"{folder}: not a run directory: it has no config.yaml")
    return read(folder / "config.yaml")


def onto(graph: Graph, file: Path, sources: Iterable[str]) -> None:
    """Put streams of a recording in the place of these sources of a graph.

    A source takes the stream named as its node, else the one named as the LSL stream that it would look for.
    Raises StreamError where there is none.
    """
    there = streams(str(file), _cut(file))
    for word in sources:
        wanted = [word, *dict(getattr(graph[word], "stream", None) or {}).values()]
        match = next((w for w in wanted if w in there), None)
        if match is None:
            raise StreamError(f"{file}: no stream for source {word!r}{nearest(wanted[-1], there)}")
        graph.replace(word, _recorded(file, match))


def straight(graph: Graph) -> None:
    """Where an LSL inlet takes a stream that the graph itself publishes, let who hears the inlet hear the source of it.

    What a graph plays to itself from a recording is then that recording: as fast as it is read.
    """
    kinds = {name: type_name(type(place.node)) for name, place in graph.places.items()}
    played = {getattr(graph[n], "stream", "") or n: graph.places[n].edges[0] for n in kinds if kinds[n] == "lsl_out"}
    for name in [n for n in kinds if kinds[n] == "lsl"]:
        if origin := played.get(dict(getattr(graph[name], "stream", {})).get("name", "")):
            for place in graph.places.values():
                place.edges[:] = [Edge(origin.source) if e.source == name else e for e in place.edges]


def _recorded(file: Path, name: str) -> Replay:
    node = Replay(file=str(file), stream=name, salvage=_cut(file))
    node.name = name
    return node


def _read_through(file: str, there: dict[str, Spec], speed: float, console: rich.console.Console) -> int:
    graph = Graph(file)
    for i, stream in enumerate(there):
        graph.add(f"s{i}", Replay(file=file, stream=stream))
    counts = {n: [0, 0, 0.0] for n in graph}
    seen: dict[str, tuple[int, float]] = {}

    def count(word: str) -> Callable[[Block], None]:
        def take(block: Block) -> None:
            segment, begin = seen.get(word, (-1, block.times[0]))
            counts[word][0] += len(block)
            counts[word][1] += segment != block.segment
            counts[word][2] = block.times[-1] - begin
            seen[word] = block.segment, begin

        return take

    engine = Engine(graph, taps={n: count(n) for n in graph}, speed=speed)
    _go(engine, console)
    table = rich.table.Table("stream", "type", "rate, Hz", "channels", "samples", "segments", "span, s", title=file)
    for word, stream in zip(graph, there, strict=True):
        spec, (n, segments, span) = engine.specs[word], counts[word]
        table.add_row(stream, spec.dtype, f"{spec.rate:g}", str(spec.n), str(n), str(segments), f"{span:.3f}")
    console.print(table)
    return 0


def _go(engine: Engine, console: rich.console.Console) -> None:
    """Start and run, with the stream's time beside a spinner."""
    engine.start()
    with rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn("{task.description}"),
        rich.progress.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("replay")
        first = float("nan")

        for item in engine.inputs():
            if item is None or isinstance(item, str):
                continue
            name, block = item
            if first != first:
                first = block.times[0]
            bar.update(task, description=f"replay: {block.times[-1] - first:.1f} s of the recording")
            engine.push(name, block)
        engine.finish()
