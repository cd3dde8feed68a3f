"""Read a recording: XDF, CSV, npz, npy, MATLAB or a video tracker's, with the segments, times and bits of the file.

Nothing is resampled, straightened or filled in. What counts as a segment:

- a recording of `record`: what it says itself, with sequence numbers; times and samples to the bit;
- another XDF file: each clock reset that its ClockOffsets show (pyxdf finds them and adds the offsets to the stamps;
  its de-jittering stays off), and each gap or step back in the stamps;
- a table or array with times: each gap or step back; without times there is one segment, from 0 s on;
- times of events: one segment. They are counted into samples of `rate`:
  {type: replay, file: spikes.mat, events: spikes, rate: 1000}, or
  {type: replay, file: spikes.csv, events: unit, times: time, rate: 1000}.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from rheobase.devices import _events, _tables, _xdf
from rheobase.devices._tables import Stream, Times, rate_of
from rheobase.stream.block import Array, Block, Spec, StreamError
from rheobase.stream.files import find
from rheobase.stream.node import Count, NotNegative, Source, nearest

Start = tuple[int, int, int]
"""Index, seq and segment of the sample where a segment starts."""


class Replay(Source):
    """Gives the samples of one stream of a file, as fast as they are asked for.

    `health` counts the samples with a value that is not finite.

    Raises StreamError that names the file: no such file, stream or channel; a format not known; a file that is cut
    short or damaged (and how many samples before that are whole); a shape or dtype that is no stream.
    """

    live: ClassVar[bool] = False

    file: str
    """The recording: a path, or "data:set/file" for recorded data by name."""
    stream: str = ""
    """Name of the stream, or of the array in an npz or mat file. May be left out where there is one."""
    times: str = ""
    """Name of the array or column that holds the time of each sample, s. Without names: the column's number."""
    events: str = ""
    """The file holds times of events (spikes) and no samples: the array of a mat file with the times of each unit in
    a cell or struct, or the column of a table with the number of the unit that an event is of. Sample k then holds how
    many events of each unit came in the 1/rate s up to its time k/rate."""
    by: str = ""
    """The file holds one unit after the other, and this column says which a sample is of: then the samples of all come
    in order of time (`times`), those of one moment in that of the file, with that column first, as `unit` (`fleet`)."""
    rate: NotNegative = 0.0
    """Sampling rate, Hz. 0: as the file says, or as regular times show."""
    channels: tuple[str, ...] = ()
    """Channels to take, in this order; none: all. For a file without names: the names of all of its channels."""
    unit: str = ""
    """Unit of the samples, where the file does not say."""
    gap: NotNegative = 1.0
    """Times of a regular stream that are further apart than this and one interval start a new segment, s; so do
    times of any stream that step back by more."""
    chunk: Count = 1024
    """Samples in a block, at most; no more than 1 s where the rate is known."""
    salvage: bool = False
    """Take what is whole of a file that was cut short or damaged, up to the damage, instead of an error."""

    def check(self) -> None:
        if not self.file.startswith("data:"):  # those may have to be fetched first
            self._plan()

    def start(self, *inputs: Spec) -> Spec:
        spec, self.found, self.stamps, self.columns, self.starts = self._plan()
        self.step = min(self.chunk, max(1, round(spec.rate))) if spec.rate else self.chunk
        return spec

    def _plan(self) -> tuple[Spec, Stream, Callable[[int, int], Times], list[int], list[Start]]:
        """What is given: its Spec, stream, times, columns, and (index, seq, segment) of where segments start."""
        path = find(self.file)
        if self.events:
            return self._counted(path)
        found = _read(path, self.salvage)
        s = self._one(path, found)
        stamps, labels, columns = s.times, s.spec.channels, list(range(s.spec.n))
        if self.times:
            column = _column(s, self.times)
            if column >= 0:
                t = s.data(0, s.n)[:, column]
                columns.remove(column)
            elif self.times in found:
                t = found[self.times].data(0, found[self.times].n)
            else:
                words = nearest(self.times, [*(k for k in found if k), *(labels if s.named else ())])
                raise StreamError(f"times: {path} has no {self.times!r}{words}")
            stamps = _stamps(path, self.times, t, s.n)
        if not columns:
            raise StreamError(f"times: {path} has no column besides the times")
        labels = tuple(labels[i] for i in columns)
        if self.channels and s.named:
            columns = [columns[k] for k in self._chosen(path, labels)]
        elif self.channels and len(self.channels) != len(labels):
            raise StreamError(f"channels: {len(self.channels)} names for the {len(labels)} channels of {path}")
        if self.by:
            s, stamps, labels, columns = self._keyed(path, s, stamps, labels, columns)
        rate = self.rate or s.spec.rate
        starts = s.starts
        if stamps and not s.exact:
            t = stamps(0, s.n)
            rate = rate or (rate_of(t) if self.times else 0.0)
            step = np.diff(t)
            cut = (step < -self.gap) | (rate > 0) & (step > self.gap + 1 / (rate or np.inf))
            cuts = {*(np.flatnonzero(cut) + 1).tolist(), *(i for i, _, _ in starts)}
            starts = [(i, i, k) for k, i in enumerate(sorted(cuts))]
        if not stamps:
            if not rate:
                raise StreamError(f"rate: {path} has no times: give its rate in Hz, or its times by name")
            stamps = lambda a, b: np.arange(a, b) / rate  # noqa: E731
        spec = s.spec.replace(
            rate=rate, channels=labels if self.by else self.channels or labels, unit=self.unit or s.spec.unit
        )
        return spec, s, stamps, columns, starts

    def _keyed(
        self,
        path: Path,
        s: Stream,
        stamps: Callable[[int, int], Times] | None,
        labels: tuple[str, ...],
        columns: list[int],
    ) -> tuple[Stream, Callable[[int, int], Times], tuple[str, ...], list[int]]:
        """The same, all units side by side."""
        names = labels if s.named else self.channels or labels
        if self.by not in names:
            raise StreamError(f"by: {path} has no column {self.by!r}{nearest(self.by, names)}")
        if not stamps:
            raise StreamError("times: say which column holds the time, for units side by side are sorted by it")
        t, x, k = stamps(0, s.n), s.data(0, s.n), names.index(self.by)
        order = np.argsort(t, kind="stable")
        t, x = t[order], x[order]
        columns = [columns[k], *columns[:k], *columns[k + 1 :]]
        labels = ("unit", *names[:k], *names[k + 1 :])
        return (
            dataclasses.replace(s, data=lambda a, b: x[a:b], starts=[(0, 0, 0)], exact=True),
            lambda a, b: t[a:b],
            labels,
            columns,
        )

    def _counted(self, path: Path) -> tuple[Spec, Stream, Callable[[int, int], Times], list[int], list[Start]]:
        """The same, of events."""
        if not self.rate:
            raise StreamError("rate: say into how many samples a second the events are to be counted, Hz")
        s = _count(path, _changed(path), self.events, self.times, self.rate, self.salvage)
        columns = self._chosen(path, s.spec.channels) if self.channels else list(range(s.spec.n))
        spec = s.spec.replace(channels=tuple(s.spec.channels[k] for k in columns), unit=self.unit or s.spec.unit)
        assert s.times
        return spec, s, s.times, columns, s.starts

    def _chosen(self, path: Path, labels: tuple[str, ...]) -> list[int]:
        for c in self.channels:
            if c not in labels:
                raise StreamError(f"channels: {path} has no channel {c!r}{nearest(c, labels)}")
        return [labels.index(c) for c in self.channels]

    def blocks(self) -> Iterator[Block]:
        s = self.found
        self.health = {"nonfinite": 0}
        every = self.columns == list(range(s.spec.n))
        ends = [*(i for i, _, _ in self.starts[1:]), s.n]
        for (first, seq, segment), end in zip(self.starts, ends, strict=False):  # a recording may be empty
            for a in range(first, end, self.step):
                b = min(a + self.step, end)
                data = s.data(a, b) if every else s.data(a, b)[:, self.columns]
                if data.dtype.kind == "f" and not (finite := np.isfinite(data)).all():
                    self.health["nonfinite"] += int((~finite.all(axis=1)).sum())
                yield Block(data, self.stamps(a, b), seq + a - first, segment)

    def _one(self, path: Path, found: dict[str, Stream]) -> Stream:
        names = [k for k in found if k not in (_xdf.EVENTS, self.times)]
        if self.stream in found:
            return found[self.stream]
        if self.stream:
            raise StreamError(f"stream: {path} has no stream {self.stream!r}{nearest(self.stream, names)}")
        if len(names) != 1:
            raise StreamError(f"stream: {path} has {len(names)} streams, name one{nearest('', names)}")
        return found[names[0]]


