"""Record streams to an XDF file, readable up to the last flush whatever happens.

The format is XDF 1.0 (https://github.com/sccn/xdf/wiki/Specifications), which pyxdf, EEGLAB and MoBILAB read. Beyond
what it asks, and so that a replay gives the same bits back:

- every sample carries its own 8-byte time, none is deduced from the rate;
- each StreamHeader holds the stream's Spec as JSON in desc/rheobase/spec;
- a string stream "rheobase" holds one JSON event where a segment starts or samples are missing:
  {"stream": name, "index": samples of it recorded before, "seq": ..., "segment": ...}, at the time of the sample;
- behind all that is written at once lies a chunk of a tag that other readers skip, with its CRC-32 and how far each
  stream has come: `rheo replay` sees a changed bit, `rheo repair` takes what is whole before and behind damage.

Times are LSL times already, hence the ClockOffsets are 0, and desc/synchronization/can_drop_samples keeps readers
from drawing a line through them.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import struct
import threading
from importlib.metadata import version
from io import FileIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import numpy as np

from rheobase.devices._check import CHECK, Check
from rheobase.devices._xdf import EVENTS, FILE, FOOTER, HEADER, MARK, OFFSET, SAMPLES, row_type
from rheobase.stream.block import Block, Spec, StreamError
from rheobase.stream.clock import now
from rheobase.stream.node import Positive, Sink

FORMATS = {"float64": "double64", "str": "string"}
"""XDF's word for a dtype, where it differs."""

BOUNDARY = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
"""What a reader looks for to find its way back after damage."""

SYNC = 5.0
"""s between ClockOffset chunks, as LabRecorder writes them."""

FULL = 4 << 20
"""Bytes waiting that are written at once, without waiting for the next flush."""


class Record(Sink):
    """Writes every block of every input to one XDF file: times, samples, sequence and segments to the bit.

    The file appears with the first block (or at the end, if none came). It is written in whole chunks only, so that
    it can be read up to the last flush after a crash; `rheo replay` and pyxdf read it without its footers. A process
    that is started again records to a file of its own: recording.1.xdf, and so on.

    Raises StreamError when the file exists already, and when the disk is full (saying how much is safe).
    """

    file: str = "recording.xdf"
    """Where to record: a path, taken from the run directory where there is one."""
    flush: Positive = 0.5
    """Samples reach the disk at least this often, s."""

    def start(self, *inputs: Spec) -> None:
        self.path = (self.folder or Path()) / self.file
        if self.attempt:  # what the process before this one wrote stays as it is
            self.path = self.path.with_stem(f"{self.path.stem}.{self.attempt}")
        names = [*self.inputs, EVENTS]
        for name in names:
            if names.count(name) > 1:
                why = f"{EVENTS!r} is the name of the recording's own events" if name == EVENTS else "twice"
                raise StreamError(f"in: {name!r}: {why}")
        if self.path.exists():
            raise StreamError(f"file: {self.path} exists already, and a recording is never overwritten")
        if not self.path.parent.is_dir():
            raise StreamError(f"file: no folder {self.path.parent}")
        self.specs = (*inputs, Spec(rate=0, channels=("event",), dtype="str"))
        n = len(self.specs)
        self.waiting = [bytearray() for _ in range(n)]
        self.taken = [0] * n
        self.safe = [0] * n
        self.span = [[0.0, 0.0] for _ in range(n)]
        self.next = [(-1, -1)] * n
        self.lock = threading.Lock()
        self.done = threading.Event()
        self.out: FileIO | None = None
        self.error: StreamError | None = None
        self.told = False
        self.timer: threading.Thread | None = None

    def take(self, i: int, x: Block) -> None:
        with self.lock:
            if not self._ready() or not len(x):
                return
            if (x.seq, x.segment) != self.next[i]:
                event = {"stream": self.inputs[i], "index": self.taken[i], "seq": x.seq, "segment": x.segment}
                self._add(len(self.inputs), np.array([[json.dumps(event)]], object), x.times[:1])
            self.next[i] = (x.seq + len(x), x.segment)
            self._add(i, x.data, x.times)
            if sum(map(len, self.waiting)) > FULL:
                self._write()
            self._ready()

    def stop(self) -> None:
        if not hasattr(self, "done"):
            return
        self.done.set()
        with self.lock:
            try:
                if self._ready():
                    self._write(last=True)
                    self._ready()
            finally:
                if self.out:
                    self.out.close()
        if self.timer:
            self.timer.join()

    def _ready(self) -> bool:
        """Whether the file is open and nothing has failed. A failure is raised once."""
        if self.out is None and not self.error:
            self._open()
        if self.error and not self.told:
            self.told = True
            raise self.error
        return not self.error

    def _open(self) -> None:
        try:
            self.out = open(self.path, "xb", buffering=0)  # noqa: SIM115
        except FileExistsError:
            self.error = StreamError(f"file: {self.path} exists already, and a recording is never overwritten")
        except OSError as e:
            self.error = StreamError(f"file: {self.path}: {e.strerror}")
        if self.out is None:
            return
        self.size = 0
        self.synced = -np.inf
        self.timer = threading.Thread(target=self._keep_flushing, name=f"{self.name} flush", daemon=True)
        self.timer.start()
        text = ElementTree.Element("info")
        _put(text, "version", "1.0")
        _put(text, "datetime", datetime.datetime.now().astimezone().isoformat(timespec="microseconds"))
        head = b"XDF:" + _chunk(FILE, _xml(text))
        for k, (name, spec) in enumerate(zip((*self.inputs, EVENTS), self.specs, strict=True)):
            head += _chunk(HEADER, _id(k), _header(name, spec))
        self._append(self._checked(head))

    def _checked(self, data: bytes) -> bytes:
        """With its checksum, and how far each stream has come, behind it."""
        totals = tuple((n, *last) for n, last in zip(self.taken, self.next, strict=True))
        return data + _chunk(CHECK, Check.of(data, totals).pack())

    def _add(self, i: int, data: Any, times: Any) -> None:
        spec = self.specs[i]
        if spec.dtype == "str":
            for t, row in zip(times, data, strict=True):
                self.waiting[i] += struct.pack("<Bd", 8, t)
                for value in row:
                    text = str(value).encode(errors="replace")
                    self.waiting[i] += _size(len(text)) + text
        else:
            if data.dtype != spec.dtype:
                raise StreamError(f"{self.inputs[i]}: samples are {data.dtype}, announced as {spec.dtype}")
            rows = np.empty(len(times), row_type(spec))
            rows["bytes"], rows["time"], rows["x"] = 8, times, data
            self.waiting[i] += rows.tobytes()
        if not self.taken[i]:
            self.span[i][0] = float(times[0])
        self.span[i][1] = float(times[-1])
        self.taken[i] += len(times)

    def _write(self, last: bool = False) -> None:
        """Append what waits as whole chunks: the events first, so that no sample lies there without its own."""
        if self.error or not (last or any(self.waiting)):
            return
        parts = [_chunk(MARK, BOUNDARY)]
        if now() > self.synced + SYNC:
            self.synced = now()
            parts += [_chunk(OFFSET, _id(k), struct.pack("<dd", self.synced, 0.0)) for k in range(len(self.specs))]
        for k in (len(self.inputs), *range(len(self.inputs))):
            if self.waiting[k]:
                parts.append(_chunk(SAMPLES, _id(k), _size(self.taken[k] - self.safe[k]), self.waiting[k]))
        if last:
            parts += [_chunk(FOOTER, _id(k), self._footer(k)) for k in range(len(self.specs))]
        if self._append(self._checked(b"".join(parts))):
            self.safe = list(self.taken)
            for w in self.waiting:
                w.clear()

    def _append(self, data: bytes) -> bool:
        """All of it, or nothing of it and an error."""
        assert self.out
        left = memoryview(data)
        try:
            while left:
                left = left[self.out.write(left) :]
        except OSError as e:
            with contextlib.suppress(OSError):  # else half a chunk stays at the end: a reader takes what is whole
                self.out.truncate(self.size)
            safe = ", ".join(f"{n} samples of {name!r}" for n, name in zip(self.safe, self.inputs, strict=False))
            self.error = StreamError(f"file: {self.path}: {e.strerror} after {self.size} bytes; safe on disk: {safe}")
            return False
        self.size += len(data)
        return True

    def _keep_flushing(self) -> None:
        assert self.out
        while not self.done.wait(self.flush):
            with self.lock:
                if self.done.is_set() or self.error:
                    return
                waited = any(self.waiting)
                self._write()
                # The copy outlives a close by stop(): syncing without the lock lets samples come in meanwhile.
                copy = os.dup(self.out.fileno()) if waited else -1
            if copy >= 0:
                try:
                    os.fsync(copy)
                except OSError as e:
                    self.error = self.error or StreamError(f"file: {self.path}: {e.strerror}")
                finally:
                    os.close(copy)

    def _footer(self, k: int) -> bytes:
        text = ElementTree.Element("info")
        _put(text, "first_timestamp", repr(self.span[k][0]))
        _put(text, "last_timestamp", repr(self.span[k][1]))
        _put(text, "sample_count", str(self.taken[k]))
        return _xml(text)


