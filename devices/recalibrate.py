"""Refit a decoder from its own use, while it is in use."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.files import find, load_model, save_model
from rheobase.stream.node import NotNegative, Positive, Sink, load, nearest

log = logging.getLogger("rheobase")

Rows = tuple[Array, Array, Array, Array]

LABEL = ("intended_x", "intended_y")
"""Channels of a task: what the person is thought to want."""

PENDING = 1000
"""Samples of one input that wait at most for the other's."""

LAST = 1.0
"""s that the end of a run waits for a fit under way."""

NICE = 10
"""Priority of a fit: what decodes and what records go first."""


class Recalibrate(Sink):
    """Learns a decoder anew, every few seconds, from what the person is thought to have wanted meanwhile; the decoder
    goes on with the new model between two samples.

        recal: {type: recalibrate, in: [rates, task], node: cursor, process: recal}

    Inputs: the features that the decoder gets, and a stream with a row for each of them, at its very time, in which
    is the label (`intended_x`, `intended_y` of a task). A row where nothing is wanted (label 0) is learnt from as
    well: without it a decoder has never seen rest, and does not come to it.

    The fit runs beside the stream, at a low priority; where one takes longer than `every`, the next waits for
    it. One that fails is logged and counted, and the old model stays. Each model is written into the run directory
    (models/NODE-001.npz, ...), and the run's log says at which sample it took over, so that a replay does the same.

    Labels from intention: Gilja et al., Nat Neurosci 15:1752, 2012; a refit every 2 to 5 s in use: Brandman et al.,
    J Neural Eng 15:026007, 2018.

    Errors: no such node in the graph, or none that is learnt; not its features; no such label; the same process as
    that node's, where the graph has several (a fit would hold up what it decodes).
    """

    node: str
    """Name of the decoder to refit."""
    every: Positive = 5.0
    """Time between two refits, s of the stream."""
    least: Positive = 10.0
    """Labelled time before the first refit, s."""
    window: NotNegative = 180.0
    """Most recent labelled time that is learnt from, s; 0: all since the start."""
    label: tuple[str, ...] = LABEL
    """Channels of the second input that the decoder should give."""
    earlier: str = ""
    """Labelled data of before (.npz, `write_labelled`), as if it had come just before the start."""
    keep: bool = True
    """Keep the hyper-parameters (penalty, bandwidth, epochs) of the model that the run began with: faster."""

    def check(self) -> None:
        if self.config:
            self._decoder()

    def start(self, *inputs: Spec) -> None:
        if len(inputs) != 2:
            raise StreamError(f"in: takes [features, task], got {len(inputs)}")
        x, task = inputs
        self.columns = [self._column(task, word) for word in self.label]
        if x.dtype == "str" or task.dtype == "str":
            raise StreamError("in: takes numbers, and an input is text")
        if x.rate == 0 or task.rate != x.rate:
            raise StreamError(f"in: one row for each sample of features: rates {x.rate:g} and {task.rate:g} Hz differ")
        if self.folder is None:
            raise StreamError("needs a run directory to put its models in")
        self.kind, self.values = self._decoder()
        if not self.values["model"]:
            raise StreamError(f"node: {self.node!r} has no model to begin with: fit it (rheo fit, rheo calibrate)")
        arrays, header = load_model(find(self.values["model"]))
        self.like = {k: a.astype(np.float64) for k, a in arrays.items()} if self.keep else None
        self.out = Spec(rate=0, channels=tuple(header["out"]["channels"]), unit=header["out"]["unit"])
        if self.out.n != len(self.label):
            raise StreamError(f"label: {self.node!r} gives {self.out.n} channels, {', '.join(self.label)} are not")
        self.x = x
        self.labelled = Labelled(self.columns, round(self.window * x.rate))
        if self.earlier:
            self.labelled.add(*read_labelled(find(self.earlier), x, self.label))
        self.due, self.newest = 0.0, -np.inf
        self.refits = self.swaps = self.failed = 0
        self.seconds = 0.0
        self.ended = False
        self.lock = threading.Lock()
        self.fitting: threading.Thread | None = None

    def take(self, i: int, x: Block) -> None:
        self.labelled.take(i, x)
        if i == 0 or not len(x):
            return
        now = float(x.times[-1])
        if now < self.newest:  # a clock was set back
            self.due += now - self.newest
        self.due = self.due or now + self.least - self.labelled.rows / self.x.rate
        self.newest = now
        if now < self.due or (self.fitting and self.fitting.is_alive()):
            return
        self.due = now + self.every
        self.labelled.pair()
        if not self.labelled.rows:
            return
        self.fitting = threading.Thread(target=self._refit, args=(self.labelled.all(),), daemon=True)
        self.fitting.start()

    def stop(self) -> None:
        if not hasattr(self, "lock"):
            return
        with self.lock:
            self.ended = True
        if self.fitting:
            self.fitting.join(LAST)

    @property
    def health(self) -> dict[str, Any]:
        """Refits, those that took over, those that failed; rows learnt from, rows without a label; s of the last."""
        if not hasattr(self, "lock"):
            return {}
        given = self.labelled
        return {
            "refits": self.refits,
            "swaps": self.swaps,
            "failed": self.failed,
            "rows": given.rows,
            "unpaired": given.unpaired,
            "fit_s": round(self.seconds, 3),
        }

    def _refit(self, rows: Rows) -> None:
        """Fit, try, write, and have it swapped in. In a thread of its own."""
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        self.refits += 1
        number = self.refits
        begin = time.perf_counter()
        try:
            times, X, Z, stretch = rows
            made = self.kind.make(**self.values | {"model": ""})
            made.fit(X, Z, segment=stretch, inputs=self.x, outputs=self.out, like=self.like)
            made.start(self.x)  # what cannot run must not take over
            path = (self.folder or Path()) / "models" / f"{self.node}-{number:03d}.npz"
            span = [float(times[0]), float(times[-1])]
            made.save(path, rows=len(X), times=span, refit=number, labels=list(self.label), earlier=self.earlier)
            with self.lock:
                if not self.ended:
                    self.tell({"swap": {"node": self.node, "model": str(path)}})
                    self.swaps += 1
        except Exception as e:  # noqa: BLE001 whatever it is, the decoder that runs is not touched
            self.failed += 1
            log.warning("%s: refit %d of %r failed: %s", self.name, number, self.node, e)
        finally:
            self.seconds = time.perf_counter() - begin

    def _column(self, task: Spec, word: str) -> int:
        if word not in task.channels:
            there = f"there is {', '.join(task.channels)}" if task.n <= 12 else f"it has {task.n} channels"
            close = nearest(word, task.channels)
            where = f" (in: {self.inputs[1]})" if len(self.inputs) == 2 else ""
            raise StreamError(f"label: no channel {word!r}{close if 'mean' in close else f'; {there}'}{where}")
        return task.channels.index(word)

    def _decoder(self) -> tuple[Any, dict[str, Any]]:
        """Class and parameters of the node to refit. Raises StreamError. (Other types are loaded only for that.)"""
        nodes = self.config["nodes"]
        entry = dict(nodes.get(self.node, {}))
        kind: Any = load(entry["type"]) if entry else None
        if not hasattr(kind, "fit"):
            learnt = [k for k, e in nodes.items() if hasattr(load(e["type"]), "fit")]
            what = f"{self.node!r} ({entry['type']}) is not learnt" if entry else f"no node {self.node!r}"
            raise StreamError(f"node: {what}{nearest(self.node, learnt)}")
        label, theirs = (e.get("process", "main") for e in (nodes[self.name], entry))
        if label == theirs and len({e.get("process", "main") for e in nodes.values()}) > 1:
            raise StreamError(f"process: {label!r} decodes with {self.node!r}: give the refits a process of their own")
        features = [e if isinstance(e, str) else e["from"] for e in entry["in"]]
        if self.inputs and self.inputs[0] != features[0]:
            raise StreamError(f"in: the first is {self.inputs[0]!r}, and {self.node!r} decodes {features[0]!r}")
        return kind, {k: v for k, v in entry.items() if k not in ("type", "in", "process")}


