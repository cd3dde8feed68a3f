"""Refit a decoder from its own use, while it is in use."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.devices._labelled import Labelled, read_labelled
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.files import find, load_model
from rheobase.stream.node import NotNegative, Positive, Sink, load, nearest

log = logging.getLogger("rheobase")

LABEL = ("intended_x", "intended_y")
"""Channels of a task: what the person is thought to want."""

LAST = 1.0
"""s that the end of a run waits for a fit under way."""

NICE = 10
"""Priority of a fit: what decodes and what records go first."""


class Recalibrate(Sink):
    """Learns a decoder anew, every few seconds, from what the person is thought to have wanted meanwhile; the decoder
    goes on with the new model between two samples.

        recal: {type: recalibrate, in: [rates, task], node: cursor, process: recal}

    Inputs: the features that the decoder gets, and a stream with a row for each of them, at its very time, in which
    is the label (`intended_x`, `intended_y` of a task). Rows where nothing is wanted (label 0) are learnt from like any
    other, so that rest is learnt, too.

    Where all tuning turns at once (the arrays have shifted, the person thinks of it otherwise), what was learnt before
    need not be forgotten: of z wanted, x is what it was of R^-1 z, so a row (x, z) of before is now one of (x, R z).
    R is the rotation that takes what the present model decodes closest to what was wanted in the last `realign` s,

        R = argmin sum |z - R f(x)|^2 = U diag(1, .., 1, det(U V')) V',   U D V' = sum z f(x)'

    (Schoenemann, Psychometrika 31:1, 1966), and the labels of all older rows are turned by it before each refit.

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
    realign: NotNegative = 15.0
    """Most recent time by which the labels of older rows are turned, s; 0: they stay as they are."""
    label: tuple[str, ...] = LABEL
    """Channels of the second input that the decoder should give."""
    earlier: str = ""
    """File of labelled data to go on from, as if it had come just before the start: `rheo calibrate` writes it here."""
    keep: bool = True
    """Keep the hyper-parameters (penalty, bandwidth, epochs) of the model that the run began with: faster."""

    def check(self) -> None:
        self._earlier()
        if not self.config:
            return
        _, values = self._decoder()
        self._begins(values)
        self._two(len(self.config["nodes"][self.name].get("in", [])))

    def start(self, *inputs: Spec) -> None:
        self._two(len(inputs))
        x, task = inputs
        self.columns = [self._column(task, word) for word in self.label]
        if x.dtype == "str" or task.dtype == "str":
            raise StreamError("in: takes numbers, and an input is text")
        if x.rate == 0 or task.rate != x.rate:
            raise StreamError(f"in: one row for each sample of features: rates {x.rate:g} and {task.rate:g} Hz differ")
        if self.folder is None:
            raise StreamError("needs a run directory to put its models in")
        self.kind, self.values = self._decoder()
        self._begins(self.values)
        arrays, header = load_model(find(self.values["model"]))
        self.like = {k: a.astype(np.float64) for k, a in arrays.items()} if self.keep else None
        self.decoder = self.kind.make(**self.values)
        self.decoder.start(x)
        self.out = Spec(rate=0, channels=tuple(header["out"]["channels"]), unit=header["out"]["unit"])
        if self.out.n != len(self.label):
            raise StreamError(f"label: {self.node!r} gives {self.out.n} channels, {', '.join(self.label)} are not")
        self.x = x
        self.labelled = Labelled(self.columns, round(self.window * x.rate))
        if path := self._earlier():
            self.labelled.add(*read_labelled(path, x, self.label))
        self.due, self.newest = 0.0, -np.inf
        self.refits = self.swaps = self.failed = 0
        self.seconds = self.turned = 0.0
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
        self.fitting = threading.Thread(target=self._refit, daemon=True)
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
        """Refits, those that took over, those that failed; rows learnt from, rows without a label; of the last refit
        how long it took, s, and by how much older labels were turned, degrees."""
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
            "turned_deg": round(self.turned, 1),
        }

    def _refit(self) -> None:
        """Fit, try, write, and have it swapped in. In a thread of its own, during which no rows are added."""
        with contextlib.suppress(OSError, AttributeError):  # where threads have no priority of their own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        self.refits += 1
        number = self.refits
        begin = time.perf_counter()
        try:
            R = self.labelled.realign(self.decoder, round(self.realign * self.x.rate))
            self.turned = math.degrees(math.acos(min(1.0, max(-1.0, (np.trace(R) - self.out.n + 2) / 2))))
            times, X, Z, stretch = self.labelled.all()
            made = self.kind.make(**self.values | {"model": ""})
            made.fit(X, Z, segment=stretch, inputs=self.x, outputs=self.out, like=self.like)
            made.start(self.x)  # what cannot run must not take over
            path = (self.folder or Path()) / "models" / f"{self.node}-{number:03d}.npz"
            span = [float(times[0]), float(times[-1])]
            made.save(path, rows=len(X), times=span, refit=number, turned=R.tolist(), earlier=self.earlier)
            self.decoder = made
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

    def _earlier(self) -> Path | None:
        try:
            return find(self.earlier) if self.earlier else None
        except StreamError as e:
            raise StreamError(f"earlier: {e}") from None

    def _two(self, n: int) -> None:
        if n != 2:
            raise StreamError(f"in: takes [features, task], got {n}")

    def _begins(self, values: dict[str, Any]) -> None:
        if not values["model"]:
            raise StreamError(f"node: {self.node!r} has no model to begin with: fit it (rheo fit, rheo calibrate)")

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
        values = {k: v for k, v in entry.items() if k not in ("type", "in", "process")}
        if not getattr(kind.make(**values), "replaceable", True):
            raise StreamError(f"node: {self.node!r} ({entry['type']}) takes no other model while it runs")
        return kind, values
