"""Read a recording: XDF, CSV, npz, npy, MATLAB or a video tracker's, with the segments, times and bits of the file.

Nothing is resampled, straightened or filled in. What counts as a segment:

- a recording of `record`: what it says itself, with sequence numbers; times and samples to the bit;
- another XDF file: each clock reset that its ClockOffsets show (pyxdf finds them and adds the offsets to the stamps;
  its de-jittering stays off), and each gap or step back in the stamps;
- a table or array with times: each gap or step back; without times there is one segment, from 0 s on;
- an array (recordings, samples, channels): each recording;
- each of several files, which are played one after another:
  {type: replay, file: ["data:broad/a.mat", "data:broad/b.mat"], stream: imu_acc, rate: sampling_rate, every: 200};
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
from rheobase.devices._tables import Stream, Times, column_of, named_rate, rate_of, stamps_of, without
from rheobase.devices._units import beside
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.files import find
from rheobase.stream.node import Count, NotNegative, Source, nearest


@dataclasses.dataclass
class Part:
    """What is given of one file. starts: (index, seq, segment) where a segment starts; timed: its times are its own."""

    spec: Spec
    stream: Stream
    times: Callable[[int, int], Times]
    columns: list[int]
    starts: list[tuple[int, int, int]]
    timed: bool = True


class Replay(Source):
    """Gives the samples of one stream of a file, as fast as they are asked for.

    `health` counts the samples with a value that is not finite.

    Raises StreamError that names the file: no such file, stream or channel; a format not known; a file that is cut
    short or damaged (and how many samples before that are whole); a shape or dtype that is no stream.
    """

    live: ClassVar[bool] = False

    file: str | tuple[str, ...]
    """The recording: a path, or "data:set/file" for recorded data by name. Several are played one after another, each
    in segments of its own."""
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
    rate: NotNegative | str = 0.0
    """Sampling rate, Hz, or the name of the array that holds it. 0: as the file says, or as regular times show."""
    channels: tuple[str, ...] = ()
    """Channels to take, in this order; none: all. For a file without names: the names of all of its channels."""
    unit: str = ""
    """Unit of the samples, where the file does not say."""
    begin: NotNegative = 0.0
    """What to leave out of the start of each file, s; the times of the rest stay as they are."""
    missing: float | None = None
    """Value that stands for a missing one, such as -1: it comes out as NaN."""
    gap: NotNegative = 1.0
    """Times of a regular stream that are further apart than this and one interval start a new segment, s; so do
    times of any stream that step back by more."""
    chunk: Count = 1024
    """Samples in a block, at most; no more than 1 s where the rate is known."""
    every: NotNegative = 0.0
    """Of several files, the times of each are put so much later than those of the one before, s, so that streams of
    different lengths and rates stay together. 0: times that a file has are kept, and must run on from file to file;
    where there are none, the samples are counted on."""
    salvage: bool = False
    """Take what is whole of a file that was cut short or damaged, up to the damage, instead of an error."""

    def check(self) -> None:
        if not any(f.startswith("data:") for f in self._files()):  # those may have to be fetched first
            self._plan()

    def start(self, *inputs: Spec) -> Spec:
        self.parts = self._plan()
        spec = self.parts[0].spec
        self.step = min(self.chunk, max(1, round(spec.rate))) if spec.rate else self.chunk
        return spec

    def _files(self) -> tuple[str, ...]:
        return (self.file,) if isinstance(self.file, str) else self.file

    def _plan(self) -> list[Part]:
        """What is given of each file, times and all."""
        files = self._files()
        if not files:
            raise StreamError("file: name at least one")
        parts = [self._counted(find(f)) if self.events else self._part(find(f)) for f in files]
        one, end = parts[0].spec, -np.inf
        for k, (name, p) in enumerate(zip(files, parts, strict=True)):
            for what, new, old in (
                ("channels", ", ".join(p.spec.channels), ", ".join(one.channels)),
                ("rate", f"{p.spec.rate:g} Hz", f"{one.rate:g} Hz"),
                ("type", p.spec.dtype, one.dtype),
                ("unit", p.spec.unit, one.unit),
                ("times", *("of its own" if q.timed else "none" for q in (p, parts[0]))),
            ):
                near = what == "rate" and abs(p.spec.rate - one.rate) <= 0.01 * one.rate  # regular times jitter
                if new != old and not near:
                    raise StreamError(f"file: {name} differs from {files[0]} in {what}: {new}, there {old}")
            if self.every and k:
                p.times = functools.partial(_later, p.times, k * self.every)
            elif not p.timed and np.isfinite(end):
                p.times = _counting(round(end * one.rate) + 1, one.rate)
            if p.stream.n:
                first = float(p.times(0, 1)[0])
                if first <= end:
                    raise StreamError(f"every: {name} would begin at {first:g} s, and the one before ends at {end:g} s")
                end = float(p.times(p.stream.n - 1, p.stream.n)[0])
        return parts

    def _part(self, path: Path) -> Part:
        """What is given of one file."""
        found = _read(path, self.salvage)
        s = self._one(path, found)
        stamps, labels, columns = s.times, s.spec.channels, list(range(s.spec.n))
        if self.times:
            column = column_of(s, self.times)
            if column >= 0:
                t = s.data(0, s.n)[:, column]
                columns.remove(column)
            elif self.times in found:
                t = found[self.times].data(0, found[self.times].n)
            else:
                words = nearest(self.times, [*(k for k in found if k), *(labels if s.named else ())])
                raise StreamError(f"times: {path} has no {self.times!r}{words}")
            stamps = stamps_of(path, self.times, t, s.n)
        if not columns:
            raise StreamError(f"times: {path} has no column besides the times")
        labels = tuple(labels[i] for i in columns)
        if self.channels and s.named:
            columns = [columns[k] for k in self._chosen(path, labels)]
        elif self.channels and len(self.channels) != len(labels):
            raise StreamError(f"channels: {len(self.channels)} names for the {len(labels)} channels of {path}")
        s = s if self.missing is None else without(path, s, self.missing)
        labels = self.channels or labels
        if self.by:
            s, stamps, labels, columns = beside(path, self.by, s, stamps, labels, columns)
        rate = (named_rate(path, found, self.rate) if isinstance(self.rate, str) else self.rate) or s.spec.rate
        starts = s.starts
        if stamps and not s.exact:
            t = stamps(0, s.n)
            rate = rate or (rate_of(t) if self.times else 0.0)
            step = np.diff(t)
            cut = (step < -self.gap) | (rate > 0) & (step > self.gap + 1 / (rate or np.inf))
            cuts = {*(np.flatnonzero(cut) + 1).tolist(), *(i for i, _, _ in starts)}
            starts = [(i, i, k) for k, i in enumerate(sorted(cuts))]
        if not stamps and not rate:
            raise StreamError(f"rate: {path} has no times: give its rate in Hz, or its times by name")
        spec = s.spec.replace(rate=rate, channels=labels, unit=self.unit or s.spec.unit)
        part = Part(spec, s, stamps or _counting(0, rate), columns, starts, stamps is not None)
        return _without_start(path, part, self.begin) if self.begin else part

    def _counted(self, path: Path) -> Part:
        """The same, of events."""
        if not self.rate or isinstance(self.rate, str):
            raise StreamError("rate: say into how many samples a second the events are to be counted, Hz")
        s = _count(path, _changed(path), self.events, self.times, self.rate, self.salvage)
        columns = self._chosen(path, s.spec.channels) if self.channels else list(range(s.spec.n))
        spec = s.spec.replace(channels=tuple(s.spec.channels[k] for k in columns), unit=self.unit or s.spec.unit)
        assert s.times
        return Part(spec, s, s.times, columns, s.starts)

    def _chosen(self, path: Path, labels: tuple[str, ...]) -> list[int]:
        for c in self.channels:
            if c not in labels:
                raise StreamError(f"channels: {path} has no channel {c!r}{nearest(c, labels)}")
        return [labels.index(c) for c in self.channels]

    def blocks(self) -> Iterator[Block]:
        self.health = {"nonfinite": 0}
        seq0 = segment0 = 0
        for p in self.parts:
            s, every = p.stream, p.columns == list(range(p.stream.spec.n))
            ends = [*(i for i, _, _ in p.starts[1:]), s.n]
            seq = segment = -1
            for (first, seq, segment), end in zip(p.starts, ends, strict=False):  # a recording may be empty
                for a in range(first, end, self.step):
                    b = min(a + self.step, end)
                    data = s.data(a, b) if every else s.data(a, b)[:, p.columns]
                    if data.dtype.kind == "f" and not (finite := np.isfinite(data)).all():
                        self.health["nonfinite"] += int((~finite.all(axis=1)).sum())
                    yield Block(data, p.times(a, b), seq0 + seq + a - first, segment0 + segment)
                seq += end - first
            seq0, segment0 = seq0 + max(seq, 0), segment0 + segment + 1

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


def _counting(before: int, rate: float) -> Callable[[int, int], Times]:
    """Times k / rate of the samples after so many."""
    return lambda a, b: np.arange(before + a, before + b) / rate


def _later(times: Callable[[int, int], Times], shift: float, a: int, b: int) -> Times:
    return times(a, b) + shift


def _without_start(path: Path, p: Part, seconds: float) -> Part:
    """Less the samples of the first so many seconds."""
    s, t = p.stream, p.times(0, p.stream.n)
    first = int(np.searchsorted(t, t[0] + seconds - 1e-9)) if s.n else 0
    if first >= s.n:
        raise StreamError(f"begin: {path} has no sample {seconds:g} s after its first")
    before = [(0, seq + first - i, k) for i, seq, k in p.starts if i <= first][-1:]
    starts = before + [(i - first, seq, k) for i, seq, k in p.starts if i > first]
    rest = dataclasses.replace(s, n=s.n - first, data=lambda a, b: s.data(a + first, b + first))
    return dataclasses.replace(p, stream=rest, times=lambda a, b: p.times(a + first, b + first), starts=starts)


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


@functools.lru_cache(maxsize=8)
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