class Labelled:
    """Features and labels, paired by equal times.

    columns  of the task's rows: the label
    most     rows kept, the newest (0: all)
    """

    def __init__(self, columns: Sequence[int], most: int = 0) -> None:
        self.columns, self.most = list(columns), most
        self.rows = self.unpaired = 0
        self._waiting: tuple[list[Rows], list[Rows]] = ([], [])
        self._kept: list[Rows] = []
        self._next, self._stretch = (-1, -1), -1

    def take(self, i: int, x: Block) -> None:
        """A block of features (i = 0) or of the task (i = 1)."""
        n = len(x)
        self._waiting[i].append((x.times, x.data, x.seq + np.arange(n), np.full(n, x.segment)))

    def pair(self) -> None:
        """Put together what has come of both. A sample that can get no partner any more is counted as unpaired."""
        if not all(self._waiting):
            return
        x, z = (tuple(map(np.concatenate, zip(*w, strict=True))) for w in self._waiting)
        _, a, b = np.intersect1d(x[0], z[0], return_indices=True)
        order = np.argsort(a)  # of coming, which is that of time unless a clock was set back
        a, b = a[order], b[order]
        ends = [int(k[-1]) + 1 if len(k) else max(0, len(v[0]) - PENDING) for k, v in ((a, x), (b, z))]
        self.unpaired += ends[0] - len(a)
        self._waiting = tuple([tuple(v[k:] for v in w)] for k, w in zip(ends, (x, z), strict=True))  # type: ignore[assignment]
        if not len(a):
            return
        times, X, seq, segment = (v[a] for v in x)
        before = np.array([self._next, *zip(seq + 1, segment, strict=True)][:-1])
        stretch = self._stretch + np.cumsum((before != np.stack([seq, segment], axis=1)).any(axis=1))
        self._next = int(seq[-1]) + 1, int(segment[-1])
        self.add(times, X.astype(np.float64), z[1][b][:, self.columns].astype(np.float64), stretch)

    def add(self, times: Array, X: Array, Z: Array, stretch: Array) -> None:
        """Rows that are paired already, newer than all that are there."""
        self._kept.append((times, X, Z, stretch))
        self._stretch = int(stretch[-1])
        self.rows += len(times)
        while self.most and self.rows > self.most:
            extra = min(self.rows - self.most, len(self._kept[0][0]))
            self._kept[0] = tuple(v[extra:] for v in self._kept[0])  # type: ignore[assignment]
            self.rows -= extra
            if not len(self._kept[0][0]):
                self._kept.pop(0)

    def all(self) -> Rows:
        """times (T,), X (T, n), Z (T, d), stretch (T,), for `Decoder.fit`."""
        return tuple(map(np.concatenate, zip(*self._kept, strict=True)))  # type: ignore[return-value]


