"""`rheo fit` and `rheo eval`: learn the decoders of a graph from a recording, and score them on held-out time.

The `eval` table of the config says what is the truth and which time is held out: see `protocol.py`. The graph above
the decoders runs once over the whole recording. Truth is interpolated to the times of the features, never over a gap.
Decoders start afresh at the first test sample. One that can tell its covariance is scored on that, too. What learns
without a truth (`Decoder.unsupervised`) is scored by how likely the held-out samples are: see `likelihood.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.console
import rich.progress
from numpy.typing import NDArray

from rheobase.devices.replay import Replay, streams
from rheobase.nodes._decoder import Decoder
from rheobase.nodes._sequence import SequenceModel
from rheobase.nodes.dkf import DKF
from rheobase.nodes.kalman import Kalman
from rheobase.nodes.ridge import Ridge
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.engine import Engine
from rheobase.stream.files import digest, find
from rheobase.stream.graph import Graph
from rheobase.stream.node import Source, blame, nearest, type_name
from rheobase.stream.run import new_folder
from rheobase.tools.coverage import coverage, nees
from rheobase.tools.likelihood import Likelihoods, compare
from rheobase.tools.page import scores_page
from rheobase.tools.protocol import Protocol, protocol_of, wrong
from rheobase.tools.replay import onto, recording, straight
from rheobase.tools.scores import LEVELS, METRICS, Row, Scores, log_score, resampled

F = NDArray[np.float64]


@dataclasses.dataclass
class Gathered:
    """All that one node gave: data (T, c) at times (T,) s, each row in a segment (T,)."""

    spec: Spec
    data: F
    times: F
    segment: NDArray[np.int64]


def evaluate(graph: Graph, folder: Path | None = None) -> Scores:
    """Fit and score every decoder of a graph by its `eval` table; scores.json, decoded.png and scores.html go to the
    folder (None: a new one under runs/).

    The graph's own decoders and their model files stay as they are. Raises StreamError.
    """
    decoders = {k: p.node for k, p in graph.places.items() if isinstance(p.node, Decoder) and p.node.judged}
    if not decoders:
        raise StreamError(f"{graph.origin or graph.name}: no node to evaluate: none of its nodes is a decoder")
    protocol = protocol_of(graph)
    for name in protocol.figure:
        if name not in decoders:
            raise wrong(graph, f"figure: no decoder {name!r}{nearest(name, decoders)}")
    with progress() as bar:
        gathered = gather(graph, [*(input_of(graph, n) for n in decoders), protocol.truth], bar)
        splits = {n: split(graph, protocol, gathered, input_of(graph, n)) for n in decoders}
        folder = folder or new_folder(f"{graph.name}-eval")
        folder.mkdir(parents=True, exist_ok=True)  # where it cannot be, that is said before the work
        scores = _scores(graph, protocol, splits[next(iter(splits))])
        task = bar.add_task("fit", total=len(decoders) * protocol.seeds)
        say = functools.partial(_say, bar, task)
        for name, node in decoders.items():
            seeds = range(protocol.seeds) if "seed" in node.parameters() else [None]
            fits = []
            for seed in seeds:
                bar.update(task, description=f"fit {name}")
                change: dict[str, Any] = {"model": ""} if seed is None else {"model": "", "seed": seed}
                change |= {"resume": ""} if "resume" in node.parameters() else {}  # one file is of one fit
                fits.append(_score(name, dataclasses.replace(node, **change), splits[name], protocol.metrics, say))
                bar.advance(task, protocol.seeds / len(seeds))
            scores.rows.append(_merged(fits))
    scores.draw(folder / "decoded.png")
    (folder / "scores.json").write_text(json.dumps(scores.to_dict(), indent=1))
    scores.notes.append(f"page: {scores_page(scores, folder / 'scores.html')}")
    return scores


def fit(graph: Graph, name: str, on: str | None = None) -> Scores | Likelihoods:
    """Fit one decoder of a graph, score it on held-out time beside plain ones, and write its model file, and the
    scores beside it as a page.

    on  a run directory or a recording, whose streams take the place of the sources of the same name (default: the
        recorded sources that the graph has), and of what the truth comes by that the decoder itself moves: the task
        of a closed loop

    Without `train` and `test` in the `eval` table, the last fifth of the recording is held out. What is written is
    what was scored. Raises StreamError.
    """
    node = graph[name]
    if not isinstance(node, Decoder):
        decoders = [k for k, p in graph.places.items() if isinstance(p.node, Decoder)]
        raise StreamError(f"node {name!r} ({type_name(type(node))}) is not learnt{nearest(name, decoders)}")
    if node.unsupervised:
        return _fit_alone(graph, name, node, on)
    protocol = protocol_of(graph)
    source = input_of(graph, name)
    moved = [k for k in graph.above(protocol.truth) if k != name and name in graph.above(k).places]
    if on is not None:
        file = find(on)
        file = recording(file)[1] if file.is_dir() else file
        onto(graph, file, [k for k in moved if k in streams(str(file), salvage=True)])
    if name in graph.above(protocol.truth).places:
        give = f"in {on} there is none of {', '.join(moved)}" if on else "give the recording of a run (--on RUN)"
        way = f", or fit it by `rheo calibrate {graph.origin or graph.name}`"
        raise wrong(graph, f"truth: {protocol.truth!r} comes of {name!r} itself: {give}{way}")
    if on is not None:
        live = graph.above(source, protocol.truth)
        onto(graph, file, [k for k in live if isinstance(graph[k], Source) and k not in moved])
    if not node.judged:
        return _fit_unjudged(graph, protocol, name, node, on)
    rivals: dict[str, Decoder] = {"ridge, 1 lag": Ridge(), "ridge, 5 lags": Ridge(lags=5)}
    if isinstance(node, DKF):
        with blame(node):
            f = node.regressor()
        known = [(type(r), r.settings()) for r in rivals.values()]
        if (type(f), f.settings()) not in known:
            rivals[f"{type_name(type(f))}, unfiltered"] = f
        rivals["kalman"] = Kalman()
    with progress() as bar:
        rows = split(graph, protocol, gather(graph, [source, protocol.truth], bar), source)
        scores = _scores(graph, protocol, rows)
        task = bar.add_task("fit", total=len(rivals) + 1)
        say = functools.partial(_say, bar, task)
        for word, decoder in {name: node, **rivals}.items():
            bar.update(task, description=f"fit {word}")
            row = _score(word, decoder, rows, protocol.metrics, say)
            if word == name or (type(decoder), decoder.settings()) != (type(node), node.settings()):
                scores.rows.append(row)
            bar.advance(task)
    held_out = scores.to_dict()[name] | {"rows": len(rows.Z_test)}
    path = _save(graph, name, node, scores.notes, on, [rows.X, rows.Z], held_out)
    scores.notes.append(f"page: {scores_page(scores, path.with_suffix('.html'))}")
    return scores


def _fit_unjudged(graph: Graph, protocol: Protocol, name: str, node: Decoder, on: str | None) -> Scores:
    """The same for one that learns from a truth, but gives no estimate of it (health, regime_scale): without scores."""
    source = input_of(graph, name)
    with progress() as bar:
        rows = split(graph, protocol, gather(graph, [source, protocol.truth], bar), source)
    with blame(node):
        node.fit(rows.X, rows.Z, segment=rows.segment, inputs=rows.features, outputs=rows.truth)
    scores = Scores(graph.name, protocol.metrics)
    scores.notes.append(f"{type_name(type(node))} gives no estimate of {protocol.truth!r}: there is nothing to score")
    _save(graph, name, node, scores.notes, on, [rows.X, rows.Z], {})
    return scores


def _fit_alone(graph: Graph, name: str, node: Decoder, on: str | None) -> Likelihoods:
    """The same for a decoder that learns without a truth: scored by the likelihood of held-out time."""
    protocol, source = protocol_of(graph, truth=False), input_of(graph, name)
    if on is None:
        straight(graph)
        source = input_of(graph, name)
    else:
        file = find(on)
        file = recording(file)[1] if file.is_dir() else file
        onto(graph, file, [k for k in graph.above(source) if isinstance(graph[k], Source)])
    with progress() as bar:
        x = gather(graph, [source], bar)[source]
        train, test = _parts(graph, protocol, elapsed(x) - x.times[0], np.asarray(np.isfinite(x.data).any(axis=1)))
        task = bar.add_task(f"fit {name}", total=None)
        with blame(node):
            scores = compare(
                graph.name, name, node, x.spec, x.data[train], x.segment[train], x.data[test], x.segment[test],
                x.times[test], lambda word: bar.update(task, description=word),
            )  # fmt: skip
    _save(graph, name, node, scores.notes, on, [x.data[train]], scores.to_dict()[name] | {"rows": int(test.sum())})
    return scores


def _save(
    graph: Graph, name: str, node: Decoder, notes: list[str], on: str | None, learnt: list[F], held_out: dict[str, Any]
) -> Path:
    """Write the model file of a node, with where it came from; say so in the notes."""
    config = json.dumps(graph.to_dict(), sort_keys=True, default=str)
    path = node.save(
        node.model or f"models/{graph.name}_{name}.npz",
        graph=graph.name,
        config_sha256=hashlib.sha256(config.encode()).hexdigest(),
        data_sha256=digest(*learnt),
        data=on or {k: p.node.file for k, p in graph.places.items() if isinstance(p.node, Replay)},
        rows=len(learnt[0]),
        held_out=held_out,
    )
    notes.append(f"wrote {path}")
    if not node.model:
        notes.append(f"to run it, write into node {name!r}: model: {path}")
    return path


def gather(graph: Graph, names: Sequence[str], bar: rich.progress.Progress | None = None) -> dict[str, Gathered]:
    """Run the part of a graph above some nodes over its recorded sources: all that each of them gave.

    Raises StreamError where a source is live or a node gave nothing.
    """
    names = list(dict.fromkeys(names))
    part = graph.above(*names)
    for word, place in part.places.items():
        if isinstance(place.node, Source) and place.node.live:
            raise StreamError(f"node {word!r} is live: give the recording to learn from (--on RUN|FILE)")
    got: dict[str, list[Block]] = {n: [] for n in names}
    engine = Engine(part, taps={n: got[n].append for n in names})
    task = bar.add_task("run the graph over the recording", total=None) if bar else None
    engine.start()
    engine.run()
    if bar and task is not None:
        bar.update(task, total=1, completed=1)
    found = {}
    for name, blocks in got.items():
        spec = engine.specs[name]
        if not blocks:
            raise StreamError(f"node {name!r} gave nothing over the whole recording")
        if spec.dtype == "str":
            raise StreamError(f"node {name!r} gives text: a decoder takes and gives numbers")
        found[name] = Gathered(
            spec,
            np.concatenate([b.data for b in blocks]).astype(float),
            np.concatenate([b.times for b in blocks]),
            np.concatenate([np.full(len(b), b.segment) for b in blocks]),
        )
    return found


def passes(times: F, segment: NDArray[np.int64]) -> NDArray[np.int64]:
    """(T,) how often the clock was set back before each row: times go back only from one segment to the next."""
    back = (np.diff(times) < 0) & (np.diff(segment) != 0)
    return np.concatenate([[0], np.cumsum(back)])


def aligned(truth: Gathered, times: F, segment: NDArray[np.int64] | None = None) -> F:
    """Truth (T, d) at these times (T,), its own delay undone: linear between samples of one segment, else NaN.

    segment (T,): that of each row. With it, times that come twice, since a clock was set back, are told apart; raises
    StreamError where it was not for both.
    """
    Z = np.full((len(times), truth.spec.n), np.nan)
    theirs = passes(truth.times, truth.segment)
    mine = theirs[:1].repeat(len(times)) if segment is None else passes(times, segment)
    if segment is not None and mine[-1] != theirs[-1]:
        raise StreamError(f"a clock was set back {mine[-1]} times in the features, {theirs[-1]} times in the truth")
    for k in np.unique(truth.segment):
        there = truth.segment == k
        t = truth.times[there] - truth.spec.delay
        inside = (times >= t[0]) & (times <= t[-1]) & ((mine == theirs[there][0]) | (segment is None))
        for c in range(truth.spec.n):
            Z[inside, c] = np.interp(times[inside], t, truth.data[there, c])
    return Z


def elapsed(x: Gathered) -> F:
    """Times that go on where a clock was set back."""
    back = np.where(np.diff(passes(x.times, x.segment)), -np.diff(x.times), 0.0)
    return np.asarray(x.times + np.concatenate([[0.0], np.cumsum(back)]))


@dataclasses.dataclass
class Split:
    """Features and truth of the train part and of the test part, of one input."""

    features: Spec
    truth: Spec
    X: F
    Z: F
    segment: NDArray[np.int64]
    X_test: F
    Z_test: F
    segment_test: NDArray[np.int64]
    times: F


def split(graph: Graph, protocol: Protocol, gathered: dict[str, Gathered], source: str) -> Split:
    """The rows of node `source` with their truth, parted. Raises StreamError where a part is empty, or they overlap."""
    x, truth = gathered[source], gathered[protocol.truth]
    Z = aligned(truth, x.times, x.segment)
    t = elapsed(x) - min(g.times[0] for g in gathered.values())
    train, test = _parts(graph, protocol, t, np.asarray(np.isfinite(Z).all(axis=1)))
    if "maae" in protocol.metrics and truth.spec.n != 2:
        raise wrong(graph, f"metrics: maae is an angle in a plane, and {protocol.truth!r} has {truth.spec.n} channels")
    return Split(
        x.spec, truth.spec, x.data[train], Z[train], x.segment[train],
        x.data[test], Z[test], x.segment[test], x.times[test],
    )  # fmt: skip


def _parts(graph: Graph, protocol: Protocol, t: F, there: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    """Which samples, at t (T,) s, to learn from and to test on; `there`: those with a truth. Raises StreamError."""
    edge = float(t[0] + 0.8 * (t[-1] - t[0]))
    parts = []
    for word, given, default in (("train", protocol.train, (0.0, edge)), ("test", protocol.test, (edge, math.inf))):
        a, b = given or default
        rows = (t >= a - 1e-6) & (t < b - 1e-6)  # times are sums of periods: 1 us is none of them
        lasts = f"the recording lasts {t[-1]:.1f} s"
        if not there[rows].any():
            raise wrong(graph, f"{word}: [{a:g}, {b:g}] s holds no sample with truth: {lasts}")
        if given and (a < 0 or b > t[-1] + 1):  # its end may be rounded up
            raise wrong(graph, f"{word}: [{a:g}, {b:g}] s is not all there: {lasts}")
        parts.append(rows)
    train, test = parts
    if (train & test).any():
        raise wrong(graph, f"train and test overlap: {int((train & test).sum())} samples are in both")
    return train, test


def _scores(graph: Graph, protocol: Protocol, rows: Split) -> Scores:
    """The scores of a graph, still without decoders."""
    scores = Scores(graph.name, protocol.metrics, protocol.figure)
    scores.spec, scores.times, scores.Z, scores.config = rows.truth, rows.times, rows.Z_test, graph.to_dict()
    there = np.isfinite(rows.Z_test).all(axis=1)
    mean = np.tile(np.nanmean(rows.Z, axis=0), (int(there.sum()), 1))
    scores.floor = {m: METRICS[m][1](mean, rows.Z_test[there]) for m in protocol.metrics}
    return scores


def _score(
    name: str, node: Decoder, rows: Split, metrics: Sequence[str], told: Callable[[str], None] = lambda word: None
) -> Row:
    """Fit a decoder and score it; told: hears how far the learning has come, where it goes by epochs."""
    if isinstance(node, SequenceModel):
        node.told = lambda epoch, epochs, error: told(f"fit {name}: epoch {epoch}, error {error:.3g}")
    began = time.perf_counter()
    try:
        node.fit(rows.X, rows.Z, segment=rows.segment, inputs=rows.features, outputs=rows.truth)
        seconds = time.perf_counter() - began
        Y, Sigma = decoded(node, rows, rows.X_test)
    except StreamError as e:
        raise StreamError(f"node {name!r} ({type_name(type(node))}): {e}") from None
    there = np.isfinite(np.hstack([Y, rows.Z_test])).all(axis=1)
    due = sum(int(n) // getattr(node, "every", 1) for n in np.unique(rows.segment_test, return_counts=True)[1])
    scores = {m: [METRICS[m][1](Y[there], rows.Z_test[there])] for m in metrics}
    draws = {m: resampled(METRICS[m][1], Y, rows.Z_test, rows.times) for m in metrics}
    row = Row(name, _what(node), scores, seconds, max(0, due - int(there.sum())), Y, draws)
    if Sigma is not None:
        held = coverage(rows.Z_test, Y, Sigma, [level / 100 for level in LEVELS])
        row.coverage = {round(100 * p): 100 * share for p, share in held.items()}
        row.nees, row.log_score = nees(rows.Z_test, Y, Sigma), log_score(rows.Z_test, Y, Sigma)
    return row


def decoded(node: Decoder, rows: Split, X: F) -> tuple[F, F | None]:
    """What a decoder estimates of z (T, d) in the test part, from features X, at its time; and its covariance."""
    d, Sigma = rows.Z_test.shape[1], None
    posterior = getattr(node, "posterior", None)
    if callable(posterior):
        Y, Sigma = posterior(X, rows.segment_test)
    else:
        Y = node.estimate(node.predict(X, rows.segment_test), d)
    return at_its_time(Y, getattr(node, "lookahead", 0), rows.segment_test), Sigma


def at_its_time(Y: F, lookahead: int, segment: NDArray[np.int64]) -> F:
    """Each estimate in the row of the sample that it is of, where it comes so many samples later."""
    if not lookahead:
        return Y
    moved = np.full_like(Y, np.nan)
    same = segment[lookahead:] == segment[:-lookahead]
    moved[:-lookahead][same] = Y[lookahead:][same]
    return moved


def _merged(rows: Sequence[Row]) -> Row:
    first = rows[0]
    return dataclasses.replace(
        first,
        scores={m: [s for r in rows for s in r.scores[m]] for m in first.scores},
        seconds=sum(r.seconds for r in rows) / len(rows),
        draws={m: np.mean([r.draws[m] for r in rows], axis=0) for m in first.draws},
        coverage={k: float(np.mean([r.coverage[k] for r in rows])) for k in first.coverage},
        nees=float(np.mean([r.nees for r in rows])),
        log_score=float(np.mean([r.log_score for r in rows])),
    )


def _what(node: Decoder) -> str:
    """Its type, its regressor, and the parameters that are not as usual."""
    usual = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default for f in dataclasses.fields(node)}
    given = node.settings() | {k: getattr(node, k) for k in node.adjustable}
    silent = ("seed", "model", "covariance")  # they do not change what is decoded, or change it by chance
    words = [
        f"{k} {_word(v)}" if v is not True else k
        for k, v in given.items()
        if k == "f" or (v != usual[k] and k not in silent)
    ]
    return f"{type_name(type(node))}{': ' if words else ''}{', '.join(words)}"


def _word(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    more = ", ".join(k if v is True else f"{k} {v}" for k, v in value.items() if k != "type")
    return f"{value.get('type', '')} ({more})" if more else str(value.get("type", ""))


def input_of(graph: Graph, name: str) -> str:
    """The node that a decoder listens to."""
    return graph.places[name].edges[0].source


def _say(bar: rich.progress.Progress, task: rich.progress.TaskID, word: str) -> None:
    bar.update(task, description=word)


def progress() -> rich.progress.Progress:
    """A bar on a terminal, nothing elsewhere."""
    console = rich.console.Console(stderr=True)
    return rich.progress.Progress(console=console, transient=True, disable=not console.is_terminal)