def _header(name: str, spec: Spec) -> bytes:
    text = ElementTree.Element("info")
    _put(text, "name", name)
    _put(text, "type", "Markers" if spec.dtype == "str" else "Signal")
    _put(text, "channel_count", str(spec.n))
    _put(text, "nominal_srate", repr(spec.rate))
    _put(text, "channel_format", FORMATS.get(spec.dtype, spec.dtype))
    _put(text, "source_id", f"rheobase:{name}")
    _put(text, "hostname", platform.node())
    desc = _put(text, "desc")
    _put(_put(desc, "synchronization"), "can_drop_samples", "true")
    channels = _put(desc, "channels")
    for label in spec.channels:
        channel = _put(channels, "channel")
        _put(channel, "label", label)
        _put(channel, "unit", spec.unit)
    own = _put(desc, "rheobase")
    _put(own, "version", version("rheobase"))
    _put(own, "delay", repr(spec.delay))
    _put(own, "spec", json.dumps(msgspec.to_builtins(spec)))  # ASCII: safe in XML whatever a label holds
    return _xml(text)


def _put(parent: ElementTree.Element, tag: str, text: str = "") -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag)
    child.text = "".join(c for c in text if c >= " " and c not in "\ufffe\uffff")  # what XML cannot hold
    return child


def _xml(text: ElementTree.Element) -> bytes:
    return b'<?xml version="1.0"?>' + ElementTree.tostring(text, encoding="unicode").encode(errors="replace")


def _id(k: int) -> bytes:
    return struct.pack("<I", k + 1)


def _size(n: int) -> bytes:
    """A length as XDF writes it: how many bytes (1, 4 or 8), then the number."""
    width, code = (1, "<BB") if n < 1 << 8 else (4, "<BI") if n < 1 << 32 else (8, "<BQ")
    return struct.pack(code, width, n)


def _chunk(tag: int, *content: bytes | bytearray) -> bytes:
    body = struct.pack("<H", tag) + b"".join(content)
    return _size(len(body)) + body