def write_labelled(path: Path, x: Spec, label: Sequence[str], rows: Rows) -> Path:
    """A file of labelled data for `earlier`; rows with a value that is not finite are left out."""
    times, X, Z, stretch = rows
    good = np.isfinite(np.hstack([X, Z])).all(axis=1)
    stretch = (stretch + np.cumsum(~good))[good]  # what is left out ends a stretch
    header = {"node": "labelled", "in": _plain(x), "out": {"channels": list(label)}}
    return save_model(path, {"times": times[good], "X": X[good], "Z": Z[good], "stretch": stretch}, header)


def read_labelled(path: Path, x: Spec, label: Sequence[str]) -> Rows:
    """What `write_labelled` wrote. Raises StreamError where it is no such file, or of other features or labels."""
    arrays, header = load_model(path)
    if header["node"] != "labelled":
        raise StreamError(f"earlier: {path} holds no labelled data: it is of a {header['node']!r}")
    if header["in"] != _plain(x) or header["out"]["channels"] != list(label):
        raise StreamError(f"earlier: {path} is of other features or labels")
    return arrays["times"], arrays["X"], arrays["Z"], arrays["stretch"]


def _plain(x: Spec) -> dict[str, Any]:
    return {"rate": x.rate, "channels": list(x.channels), "unit": x.unit}
