"""`rheo calibrate`: from no decoder to a person who drives the cursor.

1. open loop   the cursor goes by itself, the person follows it in mind; there is no decoder
2. fit         of the decoder, scored on the last fifth of that beside plain ones
3. assisted    the decoder moves the cursor; what leads across the straight way to the target is attenuated, block by
               block less; every few seconds the decoder is refitted from what was wanted (`recalibrate`) and swapped
               in between two samples
4. model       fitted to all of it, written where the graph's decoder looks for it

Usual times and shares: those of participant T9 in Brandman et al., J Neural Eng 15:026007, 2018.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console

from rheobase.devices._labelled import Rows, write_labelled
from rheobase.devices.recalibrate import LABEL, Recalibrate
from rheobase.devices.record import Record
from rheobase.devices.replay import Replay
from rheobase.nodes._decoder import Decoder
from rheobase.nodes.dkf import DKF
from rheobase.nodes.pick import Pick
from rheobase.nodes.task import Task
from rheobase.nodes.zscore import Zscore, write_moments
from rheobase.stream.block import Spec, StreamError
from rheobase.stream.cli import INTERRUPTED, LOST
from rheobase.stream.files import digest
from rheobase.stream.graph import Edge, Graph, from_dict
from rheobase.stream.node import Sink, Source, blame, nearest
from rheobase.stream.run import run
from rheobase.tools.fit import Gathered, aligned, fit, gather
from rheobase.tools.page import closed_loop_page
from rheobase.tools.replay import onto, recording
from rheobase.tools.trials import summary, table, trials

Assist = Sequence[tuple[float, float]]

OPEN = 120.0
"""s of open loop."""
ASSIST: Assist = ((180.0, 0.8), (180.0, 0.5), (180.0, 0.2))
"""Assisted blocks: s, and the share that is taken away of the velocity across the way to the target."""
EVERY = 5.0
"""s between two refits."""


def calibrate(
    graph: Graph,
    folder: Path,
    out: rich.console.Console,
    name: str | None = None,
    watch: float = OPEN,
    assist: Assist = ASSIST,
    every: float | None = None,
) -> int:
    """All four steps. The runs go to `folder`/open and `folder`/assisted, each a run directory of its own.

    name    the decoder, where several lead to the graph's task
    watch   s of open loop
    assist  the assisted blocks: s, share taken away
    every   s between two refits (None: as the graph's own recalibrate node says, else 5)

    Returns an exit code. Raises StreamError.
    """
    this = Calibration(graph, folder, name)
    opened, driven = folder / "open", folder / "assisted"
    for path in (opened, driven):
        if (path / "config.yaml").exists():
            raise StreamError(f"{path}: holds a run already")
    first = this.open_loop()
    first.check()
    total = sum(s for s, _ in assist)

    out.rule(f"1  open loop: {watch:g} s", align="left")
    report = run(first, opened, watch, status=True)
    ok = report.ok
    if report.lasted < watch - 1:
        return _interrupted(out, f"{report.lasted:.0f} s of open loop are in {opened}")

    out.rule("2  fit: the last fifth of it is held out", align="left")
    for word in this.scaled:  # from the source down: one may stand before another
        x = gather(this.offline(opened), [_input(graph, word)])[_input(graph, word)]
        write_moments(this.models[word], x.spec, x.data)
    fit(this.learner(opened), this.decoder, None).show(out)
    before = this.labelled(opened)
    write_labelled(this.earlier, before.features, LABEL, before.rows)

    out.rule(f"3  assisted: {', '.join(f'{s:g} s at {a:.0%}' for s, a in assist)}", align="left")
    report = run(this.assisted(assist, every), driven, total, status=True)
    report.show(out)
    ok &= report.ok
    if report.lasted < total - 1:
        return _interrupted(
            out,
            f"{opened} and {report.lasted:.0f} s of {driven} are recorded, the model that was "
            f"fitted first is {this.models[this.decoder]}, those after it lie in {driven}/models",
        )

    out.rule("4  model: of all of it", align="left")
    after = this.labelled(driven)
    for path in this.write(before, after):
        out.print(f"wrote {path}", highlight=False, soft_wrap=True)
    for note in this.notes:
        out.print(note, highlight=False, soft_wrap=True)
    task = this.graph[this.task]
    assert isinstance(task, Task)
    found, ends = trials(after.task.times, after.task.data), np.cumsum([s for s, _ in assist]) + after.task.times[0]
    blocks = np.searchsorted(ends, [t.times[-1] for t in found])
    sums = [summary([t for t, b in zip(found, blocks, strict=True) if b == k], task.task) for k in range(len(assist))]
    out.print(table(*sums, heads=[f"{s:g} s, {a:.0%} attenuated" for s, a in assist]))
    out.print(f"page: {closed_loop_page(driven)}", highlight=False, soft_wrap=True)
    return 0 if ok else LOST


@dataclasses.dataclass(frozen=True)
class Session:
    """What one run gave to learn from: a row for each sample of features, and the task beside it."""

    features: Spec
    rows: Rows
    task: Gathered


class Calibration:
    """The graphs of a calibration, each made from the one that is given.

    graph     a copy of it, with a recorder
    task      the cursor task, decoder: what it moves by, features: what that listens to
    scaled    z-scores above the decoder that go by a model, which is measured in the open loop
    models    name -> the model file to go by until the end
    notes     what the user should know of their graph

    Raises StreamError where there is no task, no decoder above it, or several and none is named.
    """

    def __init__(self, graph: Graph, folder: Path, name: str | None = None) -> None:
        self.graph, self.folder = _copy(graph), folder
        self.notes: list[str] = []
        where = graph.origin or graph.name
        tasks = [k for k, p in graph.places.items() if isinstance(p.node, Task)]
        if len(tasks) != 1:
            found = f"several ({', '.join(tasks)})" if tasks else "none"
            raise StreamError(f"{where}: calibration needs one task node (type: task), and there is {found}")
        [self.task] = tasks
        above = graph.above(self.task)
        decoders = [k for k in above if isinstance(above[k], Decoder)]
        if name is not None and name not in decoders:
            raise StreamError(f"{where}: no decoder {name!r} above {self.task!r}{nearest(name, decoders)}")
        if not decoders:
            raise StreamError(f"{where}: no decoder leads to {self.task!r}: there is nothing to calibrate")
        if name is None and len(decoders) > 1:
            raise StreamError(f"{where}: decoders {', '.join(decoders)} lead to {self.task!r}: choose one by --node")
        self.decoder = name or decoders[0]
        self.features = _input(graph, self.decoder)
        above = graph.above(self.features)
        self.scaled = [k for k in above if isinstance(n := above[k], Zscore) and n.model]
        for k in above:
            if isinstance(n := above[k], Zscore) and not n.model:
                self.notes.append(
                    f"node {k!r} (zscore) learns anew in each run, and in a closed loop learns a steady effort away: "
                    f"give it a model: FILE, which is then measured here"
                )
        self.models = {k: folder / "models" / f"{k}.npz" for k in (self.decoder, *self.scaled)}
        self.earlier = folder / "models" / "labelled.npz"
        self._record([k for k in above if isinstance(above[k], Source)])
        self._begins()

    def open_loop(self) -> Graph:
        """The task goes by itself at the pace of the features; the decoder is left out, and what hangs on it."""
        graph = _copy(self.graph)
        self._set(graph, self.task, control=False, assist=None)
        graph.places[self.task].edges = [Edge(self.features)]
        for word in self.scaled:
            self._set(graph, word, model="")
        gone = {self.decoder} | {k for k in graph if isinstance(graph[k], Recalibrate)}
        for word, place in graph.places.items():
            kept = [e for e in place.edges if e.source not in gone]
            if len(kept) < len(place.edges) and not (kept and isinstance(place.node, Sink)):
                gone.add(word)
            place.edges = kept
        for word in gone:
            del graph.places[word]
        return graph

    def offline(self, folder: Path) -> Graph:
        """Features and task of a run, from its recording, and what was intended."""
        file = recording(folder)[1]
        graph = _copy(self.graph).above(self.features)
        for word in self.scaled:
            self._set(graph, word, model=str(self.models[word]) if self.models[word].exists() else "")
        onto(graph, file, [k for k in graph if isinstance(graph[k], Source)])
        graph.add(self.task, Replay(file=str(file), stream=self.task, salvage=True))
        graph.add(_free(graph, "intended"), Pick(channels=list(LABEL), unit="m/s"), self.task)
        return graph

    def learner(self, folder: Path) -> Graph:
        """The same with the decoder, for `fit`."""
        graph = self.offline(folder)
        truth = list(graph)[-1]
        graph.add(self.decoder, self.graph[self.decoder], self.features)
        self._set(graph, self.decoder, model=str(self.models[self.decoder]))
        graph.options = {"eval": {"truth": truth, "metrics": ["nrmse", "r2"]}}
        return graph

    def labelled(self, folder: Path) -> Session:
        """What a run gave to learn from."""
        graph = self.offline(folder)
        *_, truth = graph
        got = gather(graph, [self.features, self.task, truth])
        x, z = got[self.features], got[truth]
        return Session(x.spec, (x.times, x.data, aligned(z, x.times, x.segment), x.segment), got[self.task])

    def assisted(self, assist: Assist, every: float | None) -> Graph:
        """The decoder moves the cursor, with help; it is refitted all the while."""
        graph = _copy(self.graph)
        self._set(graph, self.task, control=True, assist=[{"seconds": s, "attenuate": a} for s, a in assist])
        for word, path in self.models.items():
            self._set(graph, word, model=str(path))
        own = [k for k in graph if isinstance(n := graph[k], Recalibrate) and n.node == self.decoder]
        if not own:
            own = [_free(graph, "recalibrate")]
            sink = Recalibrate(node=self.decoder, every=EVERY, window=0.0, realign=0.0)
            graph.add(own[0], sink, [self.features, self.task], process=own[0])
        for word in own:
            self._set(graph, word, earlier=str(self.earlier), **({} if every is None else {"every": every}))
        return graph

    def write(self, *sessions: Session) -> list[Path]:
        """The model of all sessions, and what goes with it (moments of z-scores, labelled data that refits go on from),
        each where the graph looks for it."""
        node = self.graph[self.decoder]
        assert isinstance(node, Decoder)
        fresh = dataclasses.replace(node, model="")
        X, Z = (np.concatenate([s.rows[k] for s in sessions]) for k in (1, 2))
        segment = np.concatenate([s.rows[3] + 10**9 * k for k, s in enumerate(sessions)])
        out = Spec(rate=0, channels=LABEL, unit="m/s")
        fresh.fit(X, Z, segment=segment, inputs=sessions[0].features, outputs=out)
        path = self._path()
        about = {"graph": self.graph.name, "data": str(self.folder), "rows": len(X), "data_sha256": digest(X, Z)}
        written = [fresh.save(path, **about)]
        for word in self.scaled:
            z = self.graph[word]
            assert isinstance(z, Zscore)
            written.append(Path(z.model))
            written[-1].parent.mkdir(parents=True, exist_ok=True)
            written[-1].write_bytes(self.models[word].read_bytes())
        sinks = [n for k in self.graph if isinstance(n := self.graph[k], Recalibrate) and n.node == self.decoder]
        for sink in sinks:
            if sink.earlier:
                rows = np.concatenate([s.rows[0] for s in sessions]), X, Z, segment
                written.append(write_labelled(Path(sink.earlier), sessions[0].features, LABEL, rows))
        if not node.model:
            self.notes.append(f"to run it, write into node {self.decoder!r}: model: {path}")
        return written

    def _path(self) -> Path:
        """Where the graph looks for the model of its decoder."""
        return Path(getattr(self.graph[self.decoder], "model", "") or f"models/{self.graph.name}_{self.decoder}.npz")

    def _begins(self) -> None:
        """Raises StreamError for what would be found out only after the open loop: no such regressor, no place for the
        model."""
        node = self.graph[self.decoder]
        assert isinstance(node, Decoder)
        fresh = dataclasses.replace(node, model="")
        fresh.name = self.decoder
        with blame(fresh):
            fresh.check()
            if isinstance(fresh, DKF):
                fresh.regressor()
            home = next(p for p in self._path().absolute().parents if p.exists())
            if not (home.is_dir() and os.access(home, os.W_OK)) or self._path().is_dir():
                raise StreamError(f"model: cannot write {self._path()}: the result would be lost")

    def _record(self, sources: list[str]) -> None:
        """Have what calibration learns from recorded."""
        needed = [*sources, self.task]
        recorders = [p for p in self.graph.places.values() if isinstance(p.node, Record)]
        if not recorders:
            word = _free(self.graph, "record")
            self.graph.add(word, Record(), [*needed, self.decoder], process=word)
            return
        there = {e.source for e in recorders[0].edges}
        missing = [k for k in needed if k not in there]
        if missing:
            word = recorders[0].node.name
            raise StreamError(
                f"node {word!r} (record): in: lacks {', '.join(missing)}: calibration learns from the recording"
            )

    @staticmethod
    def _set(graph: Graph, word: str, **changes: Any) -> None:
        graph.replace(word, dataclasses.replace(graph[word], **changes))


def schedule(text: str) -> list[tuple[float, float]]:
    """ "60:0.8,60:0.5" -> [(60, 0.8), (60, 0.5)]: s, and the share taken away. Raises StreamError."""
    found = []
    for part in text.split(","):
        try:
            seconds, share = map(float, part.split(":"))
            if not (0 < seconds < float("inf") and 0 <= share < 1):
                raise ValueError
        except ValueError:
            raise StreamError(
                f"--assist {part!r}: write SECONDS:SHARE, the share (0 to below 1) taken away, as in 60:0.8,60:0.5"
            ) from None
        found.append((seconds, share))
    return found


def _interrupted(out: rich.console.Console, text: str) -> int:
    out.print(f"interrupted: {text}. The graph's own model is as it was.", highlight=False, soft_wrap=True)
    return INTERRUPTED


def _copy(graph: Graph) -> Graph:
    return from_dict(graph.to_dict(), graph.origin)


def _input(graph: Graph, name: str) -> str:
    return graph.places[name].edges[0].source


def _free(graph: Graph, word: str) -> str:
    """A name that no node has."""
    return next(w for w in (word, *(f"{word}{k}" for k in range(2, 99))) if w not in graph.places)
