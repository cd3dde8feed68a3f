"""Features and labels, paired and kept: what a refit learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.files import load_model, save_model

Rows = tuple[Array, Array, Array, Array]
"""times (T,), features X (T, n), labels Z (T, d), number of the unbroken stretch (T,)."""

PENDING = 1000
"""Samples of one input that wait at most for the other's."""


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
        n, waiting = len(x), self._waiting[i]
        waiting.append((x.times, x.data, x.seq + np.arange(n), np.full(n, x.segment)))
        if any(len(v[0]) for v in self._waiting[1 - i]):
            return
        rows = sum(len(v[0]) for v in waiting)  # the other may never come
        while rows - len(waiting[0][0]) >= PENDING:
            gone = len(waiting.pop(0)[0])
            rows -= gone
            self.unpaired += 0 if i else gone

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

    def realign(self, decoder: Any, recent: int) -> Array:
        """Turn the labels of all but the newest rows by the rotation (d, d) that takes what a decoder gives for these
        closest to their labels, and return it. recent: rows that are new (0: nothing is turned)."""
        times, X, Z, stretch = self.all()
        if not 0 < recent < len(times):
            return np.eye(Z.shape[1])
        R = rotation(decoder.predict(X[-recent:], stretch[-recent:]), Z[-recent:])
        Z[:-recent] = Z[:-recent] @ R.T
        self._kept = [(times, X, Z, stretch)]
        return R

    def all(self) -> Rows:
        """times (T,), X (T, n), Z (T, d), stretch (T,), for `Decoder.fit`."""
        return tuple(map(np.concatenate, zip(*self._kept, strict=True)))  # type: ignore[return-value]


def rotation(Y: Array, Z: Array) -> Array:
    """R (d, d), a rotation, that makes sum |z - R y|^2 over rows of Y and Z (T, d) least; what is not finite is left
    out. Schoenemann, Psychometrika 31:1, 1966."""
    good = np.isfinite(np.hstack([Y, Z])).all(axis=1)
    U, _, V = np.linalg.svd(Z[good].T @ Y[good])
    U[:, -1] *= np.linalg.det(U @ V)
    return np.asarray(U @ V)


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