def streams(file: str, salvage: bool = False) -> dict[str, Spec]:
    """Name -> Spec of every stream in a file (rate 0 where it does not say). The file is read once, however often
    it is asked for and opened, until it changes."""
    return {k: s.spec for k, s in _read(find(file), salvage).items() if k != _xdf.EVENTS}


def _column(s: Stream, name: str) -> int:
    """Which column has this name, or this number where columns have no names; -1: none."""
    if s.named and name in s.spec.channels:
        return s.spec.channels.index(name)
    return int(name) if not s.named and name.isdecimal() and int(name) < s.spec.n else -1


def _stamps(path: Path, name: str, t: Array, n: int) -> Callable[[int, int], Times]:
    if t.size != n:
        raise StreamError(f"times: {name!r} of {path} has shape {t.shape} for {n} samples")
    if t.dtype == object or not np.isfinite(t).all():
        raise StreamError(f"times: {name!r} of {path} holds what is not a time")
    t = t.ravel().astype(np.float64)
    return lambda a, b: t[a:b]


def _read(path: Path, salvage: bool) -> dict[str, Stream]:
    try:
        return _parse(path, _changed(path), salvage)
    except OSError as e:
        raise StreamError(f"file: {path}: {e.strerror or e}") from None


def _changed(path: Path) -> tuple[int, int]:
    """What differs once a file has changed."""
    try:
        about = path.stat()
    except OSError as e:
        raise StreamError(f"file: {path}: {e.strerror or e}") from None
    return about.st_mtime_ns, about.st_size


@functools.lru_cache(maxsize=4)
def _count(path: Path, changed: tuple[int, int], events: str, times: str, rate: float, salvage: bool) -> Stream:
    try:
        return _events.counts(_events.units(path, events, times, salvage), rate)
    except OSError as e:
        raise StreamError(f"file: {path}: {e.strerror or e}") from None


@functools.lru_cache(maxsize=4)
def _parse(path: Path, changed: tuple[int, int], salvage: bool) -> dict[str, Stream]:
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind not in FORMATS:
        raise StreamError(f"file: {path}: not a format known here{nearest(kind, FORMATS)}")
    try:
        return FORMATS[kind](path, salvage)
    except MemoryError:
        raise StreamError(f"file: {path}: larger than memory") from None


FORMATS: dict[str, Callable[[Path, bool], dict[str, Stream]]] = {
    "xdf": _xdf.xdf,
    "xdfz": _xdf.xdf,
    "csv": _tables.table,
    "tsv": _tables.table,
    "txt": _tables.table,
    "npz": _tables.npz,
    "npy": _tables.npy,
    "mat": _tables.mat,
    "videopositiontracking": _events.tracking,
}
"""How each kind of file is read; .gz after it is unpacked on the way (xdf and tables)."""
